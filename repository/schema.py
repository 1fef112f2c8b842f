"""The JSON Schema of `config.yaml` for editors (`modelyard schema`), each backend's options included."""

import copy
from typing import Any

from repository.config_file import common_schema
from repository.options import Schemas

DESCRIPTIONS = {
    "name": "The name the model is served under; the folder's name when absent.",
    "description": "A sentence for people who choose a model.",
    "usage": "How the model is meant to be used, for people.",
    "alias": "Another model that this name stands for; the file then says nothing else.",
    "aliases": "Other names the model answers to.",
    "backend": "The engine family that runs the model; inferred from the weights when absent.",
    "parameters": "The weights, and the defaults for requests.",
    "context_size": "The longest one sequence may be, in tokens; as trained when absent.",
    "threads": "CPU threads of one worker.",
    "wait_policy": "How its threads wait for one another: they spin a while, or sleep at once.",
    "f16": "Compute in half precision.",
    "main_gpu": "The device that holds small tensors, or an engine's own device name.",
    "gpu_layers": "How many layers go to the GPU; -1 for all.",
    "embeddings": "Serve embeddings; when absent, whether the weights are made for them.",
    "matryoshka": "Vectors may be cut to the `dimensions` a request asks for, as the model was trained for that.",
    "trust_remote_code": "Run Python code that comes with the weights.",
    "template": "Prompt templates, Jinja2 or Go's: texts, or names of .tmpl files.",
    "roles": "What the prompt says for each role, where messages are rendered one by one.",
    "system_prompt": "The system prompt of chats that bring none.",
    "chat_template_kwargs": "Variables of the chat template, for requests that do not give them.",
    "stopwords": "Strings that end every answer.",
    "cutstrings": "Regular expressions (RE2) whose matches are cut from every answer.",
    "extract_regex": "Regular expressions (RE2) whose first matches are all that stays of an answer that has some.",
    "trimspace": "Texts that are cut from an answer's beginning, and the space around what is left.",
    "trimsuffix": "Texts that are cut from an answer's end, and the space around what is left.",
    "grammar": "GBNF that binds every answer which its request does not bind otherwise.",
    "version_policy": "Which versions are served; the latest one when absent.",
    "default_version": "The version a request without one gets, or weights of several; else the highest served.",
    "instance_group": "How many workers run the model, and on what.",
    "environment": "The Python environment that runs the worker.",
    "scheduler": "Limits of the step scheduler and of its queue.",
    "preload": "Load when the server starts.",
    "pinned": "Never evict.",
    "ttl_s": "Unload after this many seconds without a request.",
    "concurrency_groups": "Models that share a group are not loaded at the same time.",
    "warmup": "Prompts to run before the model is ready.",
    "disabled": "Listed, not served.",
    "download_files": "Files to fetch before the load, each with its name, address and sha256.",
    "artifacts": "The repository on a hub that the weights are in.",
}


def json_schema(schemas: Schemas) -> dict[str, Any]:
    """One schema for a whole file: the common keys, all backends' options, and which backend has which."""
    common = copy.deepcopy(common_schema())
    for key, text in DESCRIPTIONS.items():
        common["properties"][key]["description"] = text
    options: dict[str, list[Any]] = {}
    definitions: dict[str, Any] = {}
    for schema in schemas.values():
        definitions |= schema.get("$defs", {})
        for key, each in schema.get("properties", {}).items():
            variants = options.setdefault(key, [])
            if each not in variants:
                variants.append(each)
    properties = {key: each[0] if len(each) == 1 else {"anyOf": each} for key, each in options.items()}
    properties |= common["properties"]
    properties["backend"] = {"description": DESCRIPTIONS["backend"], "enum": sorted(schemas)}
    is_open = any(schema.get("additionalProperties") for schema in schemas.values())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Modelyard model (config.yaml)",
        **({"$defs": definitions} if definitions else {}),
        "type": "object",
        "properties": properties,
        "additionalProperties": is_open,
        "allOf": [_when(backend, schema, options) for backend, schema in sorted(schemas.items())],
    }


def _when(backend: str, schema: Any, options: Any) -> dict[str, Any]:
    own = schema.get("properties", {})
    foreign = {} if schema.get("additionalProperties") else {key: False for key in options if key not in own}
    then = {
        key: value
        for key, value in schema.items()
        if key not in ("$defs", "$schema", "additionalProperties", "title")
    }
    return {
        "if": {"properties": {"backend": {"const": backend}}, "required": ["backend"]},
        "then": then | {"properties": own | foreign},
    }
