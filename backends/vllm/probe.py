"""What this Python environment has of vLLM. Does not import it, which takes half a minute."""

import importlib.util

from backends.contract import Probe
from backends.vllm.loading import CREATE, engine_version, is_cpu_build


def probe() -> Probe:
    """Its version, and the devices that this build of it can compute on."""
    if importlib.util.find_spec("vllm") is None:
        return Probe(problem=f"vLLM is not installed; run `{CREATE}`")
    engine = engine_version()
    if is_cpu_build():
        return Probe(engine=engine, devices=("cpu",))
    try:
        import torch
    except (ImportError, OSError) as error:
        return Probe(engine=engine, problem=f"PyTorch cannot be imported: {error}; run `{CREATE}` again")
    gpus = tuple(f"cuda.{number}" for number in range(torch.cuda.device_count()))
    if not gpus:
        return Probe(engine=engine, problem="this vLLM is the build for GPUs, and none can be seen here")
    return Probe(engine=engine, devices=gpus)
