"""`python rwkv_reference.py`: what the rwkv package itself says, one prompt at a time, in a process for one model.

A job as JSON on stdin: `weights`, `strategy`, `is_v7`, `prompts` (token ids), `tokens` to say. On stdout, for each
prompt, the likeliest tokens and the logits behind the prompt. Runs where the package is installed.
"""

import contextlib
import json
import os
import sys
import warnings
from typing import Any


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    os.environ.update(RWKV_V7_ON=str(int(job["is_v7"])), RWKV_JIT_ON="0", RWKV_CUDA_ON="0")
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        import torch
        from rwkv.model import RWKV

        torch.set_num_threads(1)

        model = RWKV(model=job["weights"].removesuffix(".pth"), strategy=job["strategy"])
        answers = [said(model, prompt, job["tokens"]) for prompt in job["prompts"]]
    json.dump(answers, sys.stdout)


def said(model: Any, prompt: list[int], count: int) -> dict[str, Any]:
    logits, state = model.forward(prompt, None)
    first = logits.float().tolist()
    tokens = []
    while len(tokens) < count:
        tokens.append(int(logits.argmax()))
        logits, state = model.forward(tokens[-1:], state)
    return {"tokens": tokens, "logits": first}


if __name__ == "__main__":
    main()
