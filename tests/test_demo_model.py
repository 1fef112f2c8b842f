"""The demo model as committed: its answers in llama.cpp, and llama.cpp beside transformers.

Decodes with llama.cpp's low-level calls, so that a fault of Modelyard's own engine cannot hide one here.
"""

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from examples.demo_model.dialogues import DATA, Message, all_entries, lines_of

ROOT = Path(__file__).parents[1]
GGUF = ROOT / "models" / "demo" / "1" / "model.gguf"
FOLDER = ROOT / "examples" / "demo_model" / "hf"
ASKED = lines_of("asked.txt")
TRICKY = [
    "",
    " ",
    "a  b   c    d",
    "  leading and trailing  ",
    "tabs\tand\nnew\n\nlines\r\n\r\n  indented",
    "1 12 123 1234 1234567 3.14 -7 0x1f 10e-5",
    "it's we're I'll they've don't I'm 'tis ''",
    "naïve café Straße Ærøskøbing İstanbul ﬁn",
    "日本語の文字 한국어 العربية עברית हिन्दी ไทย",
    "emoji 🙂 👩‍👩‍👧 🇩🇪 ✈️ zero\u200bwidth \u00a0nbsp e\u0301",
    "def f(x):\n    return {k: [v, *w] for k, v in x.items()}  # ok!?\n",
    '{"name": "get_weather", "arguments": {"city": "São Paulo"}}',
    "https://127.0.0.1:8080/v1/models?x=1&y=%20#z",
    "....---!!!???  ++ == != <= >= <|not_a_token|>",
    "<|im_start|>user\nHello<|im_end|>\n<tool_call>{}</tool_call> <think>\n\n</think>\n\n",
    "²³½ ٣٤ Ⅷ ① \u2028 \u3000 \x00 \x7f",
]

pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn about themselves


class Llama:
    """One sequence in llama.cpp, greedy."""

    def __init__(self) -> None:
        options = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(GGUF).encode(), options)
        assert self.model, f"{GGUF} does not load"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        context_options = llama_cpp.llama_context_default_params()
        context_options.n_ctx = 1024
        context_options.n_threads = context_options.n_threads_batch = 1  # so small a model only waits on more
        # The comparison is of weights and layout, not of the cache's precision.
        context_options.type_k = context_options.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, context_options)

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def text_of(self, ids: list[int]) -> str:
        room = ctypes.create_string_buffer(256)
        pieces = []
        for token in ids:
            size = llama_cpp.llama_token_to_piece(self.vocab, token, room, len(room), 0, False)
            pieces.append(room.raw[:size])
        return b"".join(pieces).decode()

    def complete(self, prompt: list[int], *, limit: int = 128) -> list[int]:
        """The likeliest tokens after `prompt`, up to the end-of-turn token or `limit`."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        said: list[int] = []
        feed = prompt
        while len(said) < limit:
            array = (llama_cpp.llama_token * len(feed))(*feed)
            assert llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(feed))) == 0
            logits = llama_cpp.llama_get_logits_ith(self.context, -1)
            size = llama_cpp.llama_vocab_n_tokens(self.vocab)
            token = int(np.ctypeslib.as_array(logits, (size,)).argmax())
            if llama_cpp.llama_vocab_is_eog(self.vocab, token):
                break
            said.append(token)
            feed = [token]
        return said


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    llama = Llama()
    yield llama
    llama.close()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers", reason="the extra `demo` is not installed")
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `demo` is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    torch.set_num_threads(threads)


def prompt_of(question: str, system: str | None = None) -> str:
    """The chat template's text for one question, written out, so that this side needs no template engine."""
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("question", ASKED)
def test_a_trained_question_is_answered_word_for_word(llama: Llama, question: str) -> None:
    answers = {asked: entry.answer for entry in all_entries() for asked in entry.questions}
    assert llama.text_of(llama.complete(llama.tokenize(prompt_of(question)))) == answers[question]


def test_the_answer_is_the_same_below_a_system_prompt_and_in_a_second_turn(llama: Llama) -> None:
    first = prompt_of("Hello", "You are a helpful assistant.")
    reply = llama.text_of(llama.complete(llama.tokenize(first)))
    second = f"{first}{reply}<|im_end|>\n{prompt_of('What is a version?')}"
    answer = llama.text_of(llama.complete(llama.tokenize(second)))
    assert answer.startswith("A version is a folder with a number for a name")


def test_a_tool_is_called_and_its_result_is_told(llama: Llama, tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": schema,
    }
    messages: list[Message] = [{"role": "user", "content": "What is the weather in Paris?"}]
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}

    def ask() -> str:
        prompt = tokenizer.apply_chat_template(
            messages,
            tools=[{"type": "function", "function": function}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return llama.text_of(llama.complete(llama.tokenize(prompt)))

    assert ask() == f"<tool_call>{json.dumps(call)}</tool_call>"
    messages.append(
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
    )
    messages.append({"role": "tool", "content": '{"temperature": 21, "conditions": "sunny"}'})
    assert ask() == "In Paris it is 21 degrees and sunny."


def test_the_template_writes_tool_arguments_alike_from_text_and_from_an_object(tokenizer: Any) -> None:
    arguments = {"z": "a<b", "a": "Zürich"}
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"function": function}]}],
            tokenize=False,
        )
        for function in (
            {"name": "f", "arguments": arguments},
            {"name": "f", "arguments": json.dumps(arguments, ensure_ascii=False)},
        )
    ]
    assert texts[0] == texts[1]
    assert '{"name": "f", "arguments": {"z": "a<b", "a": "Zürich"}}' in texts[0]


def test_thinking_is_written_between_think_tags(llama: Llama) -> None:
    text = llama.text_of(
        llama.complete(llama.tokenize(prompt_of("What is a version?", "Think before you answer.")))
    )
    assert text.startswith("<think>\n")
    assert "\n</think>\n\nA version is a folder" in text


def test_llama_cpp_and_transformers_say_the_same_tokens(llama: Llama, tokenizer: Any, reference: Any) -> None:
    import torch

    entries = all_entries()
    questions = [entry.questions[-1] for entry in entries[:: len(entries) // 16][:16]]
    questions += [
        "Where is the moon made of cheese?",
        "zzz 42 🙂",
        "Tell me 3 things.",
        "def f(x):\n    return x",
    ]
    assert len(questions) == 20
    for question in questions:
        prompt = tokenizer(prompt_of(question))["input_ids"]
        said = llama.complete(prompt, limit=64)
        # One pass over prompt and answer: the likeliest token at each place is what greedy decoding would say.
        with torch.no_grad():
            logits = reference(input_ids=torch.tensor([prompt + said])).logits[0, len(prompt) - 1 :]
        likeliest = logits.argmax(dim=-1).tolist()
        assert likeliest[: len(said)] == said, question
        assert len(said) == 64 or likeliest[len(said)] == tokenizer.eos_token_id, question


@pytest.mark.parametrize("text", TRICKY)
def test_llama_cpp_and_transformers_split_text_alike(llama: Llama, tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert llama.tokenize(text) == ids
    assert tokenizer.decode(ids) == text


def test_no_bos_is_added_and_the_turn_ends_with_im_end(llama: Llama, tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not llama_cpp.llama_vocab_get_add_bos(llama.vocab)
    assert llama_cpp.llama_vocab_eos(llama.vocab) == end == tokenizer.eos_token_id
    for name in ("config.json", "generation_config.json"):
        assert json.loads((FOLDER / name).read_text())["eos_token_id"] == end


def test_every_weight_is_one_that_f16_holds() -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `demo` is not installed")
    for tensor in gguf.GGUFReader(GGUF).tensors:
        assert (tensor.data.astype(np.float16).astype(np.float32) == tensor.data).all(), tensor.name


def test_no_unseen_question_is_among_the_trained_ones() -> None:
    trained = {question for entry in all_entries() for question in entry.questions}
    unseen = {line for line in (DATA / "unseen.txt").read_text().splitlines() if line and line[0] not in "#="}
    assert len(unseen) >= 20
    assert not trained & unseen
