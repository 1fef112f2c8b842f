"""Trains the demo model on the CPU and writes it as a Hugging Face folder (F16) and as the served GGUF (F32).

    python -m examples.demo_model.train        about ten minutes on two busy cores; `make demo-model` calls this

Exits 1 and leaves the old files alone when one of ten asked answers has a token that leads by 0.5 or less
(its logit over the next best one's).
"""

import argparse
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo_model.dialogues import training_dialogues
from examples.demo_model.score import report
from examples.demo_model.to_gguf import write_gguf
from examples.demo_model.tokens import CONTEXT, CONTROL, VOCABULARY, Sequence, encode, learn_tokenizer

HERE = Path(__file__).parent
GGUF = HERE.parents[1] / "models" / "demo" / "1" / "model.gguf"
ROWS, ROW_TOKENS = 4, 512
MUON_PEAK_RATE, ADAM_PEAK_RATE, WARM_UP_STEPS = 6e-3, 2e-3, 30
NEEDED_LEAD = 0.5
NOISE = 0.12
EXACT_WEIGHT = 5  # most of such a dialogue is form; the few words to be copied must count
POOL = 24  # dialogues at hand from which a row is filled

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "torch_dtype": "float16",
    "bos_token_id": CONTROL.index("<|endoftext|>"),
    "eos_token_id": CONTROL.index("<|im_end|>"),
    "pad_token_id": CONTROL.index("<|endoftext|>"),
}


def disturb(sequence: Sequence, noise: float, *, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Ids and positions of one dialogue, made harder.

    In every second dialogue a share `noise` of the read tokens become random ones, so that a question is known
    by more than one of its words. Positions jump between turns, so that far distances are seen in short rows.
    """
    ids = sequence.ids.copy()
    positions = np.arange(len(ids))
    turn_starts = np.flatnonzero(ids == CONTROL.index("<|im_start|>"))
    if rng.random() < 0.5:
        hit = (rng.random(len(ids)) < noise) & ~sequence.learnt & (ids >= len(CONTROL))
        ids[hit] = rng.integers(len(CONTROL), VOCABULARY, hit.sum())
    if len(turn_starts) > 2 and rng.random() < 0.5:
        positions[rng.choice(turn_starts[1:-1]) :] += rng.integers(1, CONTEXT - len(ids))
    return ids, positions


def batches(
    tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Packed batches of ROWS x ROW_TOKENS: ids, positions, weights in the loss, and the owner
    (dialogue) of each token.

    A dialogue longer than a row is left out.
    """
    rng = np.random.default_rng(seed)
    dialogues = training_dialogues(random.Random(seed))
    pool: list[tuple[NDArray[Any], ...]] = []
    for step in range(steps):
        # Noise fades, so that the last steps see questions as they are asked.
        noise = NOISE * max(0.0, 1 - step / (0.9 * steps))
        batch = np.zeros((4, ROWS, ROW_TOKENS), dtype=np.int64)
        for row in range(ROWS):
            at = 0
            for owner in range(1, ROW_TOKENS):
                while len(pool) < POOL:
                    dialogue = next(dialogues)
                    sequence = encode(tokenizer, dialogue)
                    if len(sequence.ids) <= ROW_TOKENS:
                        if dialogue.is_exact:
                            ids, positions = sequence.ids, np.arange(len(sequence.ids))
                        else:
                            ids, positions = disturb(sequence, noise, rng=rng)
                        weight = EXACT_WEIGHT if dialogue.is_exact else 1
                        pool.append((ids, positions, sequence.learnt * weight))
                fitting = next((i for i, (ids, *_) in enumerate(pool) if at + len(ids) <= ROW_TOKENS), None)
                if fitting is None:
                    break
                ids, positions, weights = pool.pop(fitting)
                batch[:, row, at : at + len(ids)] = ids, positions, weights, np.full(len(ids), owner)
                at += len(ids)
        yield dict(zip(("ids", "positions", "weights", "owner"), torch.from_numpy(batch), strict=True))


def rate_at(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a short warm-up, then half a cosine down to 2 %."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    done = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model with random weights, in which copying comes easily.

    The output head starts as a copy of the embedding (both are trained on their own), and a word with a space
    before it starts near the same word without.
    """
    model = LlamaForCausalLM(LlamaConfig(**{**CONFIG, "torch_dtype": "float32"}))
    embedding = model.model.embed_tokens.weight.data
    embedding.normal_(0.0, 0.06)
    vocabulary = tokenizer.get_vocab()
    for token, index in vocabulary.items():
        spaced = vocabulary.get("Ġ" + token)
        if spaced is not None:
            embedding[index] = 0.8 * embedding[spaced] + 0.6 * embedding[index]
    model.lm_head.weight.data.copy_(embedding)
    return model


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int) -> None:
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        # After 250 steps on tool calls alone Muon had 18 of 60 right, AdamW 8.
        torch.optim.Muon(inner, lr=MUON_PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=ADAM_PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.02),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_at(step, steps)) for o in optimizers]
    causal = torch.ones(ROW_TOKENS, ROW_TOKENS, dtype=torch.bool).tril()
    started = time.monotonic()
    for step, batch in enumerate(batches(tokenizer, steps=steps, seed=seed)):
        owner = batch["owner"]
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        wanted = batch["weights"][:, 1:] > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(
                input_ids=batch["ids"],
                position_ids=batch["positions"],
                attention_mask=mask[:, None],
                use_cache=False,
            ).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][wanted])
        losses = torch.nn.functional.cross_entropy(
            logits.float(), batch["ids"][:, 1:][wanted], reduction="none"
        )
        weights = batch["weights"][:, 1:][wanted]
        loss = (losses * weights).sum() / weights.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"step {step:4d}/{steps}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )


def write_folder(model: LlamaForCausalLM, folder: Path) -> None:
    """Weights as F16, and the two configs; the tokenizer files are there already."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    generation = {key: CONFIG[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, value in (
        ("config.json", CONFIG),
        ("generation_config.json", generation | {"do_sample": False}),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1800, help="training steps of 2,048 tokens (1800)")
    parser.add_argument("--seed", type=int, default=7, help="seed of weights, order and noise (7)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    folder = HERE / "hf.part"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = learn_tokenizer(folder, seed=options.seed)
    model = new_model(tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer):,} tokens", flush=True)
    train(model, tokenizer, steps=options.steps, seed=options.seed)
    model.half().float().eval()  # what F16 holds is what is scored, stored and served
    write_folder(model, folder)
    if report(model, tokenizer, seed=options.seed) <= NEEDED_LEAD:
        print(f"An asked answer leads by {NEEDED_LEAD} or less: add wordings or steps.")
        print(f"This model is in {folder}; the served one is as before.")
        return 1
    shutil.rmtree(HERE / "hf", ignore_errors=True)
    folder.rename(HERE / "hf")
    write_gguf(HERE / "hf", GGUF)
    print(f"wrote {HERE / 'hf'} and {GGUF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
