"""The rwkv package without a server: its own forward, one prompt after the other, greedy. Runs in the environment of
the engine: a job as JSON on stdin, seconds and tokens as JSON on stdout."""

import contextlib
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

END_ID = 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """`folder` of a version 7 model, `prompts`, `max_tokens` (each gives exactly so many), `threads`."""
    os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
    warnings.simplefilter("ignore")
    import torch
    from rwkv.model import RWKV
    from tokenizers import Tokenizer

    torch.set_num_threads(job["threads"])
    weights = Path(job["folder"]) / "rwkv"
    model = RWKV(model=str(weights), strategy="cpu fp32")
    tokenizer = Tokenizer.from_file(f"{weights}.tokenizer.json")
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in job["prompts"]]

    def generate(prompt: list[int]) -> None:
        logits, state = model.forward(prompt, None)
        for _ in range(job["max_tokens"] - 1):
            logits[END_ID] = -float("inf")
            logits, state = model.forward([int(logits.argmax())], state)

    for prompt in prompts[:3]:  # its functions are compiled when they have run a few times
        generate(prompt[::-1])
    began = time.perf_counter()
    for prompt in prompts:
        generate(prompt)
    return {
        "wall_s": time.perf_counter() - began,
        "prompt_tokens": sum(map(len, prompts)),
        "completion_tokens": len(prompts) * job["max_tokens"],
    }


if __name__ == "__main__":
    job = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = run(job)
    json.dump(answer, sys.stdout)
