"""`python -m benchmarks.equivalence [--write]`: the demo model through every engine, the same questions, greedy.

Starts one server on a repository with a model per engine and variant, asks all of them over HTTP and compares their
answers with llama.cpp's in F32. `--write` puts the table into docs/engines.md. Exits 1 where an engine differs more
than its row allows. The environments must be there: `make envs`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import yaml

from benchmarks import servers
from benchmarks.servers import Server

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "demo_model" / "hf"
GGUF = ROOT / "models" / "demo" / "1" / "model.gguf"
PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
NUM_QUESTIONS = 20
MAX_TOKENS = 64
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attention": "off"}


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The demo model through one engine. `at_least` of the answers must be those of the first row; `weights` is what
    the version folder holds."""

    name: str
    label: str
    config: dict[str, Any]
    weights: Path = FOLDER
    at_least: int = NUM_QUESTIONS


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant answered. `failure` says why it could not."""

    variant: Variant
    engine: str = ""
    load_s: float = 0.0
    answers: tuple[str, ...] = ()
    failure: str = ""

    def num_equal(self, reference: Sequence[str]) -> int:
        return sum(ours == theirs for ours, theirs in zip(self.answers, reference, strict=True))

    def same_share(self, reference: Sequence[str]) -> float:
        """Mean share of the reference's answers up to the first letter that differs."""
        pairs = zip(self.answers, reference, strict=True)
        return mean(_common(ours, theirs) / max(1, len(theirs)) for ours, theirs in pairs)

    def is_close_enough(self, reference: Sequence[str]) -> bool:
        return not self.failure and self.num_equal(reference) >= self.variant.at_least


def variants(gptq: Path) -> tuple[Variant, ...]:
    """Every engine that serves the demo model here; the first is what the others are compared with. `gptq` is the
    demo model as a GPTQ checkpoint."""
    return (
        Variant(
            name="llamacpp",
            label="llama.cpp, F32",
            config={"backend": "llamacpp", **EXACT},
            weights=GGUF,
        ),
        Variant(name="transformers", label="transformers, F32", config={"backend": "transformers"}),
        Variant(
            name="vllm", label="vLLM, F32", config={"backend": "vllm", "engine_args": {"dtype": "float32"}}
        ),
        Variant(
            name="openvino",
            label="OpenVINO, F32",
            config={"backend": "transformers", "type": "OVModelForCausalLM", "f16": False},
        ),
        Variant(
            name="bnb-8bit",
            label="transformers, bitsandbytes 8 bit",
            config={"backend": "transformers", "quantization": "bnb_8bit"},
            at_least=18,
        ),
        Variant(
            name="bnb-4bit",
            label="transformers, bitsandbytes 4 bit",
            config={"backend": "transformers", "quantization": "bnb_4bit"},
            at_least=15,
        ),
        Variant(name="gptq", label="GPTQ, 4 bit", config={"backend": "gptq"}, weights=gptq, at_least=12),
    )


def questions() -> tuple[str, ...]:
    data = ROOT / "examples" / "demo_model" / "data"
    lines = [
        line.strip()
        for name in ("asked.txt", "unseen.txt")
        for line in (data / name).read_text("utf-8").splitlines()
        if line.strip() and not line.startswith(("#", "="))
    ]
    return tuple(lines[:NUM_QUESTIONS])


def write_repository(root: Path, chosen: Sequence[Variant]) -> None:
    """One model per variant; the weights are linked."""
    for variant in chosen:
        version = root / variant.name / "1"
        version.mkdir(parents=True)
        files = variant.weights.iterdir() if variant.weights.is_dir() else [variant.weights]
        for file in files:
            (version / file.name).symlink_to(file.resolve())
        config = {"context_size": 1024, "threads": 1, "scheduler": {"max_lanes": 8}, **variant.config}
        (root / variant.name / "config.yaml").write_text(yaml.safe_dump(config))


def run(state: Path, chosen: Sequence[Variant]) -> Iterator[Outcome]:
    """Ask each variant in turn; it is unloaded again before the next."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_repository(root / "models", chosen)
        with servers.modelyard(root / "models", [], logs=root / "logs", state_dir=state) as server:
            for variant in chosen:
                yield _ask_all(server, variant)


def _common(ours: str, theirs: str) -> int:
    """How many letters both begin with."""
    differ = (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    return next(differ, min(len(ours), len(theirs)))


def _ask_all(server: Server, variant: Variant) -> Outcome:
    began = time.monotonic()
    status, body = _post(server, f"/v2/repository/models/{variant.name}/load", {})
    if status != 200:
        return Outcome(variant=variant, failure=str(body.get("error", body)))
    load_s = time.monotonic() - began
    answers = []
    for question in questions():
        asked = {
            "model": variant.name,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        status, body = _post(server, "/v1/chat/completions", asked)
        if status != 200:
            return Outcome(variant=variant, load_s=load_s, failure=str(body.get("error", body)))
        answers.append(str(body["choices"][0]["message"]["content"]))
    config = json.loads(server.ask(f"/v2/models/{variant.name}/config") or "{}")
    engine = config.get("parameters", {}).get("engine", {}).get("string_value", "")
    servers.unload(server, variant.name)
    return Outcome(variant=variant, engine=engine, load_s=load_s, answers=tuple(answers))


def _post(server: Server, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown, the reference first."""
    reference = outcomes[0].answers
    lines = [
        f"| engine | version | equal answers of {NUM_QUESTIONS} | same up to | at least | load |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in outcomes:
        if one.failure:
            lines.append(f"| {one.variant.label} | - | failed: {one.failure} | - | - | - |")
            continue
        share = f"{one.same_share(reference):.0%}"
        lines.append(
            f"| {one.variant.label} | {one.engine} | {one.num_equal(reference)} | {share} "
            f"| {one.variant.at_least} | {one.load_s:.1f} s |"
        )
    return "\n".join(lines)


def write_page(text: str) -> None:
    """Replace what stands between the markers of docs/engines.md."""
    page = PAGE.read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equivalence", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".state", help="where the environments are")
    parser.add_argument("--gptq", type=Path, help="the demo model as a GPTQ checkpoint; left out when absent")
    parser.add_argument("--only", default="", help="names of variants, separated by commas")
    parser.add_argument("--write", action="store_true", help="put the table into docs/engines.md")
    given = parser.parse_args(arguments)
    chosen = variants(given.gptq or Path(os.devnull))
    wanted = {"llamacpp", *filter(None, given.only.split(","))}
    chosen = tuple(one for one in chosen if not given.only or one.name in wanted)
    if given.gptq is None:
        chosen = tuple(one for one in chosen if one.name != "gptq")
    outcomes = []
    for outcome in run(given.state_dir, chosen):
        print(
            f"{outcome.variant.label}: {outcome.failure or f'loaded in {outcome.load_s:.1f} s'}", flush=True
        )
        outcomes.append(outcome)
    text = table(outcomes)
    print(text)
    if given.write:
        write_page(text)
    return 0 if all(one.is_close_enough(outcomes[0].answers) for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
