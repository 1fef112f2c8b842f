"""`python -m benchmarks.copying_model FOLDER`: trains a small Llama to repeat and to correct texts; writes it as GGUF.

The same weights are written twice: small as they are, and padded with zeros to the sizes of the random 350 M model,
whose step costs what a real model's does. Needs torch and transformers (`make setup` and the `demo` extra).
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.copying import ANSWER, LONGEST_TEXT, NEW, OLD, REPLACED, TEXT, VOCABULARY, Exercise, exercise
from benchmarks.random_model import SHAPES, Shape, add_metadata, add_tokenizer

SMALL = Shape(
    layers=3,
    width=128,
    heads=4,
    kv_heads=1,
    ffn=256,
    vocabulary=VOCABULARY,
    context_tokens=2048,
    head_width=64,
)
LARGE = msgspec.structs.replace(SHAPES["350m"], vocabulary=VOCABULARY)
EPSILON = 1e-5
STEPS = 200
ROW_TOKENS = 2 * LONGEST_TEXT + 2
STEP_TOKENS = 2048
WARM_UP_STEPS = 20
PEAK_RATE = 1e-3
QUICK = 8
"""So many of a head's turns tell one place from the next."""
NEEDED_LEAD = 0.2
"""A right token's logit must be so far above the next one's, or rounding decides what is said."""
NEEDED_SHARE = 0.8

Weights = Mapping[str, NDArray[np.float32]]


def train(*, steps: int = STEPS, seed: int = 0) -> LlamaForCausalLM:
    """A model in which repeating comes easily, trained on exercises that grow longer."""
    torch.manual_seed(seed)
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    began = time.monotonic()
    for step, (ids, is_answer) in enumerate(_batches(steps, np.random.default_rng(seed))):
        logits = model(input_ids=ids).logits[:, :-1][is_answer[:, 1:]]
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][is_answer[:, 1:]])
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"step {step}/{steps}  loss {loss.item():.4f}  {time.monotonic() - began:.0f} s", flush=True
            )
    return model.eval()


def new_model() -> LlamaForCausalLM:
    """Random weights, but for two heads of attention which, one after the other, find what followed a word before.

    A word's vector is in the first half of the numbers, behind one that is the same for all words. The first layer's
    head looks one place back and puts what it finds into the second half. The second layer's head looks for where that
    is the word at hand, and adds what stands there to the second half, which is what is said.
    """
    model = LlamaForCausalLM(_config())
    half = SMALL.width // 2
    angles = 10_000.0 ** (-torch.arange(half // 2) / (half // 2))  # a head's turn from place to place
    embedding = model.model.embed_tokens.weight.data
    embedding.normal_(0.0, 0.02)
    vectors = torch.randn(SMALL.vocabulary, half - 1)
    # All of one length, or the norm before a head would make some words louder than others.
    embedding[:, 1:half] = math.sqrt(half) * torch.nn.functional.normalize(vectors)
    embedding[:, 0] = 4.0
    # What begins the text begins the answer, and what follows an old word follows the new one in its place.
    embedding[ANSWER] = embedding[TEXT]
    embedding[NEW : NEW + REPLACED] = embedding[OLD:NEW]
    model.lm_head.weight.data.normal_(0.0, 0.02)[:, half:] += 0.2 * embedding[:, :half]
    model.lm_head.weight.data[OLD:NEW] *= 0.5
    back, find = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    for attention in (back, find):
        attention.v_proj.weight.data[:] = torch.eye(half, SMALL.width)
    sharp = 4.0
    quick = torch.arange(QUICK)
    back.k_proj.weight.data.zero_()[quick, 0] = sharp
    back.q_proj.weight.data[:half] = 0.0
    back.q_proj.weight.data[quick, 0] = sharp * torch.cos(angles[quick])
    back.q_proj.weight.data[half // 2 + quick, 0] = -sharp * torch.sin(angles[quick])
    back.o_proj.weight.data[half:, :half] += torch.eye(half)
    # Only what turns slowly still matches over the length of a text.
    slow = torch.nonzero(angles * LONGEST_TEXT < 0.6)[:, 0]
    rows = torch.cat([slow, slow + half // 2])
    find.k_proj.weight.data.zero_()[rows, half + 1 + torch.arange(len(rows))] = sharp
    find.q_proj.weight.data[:half] = 0.0
    find.q_proj.weight.data[rows, 1 + torch.arange(len(rows))] = sharp
    find.o_proj.weight.data[half:, :half] += 3.0 * torch.eye(half)
    return model


def share_right(model: LlamaForCausalLM, *, count: int = 40, seed: int = 1) -> float:
    """The share of exercises of all lengths whose every word leads the next best by `NEEDED_LEAD`."""
    rng = np.random.default_rng(seed)
    right = 0
    for number, words in enumerate(np.linspace(16, LONGEST_TEXT, count)):
        one = exercise(rng, words=int(words), corrects=number % 2 == 1)
        ids = torch.tensor([*one.prompt, *one.answer])
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, len(one.prompt) - 1 : -1]
        wanted = ids[len(one.prompt) :, None]
        leads = logits.gather(1, wanted)[:, 0] - logits.scatter(1, wanted, -math.inf).amax(dim=1)
        right += leads.min().item() > NEEDED_LEAD
    return right / count


def weights_of(model: LlamaForCausalLM) -> dict[str, NDArray[np.float32]]:
    """The model's tensors by their GGUF names."""
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in model.state_dict().items():
        value = tensor.float().numpy()
        if name.endswith("q_proj.weight"):
            value = _interleaved(value, SMALL.heads)
        elif name.endswith("k_proj.weight"):
            value = _interleaved(value, SMALL.kv_heads)
        found[_gguf_name(name)] = value
    return found


def write(path: Path, weights: Weights, shape: Shape, *, name: str) -> None:
    """Write the small model's weights as a model of `shape`, padded with zeros, in Q8_0: it computes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, "llama")
    # The mean square over more numbers is smaller by their ratio, the norms' results are larger by its root.
    ratio = shape.width / SMALL.width
    add_metadata(writer, shape, name, epsilon=EPSILON / ratio)
    add_tokenizer(writer, shape.vocabulary)

    def add(name: str, *size: int) -> None:
        full = np.zeros(size, np.float32)
        value = weights.get(name)
        if value is not None:
            full[tuple(slice(length) for length in value.shape)] = value
        if len(size) == 1:
            writer.add_tensor(name, full / np.float32(math.sqrt(ratio)))
            return
        blocks: NDArray[np.uint8] = gguf.quantize(full, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    heads, kv_heads = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    add("token_embd.weight", shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        add(f"{prefix}.attn_norm.weight", shape.width)
        add(f"{prefix}.attn_q.weight", heads, shape.width)
        add(f"{prefix}.attn_k.weight", kv_heads, shape.width)
        add(f"{prefix}.attn_v.weight", kv_heads, shape.width)
        add(f"{prefix}.attn_output.weight", shape.width, heads)
        add(f"{prefix}.ffn_norm.weight", shape.width)
        add(f"{prefix}.ffn_gate.weight", shape.ffn, shape.width)
        add(f"{prefix}.ffn_up.weight", shape.ffn, shape.width)
        add(f"{prefix}.ffn_down.weight", shape.width, shape.ffn)
    add("output_norm.weight", shape.width)
    add("output.weight", shape.vocabulary, shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=SMALL.vocabulary,
        hidden_size=SMALL.width,
        intermediate_size=SMALL.ffn,
        num_hidden_layers=SMALL.layers,
        num_attention_heads=SMALL.heads,
        num_key_value_heads=SMALL.kv_heads,
        head_dim=SMALL.head_width,
        max_position_embeddings=SMALL.context_tokens,
        rms_norm_eps=EPSILON,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
    )


def _batches(steps: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids, and where they are answers; what is left of a row's end is 0 and no answer."""
    for step in range(steps):
        longest = int(16 + (LONGEST_TEXT - 16) * min(1.0, step / (0.5 * steps)))
        width = 2 * longest + 2
        rows = STEP_TOKENS // width
        ids, is_answer = np.zeros((rows, width), np.int64), np.zeros((rows, width), bool)
        for row in range(rows):
            one: Exercise = exercise(rng, words=int(rng.integers(8, longest + 1)), corrects=bool(row % 2))
            said = (*one.prompt, *one.answer)
            ids[row, : len(said)] = said
            is_answer[row, len(one.prompt) : len(said)] = True
        yield torch.from_numpy(ids), torch.from_numpy(is_answer)


def _rate(step: int, steps: int) -> float:
    """A short warm-up, then half a cosine down to 2 %."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)))


def _interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """transformers rotates the two halves of a head against each other, llama.cpp neighbouring rows."""
    rows, width = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, width)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, width))


_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def _gguf_name(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_PARTS[part.removesuffix('.weight')]}.weight"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copying_model", description=__doc__)
    parser.add_argument("folder", type=Path, help="where small.gguf and large.gguf go")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(steps=options.steps, seed=options.seed)
    share = share_right(model)
    print(
        f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {share:.0%} of the answers right"
    )
    if share < NEEDED_SHARE:
        print(f"That is less than {NEEDED_SHARE:.0%}: train with more --steps or another --seed.")
        return 1
    weights = weights_of(model)
    write(options.folder / "small.gguf", weights, SMALL, name="copying")
    write(options.folder / "large.gguf", weights, LARGE, name="copying, padded")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
