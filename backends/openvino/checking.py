"""`python -I -m backends.openvino.checking FD SECONDS FOLDER VOCABULARY`: compiles what comes over FD, as `checker.py`
asks, with the model's tokenizer and a model of as many logits that computes nothing.

It ends with the other end of FD, or by a limit: of SECONDS of processor time, of memory. The system then ends it,
which is an answer too.
"""

import os
import resource
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset13 as ops

MEMORY_BYTES = 512 << 20
"""What a constraint may take while it is compiled."""

NICENESS = 10


def main() -> None:
    """Entry point."""
    number, seconds, folder, vocabulary = sys.argv[1:]
    os.nice(NICENESS)
    connection = Connection(int(number))
    pipeline = _pipeline(Path(folder), int(vocabulary))
    _compile(pipeline, {"regex": "a"})  # what is slow once
    _limit_memory()
    connection.send_bytes(b"")
    while True:
        try:
            form = msgspec.json.decode(connection.recv_bytes(), type=dict[str, str])
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, float(seconds))
        try:
            _compile(pipeline, form)
            refusal = ""
        except (RuntimeError, ValueError) as error:
            refusal = _reason(error)
        except MemoryError:
            refusal = "it is too large or nested too deeply; simplify it"
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(refusal.encode())


def _pipeline(folder: Path, vocabulary: int) -> genai.LLMPipeline:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.xml"
        ov.save_model(_blank(vocabulary), path)
        weights = ov.Tensor(np.fromfile(path.with_suffix(".bin"), dtype=np.uint8))
        return genai.LLMPipeline(
            path.read_text(), weights, genai.Tokenizer(folder), "CPU", ATTENTION_BACKEND="SDPA"
        )


def _blank(vocabulary: int) -> ov.Model:
    """The inputs and outputs of a language model, all of whose logits are 0."""
    inputs = []
    for name, shape, kind in (
        ("input_ids", [-1, -1], np.int64),
        ("attention_mask", [-1, -1], np.int64),
        ("position_ids", [-1, -1], np.int64),
        ("beam_idx", [-1], np.int32),
    ):
        parameter = ops.parameter(shape, kind, name=name)
        parameter.output(0).set_names({name})
        inputs.append(parameter)
    size = ops.concat([ops.shape_of(inputs[0], "i64"), ops.constant(np.array([vocabulary], np.int64))], 0)
    logits = ops.broadcast(ops.constant(np.float32(0)), size)
    logits.output(0).set_names({"logits"})
    return ov.Model([ops.result(logits)], inputs, "blank")


def _compile(pipeline: genai.LLMPipeline, form: dict[str, str]) -> None:
    config = genai.GenerationConfig(
        max_new_tokens=1, structured_output_config=genai.StructuredOutputConfig(**form)
    )
    pipeline.generate(ov.Tensor(np.zeros((1, 1), np.int64)), config)


def _reason(error: Exception) -> str:
    """The compiler's words without the place in its sources that comes before them."""
    first = str(error).strip().partition("\n")[0]
    for mark in ("is false: ", "parser error at ", "parsing error at "):
        _, found, rest = first.partition(mark)
        if found:
            return rest if mark.startswith("is") else f"error at {rest}"
    return first.rpartition(".cc:")[2].partition(": ")[2] or first


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # not Linux: there is no such limit then
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
