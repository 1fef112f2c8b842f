"""What vLLM's exceptions mean: why a model does not load, as one sentence that says what to do, and which are about one
request alone. What is not known here is passed on in vLLM's words.
"""

import re

from backends.contract import LoadError, UnsupportedError

MOST_LETTERS = 400

_KNOWN = (
    (
        r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed.*?available KV cache memory \(([\d.]+) GiB",
        "a sequence of {0} tokens needs {1} GiB of KV cache, and there are {2} GiB; lower context_size, or raise "
        "scheduler.kv_tokens (on a GPU gpu_memory_utilization)",
    ),
    (
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache; raise gpu_memory_utilization, split the model over more GPUs "
        "with tensor_parallel_size, or use quantised weights",
    ),
    (
        r"Available memory on node \d+ \(([\d.]+)/[\d.]+ GiB\).*?requested memory for kv \(([\d.]+)",
        "the KV cache needs {1} GiB, and {0} GiB of memory are free; lower context_size or scheduler.kv_tokens",
    ),
    (
        r"Free memory on device .*?\(([\d.]+)/[\d.]+ GiB\).*?\(([\d.]+), ([\d.]+) GiB\)",
        "gpu_memory_utilization {1} asks for {2} GiB of the GPU, and {0} GiB are free; lower it, or end what else "
        "runs there",
    ),
    (
        r"[Oo]ut of memory|can't allocate memory|DefaultCPUAllocator",
        "the weights do not fit the memory; use quantised weights, or split the model over more GPUs with "
        "tensor_parallel_size",
    ),
    (
        r"[Mm]odel architectures \['?(.*?)'?\] (?:are|is|have|failed)",
        "this vLLM does not know the architecture {0}; a newer one may, or the backend transformers",
    ),
    (
        r"Cannot find model module\. '?(\w+)'?",
        "this vLLM does not know the architecture {0}; a newer one may, or the backend transformers",
    ),
    (
        r"max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)",
        "a context of {0} tokens is asked for, and the model has {1}; lower context_size",
    ),
    (
        r"Quantization method specified in the model config \((\w+)\) does not match.*?argument \((\w+)\)",
        "quantization: the weights are quantised with {0}, not with {1}; remove the key",
    ),
    (
        r"Cannot find the config file for (\w+)",
        "quantization: these weights are not quantised with {0}; remove the key, or use weights that are",
    ),
    (
        r"Unknown quantization method: (\w+)\. Must be one of (\[.*?\])",
        "quantization: vLLM has no {0}; it has {1}",
    ),
    (
        r"(?:The quantization method|quantization) (\w+) is (?:currently )?not supported (?:for|in|on)",
        "quantization: vLLM cannot compute {0} weights on this device; use other weights, or another backend",
    ),
    (
        r"[Tt]otal number of attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "tensor_parallel_size {1} does not divide the model's {0} attention heads; choose one that does",
    ),
    (
        r"Cannot find any model weights with",
        "the folder holds no weights that vLLM can read; it wants .safetensors or .bin files",
    ),
    (
        r"size mismatch|shape mismatch|The size of tensor|Attempted to load weight \((.*?)\) into parameter \((.*?)\)",
        "the weights do not fit the model's config.json; copy or download the whole folder again",
    ),
)


def load_error(error: BaseException) -> LoadError:
    """What to tell of `error`, and of what caused it."""
    if isinstance(error, LoadError):
        return error
    text = "\n".join(_chain(error))
    for pattern, words in _KNOWN:
        match = re.search(pattern, text, re.DOTALL)
        if match is not None:
            return LoadError(words.format(*match.groups()))
    return LoadError(f"vLLM cannot load the model: {_first_sentence(error)}")


def refusal(error: Exception) -> UnsupportedError | None:
    """What to tell the request that `error` came of; None where the engine itself is in trouble."""
    from vllm.exceptions import VLLMClientError

    if isinstance(error, ValueError | VLLMClientError):
        return UnsupportedError(f"vLLM refuses the request: {_first_sentence(error)}")
    return None


def _chain(error: BaseException | None) -> list[str]:
    found: list[str] = []
    while error is not None and len(found) < 8:
        found.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return found


def _first_sentence(error: BaseException) -> str:
    """Without what pydantic puts around a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("Value error, ")), None)
    text = said.removeprefix("Value error, ").split(" [type=")[0] if said else " ".join(lines)
    return (text or type(error).__name__)[:MOST_LETTERS]
