"""openvino-genai without a server: its pipeline stepped as fast as it goes, so many requests at a time. Runs in the
environment of the engine: a job as JSON on stdin, seconds and tokens as JSON on stdout."""

import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

MAX_BATCH_TOKENS = 512
BLOCK_TOKENS = 32
LANES = 16


def run(job: dict[str, Any]) -> dict[str, Any]:
    """`folder`, `prompts`, `max_tokens`, `together`, `threads`, `kv_tokens`; each gives exactly `max_tokens`."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai
    from tokenizers import Tokenizer

    folder = Path(job["folder"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = job["kv_tokens"] // BLOCK_TOKENS + LANES
    scheduler.max_num_batched_tokens = MAX_BATCH_TOKENS
    scheduler.max_num_seqs = LANES
    scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_NUM_THREADS": job["threads"], "sampler_num_threads": job["threads"]}
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
    config = genai.GenerationConfig(max_new_tokens=job["max_tokens"], ignore_eos=True)
    numbers = iter(range(1, sys.maxsize))

    def generate(texts: list[str]) -> int:
        """Run them, `together` at once; returns the tokens of the prompts."""
        waiting, running, prompt_tokens = deque(texts), list[Any](), 0
        while waiting or running:
            while waiting and len(running) < job["together"]:
                tokens = tokenizer.encode(waiting.popleft(), add_special_tokens=False).ids
                prompt_tokens += len(tokens)
                prompt = ov.Tensor(np.array([tokens], dtype=np.int64))
                running.append(pipeline.add_request(next(numbers), prompt, config))
            pipeline.step()
            for handle in running:
                while handle.can_read():
                    handle.read()
            running = [one for one in running if one.get_status() == genai.GenerationStatus.RUNNING]
        return prompt_tokens

    generate([text[::-1] for text in job["prompts"][: job["together"]]])  # what is slow once
    began = time.perf_counter()
    prompt_tokens = generate(job["prompts"])
    return {
        "wall_s": time.perf_counter() - began,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(job["prompts"]) * job["max_tokens"],
    }


if __name__ == "__main__":
    answer = run(json.load(sys.stdin))
    with open(sys.stdout.fileno(), "w", closefd=False) as stdout:
        stdout.write(json.dumps(answer))
