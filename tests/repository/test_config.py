from pathlib import Path
from typing import Any

import jsonschema
import pytest

from repository.config import Latest, ModelConfig, SchedulerConfig
from repository.config_file import check_options, common_schema, load_config
from repository.document import parse_document
from repository.schema import DESCRIPTIONS, json_schema

LLAMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mmap": {"type": "boolean"},
        "flash_attention": {"enum": ["auto", "on", "off"]},
        "tensor_split": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "rope": {"$ref": "#/$defs/rope"},
    },
    "$defs": {
        "rope": {"type": "object", "properties": {"scale": {"type": "number"}}, "additionalProperties": False}
    },
}
VLLM: dict[str, Any] = {
    "type": "object",
    "properties": {"gpu_memory_utilization": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
}
SCHEMAS = {"llamacpp": LLAMA, "llama": LLAMA, "vllm": VLLM}

GOOD = [
    "",
    "backend: llamacpp\nmmap: true\ncontext_size: 4096\n",
    "backend: llama\nflash_attention: auto\ntensor_split: [1, 0.5]\nrope: {scale: 2}\n",
    "backend: vllm\ngpu_memory_utilization: 0.5\n",
    "mmap: false\n",
    "aliases: one\nstopwords: [a, b]\nwarmup: hello\n",
    "parameters: {temperature: 0, top_p: 1, seed: -1, stop: END, logit_bias: {12: -100}}\n",
    "version_policy: {all: {}}\n",
    "version_policy: {specific: {versions: [1, 3]}}\ndefault_version: 3\n",
    "instance_group: {count: 2, kind: gpu, gpus: [0, 1]}\nmain_gpu: 1\n",
    "version_policy: {all: {}}\ndefault_version: {weights: {1: 90, 2: 10}}\n",
    "default_version: {weights: {'1': 0, '2': 1}}\n",
    "default_version: {weights: {20240101120000: 90, 20240202120000: 10}}\n",
    "instance_group: {count: 3, gpus: [0, 1]}\n",
    "scheduler: {priority_levels: 3, priority_queue_policy: {1: {max_queue_size: 0, timeout_action: delay}}}\n",
    "main_gpu: AUTO:-CPU\ntemplate: {use_tokenizer_template: true}\nttl_s: 0.5\n",
    "template: {tool_format: llama3, reasoning: {open: '[THINK]', close: '[/THINK]'}}\n",
    "template: {tool_format: none, reasoning: {split: false}}\n",
]
BAD = [
    ("contxt_size: 1", '1:1: unknown key "contxt_size" for any backend (did you mean "context_size"?)'),
    (
        "backend: llamacpp\n\ncontxt_size: 1",
        '3:1: unknown key "contxt_size" for backend llamacpp (did you mean',
    ),
    (
        "backend: llama\ngpu_memory_utilization: 1",
        '2:1: unknown key "gpu_memory_utilization" for backend llama (it belongs to vllm)',
    ),
    (
        "backend: llama\ntemperature: 1",
        '2:1: unknown key "temperature" for backend llama (it belongs under "parameters")',
    ),
    ("backend: lama", '1:10: unknown backend "lama" (did you mean "llama"?)'),
    ("backend: llama\nmmap: 1", "2:7: mmap: expected true or false, found 1"),
    (
        "backend: llama\nmmap: on",
        '2:7: mmap: expected true or false, found text "on" (YAML 1.2 has only true and false)',
    ),
    (
        "backend: llama\nflash_attention: yes",
        '2:18: flash_attention: expected one of "auto", "on", "off", found text "yes"',
    ),
    (
        "backend: llama\nflash_attention: maybe",
        '2:18: flash_attention: expected one of "auto", "on", "off", found text',
    ),
    (
        "backend: llama\ntensor_split: [1, -1]",
        "2:19: tensor_split.1: expected a number of at least 0, found -1",
    ),
    ("backend: llama\nrope: {scal: 2}", '2:8: unknown key "scal" in rope (did you mean "scale"?)'),
    ("backend: vllm\ngpu_memory_utilization: .inf", "2:25: gpu_memory_utilization: expected a number"),
    ("context_size: 0", "1:15: context_size: expected a whole number of at least 1, found 0"),
    ("context_size: true", "1:15: context_size: expected a whole number of at least 1, found true"),
    ("context_size: 4096.0", "1:15: context_size: expected a whole number of at least 1, found 4096.0"),
    ("threads: four", '1:10: threads: expected a whole number of at least 1, found text "four"'),
    ("name: 7", "1:7: name: expected some text, found 7"),
    ('name: ""', '1:7: name: expected some text, found text ""'),
    ("name: a:b", "1:7: a model's name cannot hold a colon"),
    ("aliases: [ok, a:b]", "1:15: a model's name cannot hold a colon"),
    (
        "parameters: {temperature: 2.5}",
        "1:27: parameters.temperature: expected a number from 0 to 2, found 2.5",
    ),
    (
        "parameters: {temperature: .nan}",
        "1:27: parameters.temperature: expected a number from 0 to 2, found nan",
    ),
    ("parameters: {top_p: -0.1}", "1:21: parameters.top_p: expected a number from 0 to 1, found -0.1"),
    (
        "parameters: {temprature: 1}",
        '1:14: unknown key "temprature" in parameters (did you mean "temperature"?)',
    ),
    ("parameters: {stop: [a, 1]}", "1:24: parameters.stop.1: expected some text, found 1"),
    ("parameters: {logit_bias: {word: 1}}", "1:26: parameters.logit_bias: expected text matching ^[0-9]+$"),
    ("parameters: 3", "1:13: parameters: expected a mapping, found 3"),
    ("parameters: {model: /etc/passwd}", '1:21: parameters.model: "/etc/passwd" must be a path inside'),
    ("parameters: {model: a/../../b}", '1:21: parameters.model: "a/../../b" leads out of the repository'),
    ("parameters: {model: ollama://a/b}", '1:21: parameters.model: "ollama://a/b": ollama:// is not fetched'),
    (
        "version_policy: {latest: {}, all: {}}",
        "1:17: version_policy: expected a mapping with one of the keys",
    ),
    (
        "version_policy: latest",
        "1:17: version_policy: expected a mapping with one of the keys latest, all, specific",
    ),
    ("version_policy: {specific: {}}", '1:28: version_policy.specific needs the key "versions"'),
    (
        "version_policy: {specific: {versions: []}}",
        "1:39: version_policy.specific.versions: expected a list of whole",
    ),
    (
        "version_policy: {latest: {num_versions: 0}}",
        "1:41: version_policy.latest.num_versions: expected a whole",
    ),
    (
        "instance_group: {kind: tpu}",
        '1:24: instance_group.kind: expected one of "auto", "cpu", "gpu", found text',
    ),
    (
        "template: {tool_format: hermse}",
        '1:25: template.tool_format: expected one of "deepseek-v3", "deepseek-v3.1", "glm", "granite", '
        '"hermes", "kimi", "llama3", "mistral", "mistral-v11", "none", "qwen3-coder", found text "hermse" '
        '(did you mean "hermes"?)',
    ),
    (
        "template: {reasoning: {begin: x}}",
        '1:24: unknown key "begin" in template.reasoning',
    ),
    (
        "default_version: {weights: {1: 0, 2: 0}}",
        "1:28: default_version.weights: at least one version needs a weight above 0",
    ),
    (
        "default_version: {weights: {}}",
        "1:28: default_version.weights: expected a mapping with at least one key",
    ),
    ("default_version: {weights: {1: 1}, sticky: 1}", '1:36: unknown key "sticky" in default_version'),
    ("default_version: {weights: {v1: 1}}", "1:28: default_version.weights: expected text matching"),
    (
        "default_version: {weights: {1: -1}}",
        "1:32: default_version.weights.1: expected a whole number from 0",
    ),
    ("default_version: newest", "1:18: default_version: expected a whole number of at least 1 or a mapping"),
    (
        "instance_group: {kind: cpu, gpus: [0]}",
        "1:35: instance_group.gpus: instances of kind cpu have no GPUs",
    ),
    ("instance_group: {gpus: [1, 1]}", "1:24: instance_group.gpus: each GPU stands here once"),
    (
        "instance_group: {count: 2, gpus: [0, 1, 2]}",
        "1:34: instance_group.gpus: 3 GPUs cannot be dealt out evenly to 2 instances",
    ),
    (
        "scheduler: {priority_levels: 2, default_priority_level: 3}",
        "1:57: scheduler.default_priority_level: there is no level 3; scheduler.priority_levels is 2",
    ),
    (
        "scheduler: {priority_queue_policy: {2: {max_queue_size: 1}}}",
        "1:37: scheduler.priority_queue_policy: there is no level 2; scheduler.priority_levels is 1",
    ),
    (
        "scheduler: {priority_levels: 2, priority_queue_policy: {0: {}}}",
        "1:56: scheduler.priority_queue_policy: expected text matching",
    ),
    (
        "scheduler: {timeout_action: wait}",
        '1:29: scheduler.timeout_action: expected one of "delay", "reject", found text "wait"',
    ),
    ("ttl_s: 0", "1:8: ttl_s: expected a number above 0, found 0"),
    (
        "scheduler: {max_lanes: 1000}",
        "1:24: scheduler.max_lanes: expected a whole number from 1 to 255, found 1000",
    ),
    ("main_gpu: [0]", "1:11: main_gpu: expected a whole number of at least 0 or some text, found a list"),
    ("- a", "1:1: the file: expected a mapping, found a list"),
    ("just text", '1:1: the file: expected a mapping, found text "just text"'),
]

# Mistakes that a JSON Schema does not see: names, paths, whole numbers written with a point, and NaN.
BEYOND_A_SCHEMA = (
    "a weight above 0",
    "have no GPUs",
    "stands here once",
    "dealt out evenly",
    "there is no level",
    "colon",
    "must be a path",
    "leads out",
    "is not fetched",
    "4096.0",
    "found nan",
)


def document(text: str) -> Any:
    root = parse_document(text.encode(), "config.yaml").root
    assert root is not None
    return root.plain() or {}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def loaded(tmp_path: Path, text: str) -> ModelConfig:
    result = load_config(written(tmp_path, text), SCHEMAS)
    assert result.problems == ()
    assert result.config is not None
    return result.config


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_mistake_is_located_and_named(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    result = load_config(path, SCHEMAS)
    assert result.config is None
    assert len(result.problems) == 1
    assert str(result.problems[0]).startswith(f"{path}:{said}")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "backend: nope\nnme: x\ncontext_size: -2\nparameters:\n  top_k: x\n  tpo_p: 1\nthreads: 0\n"
    text += "threads: 1\n"
    result = load_config(written(tmp_path, text), SCHEMAS)
    assert [problem.line for problem in result.problems] == [1, 2, 3, 5, 6, 7, 8]


def test_a_broken_file_still_gives_its_name(tmp_path: Path) -> None:
    result = load_config(written(tmp_path, "name: orca\ncontext_size: 0\n"), SCHEMAS)
    assert result.config is None
    assert result.name == "orca"


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    assert config == ModelConfig()
    assert config.scheduler == SchedulerConfig()
    assert (config.scheduler.max_lanes, config.scheduler.max_batch_tokens) == (16, 512)
    assert config.version_policy.latest == Latest(1)


def test_a_key_without_a_value_is_not_set(tmp_path: Path) -> None:
    assert loaded(tmp_path, "threads:\nparameters:\nscheduler:\n  kv_tokens: ~\naliases:\n") == ModelConfig()


def test_an_empty_policy_name_is_enough(tmp_path: Path) -> None:
    assert loaded(tmp_path, "version_policy:\n  all:\n").version_policy.all is not None


def test_one_text_stands_for_a_list(tmp_path: Path) -> None:
    config = loaded(tmp_path, "aliases: gpt\nstopwords: END\nparameters: {stop: x}\n")
    assert (config.aliases, config.stopwords, config.parameters.stop) == (("gpt",), ("END",), ("x",))


def test_sampling_defaults_are_those_that_are_set(tmp_path: Path) -> None:
    config = loaded(tmp_path, "parameters: {model: x.gguf, temperature: 0, ignore_eos: false, stop: x}\n")
    assert config.parameters.sampling() == {"temperature": 0.0, "ignore_eos": False, "stop": ("x",)}


def test_other_keys_are_the_backends_options(tmp_path: Path) -> None:
    config = loaded(tmp_path, "backend: llama\nmmap: false\nrope: {scale: 2}\nthreads: 3\n")
    assert config.options == {"mmap": False, "rope": {"scale": 2}}
    assert config.threads == 3


def test_without_schemas_options_are_taken_as_they_are(tmp_path: Path) -> None:
    result = load_config(written(tmp_path, "backend: any\nwhatever: {a: [1]}\n"))
    assert result.config is not None
    assert result.config.options == {"whatever": {"a": [1]}}


def test_options_are_checked_again_when_the_backend_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, "description: x\nmmap: 1\ngpu_memory_utilization: 1\n")
    config = load_config(path, SCHEMAS).config
    assert config is not None
    assert [str(problem) for problem in check_options(config, "llamacpp", LLAMA, path=path)] == [
        f'{path}:3:1: unknown key "gpu_memory_utilization" for backend llamacpp',
        f"{path}:2:7: mmap: expected true or false, found 1",
    ]
    assert len(check_options(config, "llamacpp", LLAMA)) == 2
    path.unlink()
    assert len(check_options(config, "llamacpp", LLAMA, path=path)) == 2


def test_a_backend_that_allows_any_option_gets_them(tmp_path: Path) -> None:
    open_schemas = {"triton": {"type": "object", "additionalProperties": True}}
    result = load_config(written(tmp_path, "backend: triton\nanything: 1\n"), open_schemas)
    assert result.config is not None
    assert result.config.options == {"anything": 1}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"type": "nonsense"}}},
        {"properties": {"x": {"$ref": "#/$defs/none"}}},
        {"properties": {"x": {"$ref": "http://localhost:9/schema.json"}}},
        {"properties": {"x": {"pattern": "("}}},
    ],
)
def test_a_broken_option_schema_is_a_problem_not_an_exception(tmp_path: Path, schema: dict[str, Any]) -> None:
    result = load_config(written(tmp_path, "backend: odd\nx: text\n"), {"odd": schema})
    assert "the option schema of backend odd is broken" in str(result.problems[0])


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    assert "cannot be read" in str(load_config(tmp_path, SCHEMAS).problems[0])


@pytest.mark.parametrize("text", GOOD)
def test_the_editors_schema_accepts_what_the_server_accepts(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, text)
    jsonschema.validate(document(text), json_schema(SCHEMAS))


@pytest.mark.parametrize(
    "text", [text for text, said in BAD if not any(word in said for word in BEYOND_A_SCHEMA)]
)
def test_the_editors_schema_refuses_what_the_server_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document(text), json_schema(SCHEMAS))


def test_every_common_key_is_described() -> None:
    assert set(DESCRIPTIONS) == set(common_schema()["properties"])
    jsonschema.Draft202012Validator.check_schema(json_schema(SCHEMAS))
