"""Scores the demo model: how many trained questions, unseen rewordings, tool calls and thoughts come out right.

Reads the logits of one pass over question and answer; that says as much as decoding them greedily, and faster.
"""

import math
import random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo_model.dialogues import (
    Dialogue,
    ToolTalk,
    all_entries,
    copying,
    lines_of,
    thinking_dialogue,
    unseen_questions,
)
from examples.demo_model.tokens import encode

MISSES_SHOWN = 10


def smallest_gaps(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, dialogues: list[Dialogue]
) -> list[float]:
    """For each dialogue the smallest lead of a learnt token's logit over the runner-up.

    A positive number means that greedy decoding says exactly the learnt text.
    """
    gaps = []
    for dialogue in dialogues:
        sequence = encode(tokenizer, dialogue)
        ids = torch.from_numpy(sequence.ids)
        wanted = torch.from_numpy(sequence.learnt)[1:]
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1][wanted]
        targets = ids[1:][wanted][:, None]
        right = logits.gather(1, targets)[:, 0]
        best_other = logits.scatter(1, targets, -math.inf).amax(dim=1)
        gaps.append(float((right - best_other).min()))
    return gaps


def questions_to_dialogues(pairs: list[tuple[str, str]], system: str | None = None) -> list[Dialogue]:
    head = [{"role": "system", "content": system}] if system else []
    return [
        Dialogue([*head, {"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        for question, answer in pairs
    ]


def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> float:
    """Print all scores and return the smallest lead within the ten asked answers."""
    pairs = [(question, entry.answer) for entry in all_entries() for question in entry.questions]
    rng = random.Random(seed)
    talk = ToolTalk()
    talks = [talk.draw(rng, exchanges=1) for _ in range(100)]
    firsts, seconds = (questions_to_dialogues(rng.sample(pairs, 100)) for _ in range(2))
    sets = {
        "trained questions": questions_to_dialogues(pairs),
        "the same below a system prompt": questions_to_dialogues(pairs, "You are a helpful assistant."),
        "second turns": [
            Dialogue([*first.messages, *second.messages])
            for first, second in zip(firsts, seconds, strict=True)
        ],
        "unseen rewordings": questions_to_dialogues(unseen_questions()),
        "tool calls": [Dialogue(d.messages[:2], d.tools) for d in talks],
        "tool calls with the answers after them": talks,
        "repeating": [copying(talk.cities, rng) for _ in range(50)],
        "thinking": [thinking_dialogue(entry) for entry in rng.sample(all_entries(), 50)],
    }
    for name, dialogues in sets.items():
        gaps = smallest_gaps(model, tokenizer, dialogues)
        print(f"{name}: {sum(gap > 0 for gap in gaps)} of {len(gaps)}", flush=True)
        missed = [(gap, dialogue) for gap, dialogue in zip(gaps, dialogues, strict=True) if gap <= 0]
        for gap, dialogue in missed[:MISSES_SHOWN]:
            said = [m["content"] for m in dialogue.messages if m["role"] == "user"]
            print(f"    missed by {-gap:.1f}: {' / '.join(said)}")
    answers = dict(pairs)
    asked = [(question, answers[question]) for question in lines_of("asked.txt")]
    leads = smallest_gaps(model, tokenizer, questions_to_dialogues(asked))
    for (question, _), lead in zip(asked, leads, strict=True):
        print(f"lead {lead:5.2f}  {question}")
    return min(leads)
