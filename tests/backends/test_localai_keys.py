"""The examples of LocalAI's page on text generation, as folders with a config.yaml: each is taken as it stands, by the
backend that its users expect, and every key that the page names acts or is refused by name.
"""

import json
from pathlib import Path

import msgspec
import pytest

from adapters.cli.inspection import ModelView, scan_repository, view_models
from backends.registry import Registry
from runner.environments.folder import Environments

OPT = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "torch_dtype": "float16"}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16"}
BERT = {"architectures": ["BertModel"], "model_type": "bert"}
GPTQ = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4}}
EXL2 = {**LLAMA, "quantization_config": {"quant_method": "exl2", "bits": 4.0}}

WEIGHTS: dict[str, dict[str, dict[str, object] | None]] = {
    "facebook/opt-125m": {"config.json": OPT, "model.safetensors": None, "tokenizer.json": {}},
    "WizardLM-7B-uncensored-GPTQ": {
        "config.json": LLAMA,
        "quantize_config.json": {"bits": 4, "group_size": 128},
        "WizardLM-7B-uncensored-GPTQ-4bit-128g.safetensors": None,
    },
    "TheBloke/orca_mini_v2_13b-GPTQ": {
        "config.json": LLAMA,
        "quantize_config.json": {"bits": 4, "group_size": 128},
        "orca_mini_v2_13b-GPTQ-4bit-128g.no-act.order.safetensors": None,
    },
    "of-today-GPTQ": {"config.json": GPTQ, "model.safetensors": None},
    "of-today-EXL2": {"config.json": EXL2, "output.safetensors": None},
    "fakezeta/Starling-LM-7B-beta-openvino-int8": {
        "config.json": LLAMA,
        "openvino_model.xml": None,
        "openvino_model.bin": None,
    },
    "some/bert": {"config.json": BERT, "model.safetensors": None},
    "rwkv": {"rwkv-4-raven.pth": None, "rwkv-4-raven.pth.tokenizer.json": {}},
}

VLLM = "name: model\nbackend: vllm\nparameters:\n    model: facebook/opt-125m\n"
TRANSFORMERS = "name: model\nbackend: transformers\nparameters:\n    model: facebook/opt-125m\n"
EMBEDDING = "name: model\nbackend: transformers\nparameters:\n  model: some/bert\nembeddings: true\n"
OPENVINO = """\
name: model
backend: transformers
parameters:
  model: fakezeta/Starling-LM-7B-beta-openvino-int8
context_size: 8192
threads: 6
f16: true
type: OVModelForCausalLM
stopwords:
- <|end_of_turn|>
- <|endoftext|>
prompt_cache_path: "cache"
prompt_cache_all: true
template:
  chat_message: |
    {{if eq .RoleName "system"}}{{.Content}}<|end_of_turn|>{{end}}{{if eq .RoleName "user"}}{{.Content}}{{end}}

  chat: |
    {{.Input}}<|end_of_turn|>GPT4 Correct Assistant:

  completion: |
    {{.Input}}
"""
AUTOGPTQ = """\
name: model
backend: autogptq
model_base_name: "orca_mini_v2_13b-GPTQ-4bit-128g.no-act.order"
parameters:
  model: "TheBloke/orca_mini_v2_13b-GPTQ"
"""


def exllama(backend: str = "exllama", model: str = "WizardLM-7B-uncensored-GPTQ") -> str:
    return f"name: model\nparameters:\n  model: {model}\nbackend: {backend}\n"


def rwkv(backend: str = "rwkv") -> str:
    return f"name: model\nbackend: {backend}\nparameters:\n  model: rwkv/rwkv-4-raven.pth\n"


TAKEN = [
    (VLLM, "vllm"),
    (VLLM + 'quantization: "awq"\n', "vllm"),
    (VLLM + "gpu_memory_utilization: 0.5\n", "vllm"),
    (VLLM + "trust_remote_code: true\n", "vllm"),
    (VLLM + "enforce_eager: true\n", "vllm"),
    (VLLM + "swap_space: 2\n", "vllm"),
    (VLLM + "max_model_len: 32768\n", "vllm"),
    (VLLM + "tensor_parallel_size: 2\n", "vllm"),
    (VLLM + "disable_log_stats: true\nlimit_mm_per_prompt: {image: 0}\n", "vllm"),
    (VLLM + "load_format: safetensors\ndtype: float16\n", "vllm"),
    (VLLM + "engine_args: {max_num_seqs: 4}\n", "vllm"),
    (VLLM + "template:\n  use_tokenizer_template: true\n", "vllm"),
    (TRANSFORMERS + "type: AutoModelForCausalLM\nquantization: bnb_4bit\n", "transformers"),
    (TRANSFORMERS + "quantization: bnb_8bit\n", "transformers"),
    (TRANSFORMERS + "quantization: xpu_4bit\n", "transformers"),
    (TRANSFORMERS + "quantization: xpu_8bit\n", "transformers"),
    (TRANSFORMERS + "main_gpu: cuda.0\n", "transformers"),
    (TRANSFORMERS + "main_gpu: cuda\nf16: true\n", "transformers"),
    (TRANSFORMERS + "cuda: true\n", "transformers"),
    (TRANSFORMERS + "trust_remote_code: true\ncontext_size: 8192\n", "transformers"),
    (TRANSFORMERS + 'stopwords:\n- "<|eot_id|>"\n- "<|end_of_text|>"\n', "transformers"),
    (TRANSFORMERS + "template:\n  use_tokenizer_template: true\n", "transformers"),
    (EMBEDDING, "transformers"),
    (EMBEDDING + "type: AutoModel\n", "transformers"),
    (EMBEDDING + "type: OVModelForFeatureExtraction\nmain_gpu: AUTO:-CPU\n", "openvino"),
    (OPENVINO, "openvino"),
    (OPENVINO + "main_gpu: AUTO:-CPU\n", "openvino"),
    (OPENVINO + "trust_remote_code: true\n", "openvino"),
    (exllama(), "exllamav2"),
    (exllama("exllama2"), "exllamav2"),
    (exllama("exllama2", "of-today-GPTQ"), "exllamav2"),
    (exllama("exllama2", "of-today-EXL2") + "context_size: 4096\nf16: true\n", "exllamav2"),
    (AUTOGPTQ, "gptq"),
    (AUTOGPTQ + "trust_remote_code: true\n", "gptq"),
    (rwkv(), "rwkv"),
    (rwkv("rwkv.cpp"), "rwkv"),
    (rwkv() + "context_size: 1024\nthreads: 4\n", "rwkv"),
    (rwkv() + "  tokenizer: rwkv/rwkv-4-raven.pth.tokenizer.json\n", "rwkv"),
    ("name: model\nparameters:\n  model: of-today-EXL2\n", "exllamav2"),
    ("name: model\nparameters:\n  model: of-today-GPTQ\n", "gptq"),
    ("name: model\nparameters:\n  model: facebook/opt-125m\n", "transformers"),
]

REFUSED = [
    (VLLM + "type: AutoModelForCausalLM\n", 'unknown key "type" for backend vllm'),
    (VLLM + "gpu_memory_utilisation: 0.5\n", 'did you mean "gpu_memory_utilization"'),
    (VLLM + "gpu_memory_utilization: 90\n", "gpu_memory_utilization: expected a number"),
    (TRANSFORMERS + "type: AutoModelForCausalLm\n", "type: expected one of"),
    (TRANSFORMERS + "quantization: bnb_2bit\n", "quantization: expected one of"),
    (TRANSFORMERS + "gpu_memory_utilization: 0.5\n", "(it belongs to vllm)"),
    (exllama() + "type: AutoModelForCausalLM\n", 'unknown key "type" for backend exllama'),
    (exllama() + "gpu_split: all\n", "gpu_split: "),
    (exllama("exllama3"), 'unknown backend "exllama3" (did you mean "exllama'),
    (
        exllama(model="facebook/opt-125m"),
        "backend exllamav2 cannot load safetensors weights of architecture OPT",
    ),
    (exllama(model="rwkv/rwkv-4-raven.pth"), "backend exllamav2 cannot load rwkv weights"),
    (AUTOGPTQ + "model_base_nam: x\n", 'did you mean "model_base_name"'),
    (rwkv() + "quantization: bnb_4bit\n", 'unknown key "quantization" for backend rwkv'),
    (
        rwkv().replace("rwkv/rwkv-4-raven.pth", "of-today-EXL2"),
        "backend rwkv cannot load safetensors weights",
    ),
]


class Found(msgspec.Struct):
    backends: list[str]
    problems: list[str]
    idle: list[str]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(())


def check(tmp_path: Path, registry: Registry, config: str) -> Found:
    """What `modelyard check` finds of the model that `config` describes."""
    root = tmp_path / "models"
    for name, files in WEIGHTS.items():
        (root / name).mkdir(parents=True)
        for file, content in files.items():
            (root / name / file).write_text("x" * 2048 if content is None else json.dumps(content))
    (root / "example").mkdir()
    (root / "example" / "config.yaml").write_text(config)
    environments = Environments(root.with_name("state"))
    views = view_models(scan_repository(root, registry), registry, environments, asks_engines=False)
    (found,) = [view for view in views if view.entry.path.name == "example"]
    return _found(found)


def _found(view: ModelView) -> Found:
    return Found(
        [version.backend for version in view.versions],
        [str(problem) for problem in view.problems],
        [str(idle) for version in view.versions for idle in version.idle],
    )


@pytest.mark.parametrize(("config", "backend"), TAKEN, ids=range(len(TAKEN)))
def test_an_example_is_taken_as_it_stands(
    tmp_path: Path, registry: Registry, config: str, backend: str
) -> None:
    found = check(tmp_path, registry, config)
    assert (found.backends, found.problems) == ([backend], [])


IDLE = [
    (VLLM + "swap_space: 2\n", ["example/config.yaml:5:13: swap_space: No effect: "]),
    (OPENVINO, ["prompt_cache_path: No effect: ", "prompt_cache_all: No effect: "]),
    (rwkv() + "trust_remote_code: true\n", ["example/config.yaml:5:20: trust_remote_code: No effect: RWKV"]),
    (exllama() + "trust_remote_code: true\n", ["trust_remote_code: No effect: exllamav2 runs no code"]),
    (exllama() + "trust_remote_code: false\n", []),
    (
        VLLM + "mmap: true\n",
        ["example/config.yaml:5:7: mmap: No effect: backend vllm has no such option, llamacpp"],
    ),
    (
        VLLM + "low_vram: true\n",
        ["example/config.yaml:5:11: no_kv_offloading: No effect: backend vllm has no"],
    ),
    (
        TRANSFORMERS + "numa: true\nflash_attention: auto\n",
        ["numa: No effect: backend transformers", "flash_attention: No effect: backend transformers"],
    ),
    (AUTOGPTQ + "use_fast_tokenizer: true\n", ["use_fast_tokenizer: No effect: "]),
    (exllama(), []),
]


@pytest.mark.parametrize(("config", "words"), IDLE, ids=range(len(IDLE)))
def test_what_has_no_effect_is_said(
    tmp_path: Path, registry: Registry, config: str, words: list[str]
) -> None:
    idle = check(tmp_path, registry, config).idle
    assert len(idle) == len(words)
    assert all(one in each for one, each in zip(words, idle, strict=True))


@pytest.mark.parametrize(("config", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, registry: Registry, config: str, words: str
) -> None:
    problems = check(tmp_path, registry, config).problems
    assert any(words in problem for problem in problems), problems
