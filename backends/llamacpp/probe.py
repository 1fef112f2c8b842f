"""What this Python environment has of llama.cpp."""

from importlib.metadata import version

from backends.contract import Probe


def probe() -> Probe:
    """The version, and whether this build of llama.cpp computes on GPUs."""
    try:
        from llama_cpp import llama_supports_gpu_offload
    except (ImportError, OSError, RuntimeError) as error:
        return Probe(problem=f"llama-cpp-python cannot be imported: {error}; install it again")
    devices = ("cpu", "gpu") if llama_supports_gpu_offload() else ("cpu",)
    return Probe(engine=f"llama-cpp-python {version('llama-cpp-python')}", devices=devices)
