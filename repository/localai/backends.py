"""LocalAI's names of backends: hardware variants and old names of the engines that are here, and what the others do."""

import re

from msgspec import Struct

_HARDWARE = re.compile(
    r"\A(?:(?:nvidia-l4t|l4t|metal-darwin-arm64|darwin-arm64|sycl-f16|sycl-f32|intel-sycl-f16|intel-sycl-f32|cpu|cuda|"
    r"nvidia|rocm|hipblas|amd|intel|sycl|vulkan|metal|arm64|gpu)[0-9.]*-)+"
)
_BUILD = re.compile(r"(?:-development|-quantization|-grpc|-fallback|-avx|-avx2|-avx512)+\Z")

_HERE = frozenset(
    [
        "llamacpp",
        "llama",
        "llama-cpp",
        "llama.cpp",
        "go-llama",
        "transformers",
        "openvino",
        "exllama",
        "exllama2",
        "exllamav2",
        "vllm",
        "rwkv",
        "rwkv.cpp",
        "autogptq",
        "gptq",
        "triton",
        "echo",
    ]
)
_OTHER_NAMES = {
    "llama-stable": "llama-cpp",
    "llama-grammar": "llama-cpp",
    "mamba": "transformers",
    "huggingface": "transformers",
    "rwkv-cpp": "rwkv.cpp",
    "auto-gptq": "autogptq",
    "vllm-cpu": "vllm",
}
_EMBEDDERS = (
    "sentencetransformers",
    "sentence-transformers",
    "huggingface-embeddings",
    "transformers-embeddings",
)

_OTHERS = {
    **dict.fromkeys(
        ("diffusers", "stablediffusion", "stablediffusion-ggml", "tinydream", "flux"), "makes images"
    ),
    **dict.fromkeys(("whisper", "faster-whisper", "moonshine", "whisperx"), "writes down speech"),
    **dict.fromkeys(("silero-vad", "vall-e-x", "voxcpm", "parler-tts"), "is for speech"),
    **dict.fromkeys(("piper", "bark", "bark-cpp", "coqui", "kokoro", "chatterbox", "kitten-tts"), "speaks"),
    **dict.fromkeys(("transformers-musicgen", "musicgen", "ace-step"), "makes music"),
    **dict.fromkeys(("rerankers", "rfdetr", "local-store"), "makes no text"),
}


class Backend(Struct, frozen=True):
    """A backend's name here; `problem` says why there is none. `embeds`: the name says that it is for vectors."""

    name: str
    embeds: bool = False
    problem: str = ""


def backend_of(name: str) -> Backend:
    """What LocalAI's `backend: name` is here. A name that is not LocalAI's stays as it is."""
    bare = _BUILD.sub("", _HARDWARE.sub("", name.lower())) or name
    if bare in _EMBEDDERS:
        return Backend("transformers", embeds=True)
    for each in (name.lower(), bare):
        if each in _OTHERS:
            return Backend(
                name, problem=f'backend "{name}" {_OTHERS[each]}; Modelyard serves text and vectors of it'
            )
    return Backend(_OTHER_NAMES.get(bare, bare if bare in _HERE else name))
