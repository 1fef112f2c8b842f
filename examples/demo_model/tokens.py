"""The demo model's tokenizer: byte-level BPE learnt from its own texts, and dialogues as token ids.

Owns token ids and which of them are learnt (the assistant's, end of turn included). Texts come from
dialogues.py. The pre-tokeniser is GPT-2's, which llama.cpp knows as "gpt-2".
"""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from examples.demo_model.dialogues import COPYING_LESSON, Dialogue, all_entries, lines_of, training_dialogues

HERE = Path(__file__).parent
VOCABULARY = 2048
CONTEXT = 2048
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class Sequence:
    """A dialogue's ids and, of the same length, whether each id is one the model must predict."""

    ids: NDArray[np.int64]
    learnt: NDArray[np.bool_]


def learn_tokenizer(folder: Path, *, seed: int) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from 4,000 drawn dialogues and write the tokenizer's files to `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKUP),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    drawn = itertools.islice(training_dialogues(random.Random(seed)), COPYING_LESSON, COPYING_LESSON + 4000)
    said = [m["content"] for d in drawn for m in d.messages if m["content"]]
    # Answers twenty times over: they are written as well as read, so they deserve the longer tokens.
    answers = [entry.answer for entry in all_entries()] * 20
    # Every city one token, with and without a space before it: so small a model maps better than it spells.
    cities = [space + city for city in lines_of("cities.txt") for space in ("", " ")] * 400
    numbers = [f" {number}" for number in range(40)] * 400
    schemas = [json.dumps(tool) for tool in json.loads((HERE / "data/tools.json").read_text())] * 50
    tokenizer.train_from_iterator(said + answers + schemas + cities + numbers, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKUP])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": (HERE / "chat_template.jinja").read_text(encoding="utf-8"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return PreTrainedTokenizerFast.from_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerFast, dialogue: Dialogue) -> Sequence:
    """Render the dialogue with the chat template and mark what the assistant says, `<|im_end|>` included."""
    text = tokenizer.apply_chat_template(dialogue.messages, tools=dialogue.tools, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    header = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    learnt = np.zeros(len(ids), dtype=bool)
    at = 0
    while at < len(ids):
        if ids[at : at + len(header)] == header:
            start = at + len(header)
            at = ids.index(end, start)
            learnt[start : at + 1] = True
        at += 1
    return Sequence(np.array(ids, dtype=np.int64), learnt)
