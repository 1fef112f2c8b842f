"""Where the engines' environments and the weights made for them are. `make envs` creates the first."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATE = Path(os.environ.get("MODELYARD_STATE") or ROOT / ".state")
DEMO_FOLDER = ROOT / "examples" / "demo_model" / "hf"
DEMO_GGUF = ROOT / "models" / "demo" / "1" / "model.gguf"


def interpreter(name: str) -> Path:
    """The Python of environment `name`. It must be there: a check that is left out proves nothing."""
    python = STATE / "environments" / name / "bin" / "python"
    assert python.exists(), f"there is no environment {name} in {STATE}; run `make envs`"
    return python
