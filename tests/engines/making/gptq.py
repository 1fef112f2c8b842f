"""The demo model as a GPTQ checkpoint, kept in the state folder under a name made of its content.

`quantised_demo()` gives the folder, made on first use; `python making/gptq.py SOURCE TARGET` runs where GPT-QModel is
installed and does the work.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo_model" / "hf"
TEXTS = ROOT / "examples" / "demo_model" / "data" / "qa"
BITS, GROUP = 4, 64
MOST_TEXTS = 192


def quantised_demo(state: Path, python: Path) -> Path:
    """The folder below `state`; `python` is that of an environment with GPT-QModel."""
    parts = [*sorted(DEMO.iterdir()), *sorted(TEXTS.iterdir()), Path(__file__)]
    key = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in parts)).hexdigest()
    folder = state / "made" / f"demo-gptq-{key[:16]}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        words = [str(python), str(Path(__file__)), str(DEMO), str(partial)]
        subprocess.run(words, check=True, env={**os.environ, "GPTQMODEL_CPU_WORKERS": "2"}, timeout=1800)
        partial.rename(folder)
    return folder


def exchanges() -> list[str]:
    """Questions and answers of the demo model's own data, in the form it was trained on."""
    texts = []
    for path in sorted(TEXTS.iterdir()):
        question = ""
        for line in path.read_text().splitlines():
            if line.startswith("= ") and question:
                asked = f"<|im_start|>user\n{question}<|im_end|>\n"
                texts.append(f"{asked}<|im_start|>assistant\n{line[2:]}<|im_end|>")
                question = ""
            elif line and not line.startswith("#"):
                question = line
    return texts


def quantise(source: Path, target: Path) -> None:
    """Write `source` as GPTQ into `target`."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    texts = exchanges()
    chosen = texts[:: max(1, len(texts) // MOST_TEXTS)]
    calibration = [dict(tokenizer(text)) for text in chosen]
    model = GPTQModel.load(str(source), QuantizeConfig(bits=BITS, group_size=GROUP), device="cpu")
    model.quantize(calibration, batch_size=4)
    model.save(str(target))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    quantise(Path(sys.argv[1]), Path(sys.argv[2]))
