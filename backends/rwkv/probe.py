"""What an environment has of the rwkv package, and where it could compute."""

from importlib.metadata import PackageNotFoundError, version

from backends.contract import Probe


def probe() -> Probe:
    """Imports torch, and not rwkv: that decides at its import for one generation of models."""
    try:
        engine = f"rwkv {version('rwkv')}"
    except PackageNotFoundError:
        return Probe(problem="the rwkv package is not installed here; run `modelyard env create rwkv`")
    try:
        import torch
    except ImportError as error:
        return Probe(
            engine=engine, problem=f"torch cannot be imported ({error}); create the environment anew"
        )
    gpus = [f"cuda.{index}" for index in range(torch.cuda.device_count())]
    return Probe(engine=f"{engine}, torch {torch.__version__}", devices=("cpu", *gpus))
