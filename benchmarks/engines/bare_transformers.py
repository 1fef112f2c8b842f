"""transformers without a server: `generate()` over the same prompts, so many at a time. Runs in the environment of
the engine: a job as JSON on stdin, seconds and tokens as JSON on stdout."""

import json
import sys
import time
from pathlib import Path
from typing import Any


def run(job: dict[str, Any]) -> dict[str, Any]:
    """`folder`, `prompts`, `max_tokens`, `together`, `threads`; every prompt gives exactly `max_tokens`."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # given as an argument, None means the model's own
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job["prompts"]]
    sizes = {"min_new_tokens": job["max_tokens"], "max_new_tokens": job["max_tokens"]}

    def generate(group: list[list[int]]) -> None:
        longest = max(map(len, group))
        padded = [[0] * (longest - len(tokens)) + tokens for tokens in group]
        seen = [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in group]
        model.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(seen),
            do_sample=False,
            pad_token_id=0,
            **sizes,
        )

    generate(prompts[: job["together"]])  # what is slow once
    began = time.perf_counter()
    for first in range(0, len(prompts), job["together"]):
        generate(prompts[first : first + job["together"]])
    return {
        "wall_s": time.perf_counter() - began,
        "prompt_tokens": sum(map(len, prompts)),
        "completion_tokens": len(prompts) * job["max_tokens"],
    }


if __name__ == "__main__":
    answer = run(json.load(sys.stdin))
    with open(sys.stdout.fileno(), "w", closefd=False) as stdout:
        stdout.write(json.dumps(answer))
