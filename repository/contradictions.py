"""What is wrong with a configuration's values that no schema says: names that the wire cannot carry, weights
outside of the repository, addresses that nothing can be had from, keys that contradict one another. Whether a value
has the right type is checked elsewhere.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from repository.checking import find
from repository.document import Node
from repository.names import name_problem
from repository.patterns import PatternError, python_pattern
from repository.problem import Problem
from repository.remote.wanted import artifact_problems, file_problem, model_problem, uri_problem

_OF_REDIRECTS = ("name", "alias", "description", "usage")


def contradictions(common: Node, shown: str) -> Iterator[Problem]:
    """Problems of the common keys; values of a wrong type are passed over. `shown` names the file."""
    for node, message in _contradictions(common):
        yield Problem(shown, node.line, node.column, message)


def _contradictions(common: Node) -> Iterator[tuple[Node, str]]:
    aliases = find(common, ["aliases"])
    for node in (find(common, ["name"]), *(aliases.value if isinstance(aliases.value, tuple) else ())):
        if isinstance(node.value, str) and node.value and (message := name_problem(node.value)):
            yield node, message
    model = find(common, ["parameters", "model"])
    if isinstance(model.value, str) and (message := _path_problem(model.value)):
        yield model, f"parameters.model: {message}"
    yield from _patterns(common)
    yield from _downloads(common)
    yield from _split(common)
    yield from _instances(common)
    yield from _priorities(common)


def redirect_problems(root: Node, shown: str) -> Iterator[Problem]:
    """What a file says besides that its name stands for another model."""
    target = _at(root, "alias")
    if target is None or not isinstance(root.value, dict) or not isinstance(target.value, str):
        return
    for key, entry in root.value.items():
        if key not in _OF_REDIRECTS:
            message = (
                f"{key}: a file with `alias` is a name for another model and says nothing else; take one out"
            )
            yield Problem(shown, entry.key.line, entry.key.column, message)


def _path_problem(model: str) -> str | None:
    if "://" in model:
        return model_problem(model)
    if "\0" in model or model.startswith(("/", "~")):
        return f'"{model}" must be a path inside the version\'s folder or relative to the repository'
    if ".." in PurePosixPath(model).parts:
        return f'"{model}" leads out of the repository'
    return None


def _patterns(common: Node) -> Iterator[tuple[Node, str]]:
    for key in ("cutstrings", "extract_regex"):
        texts = _at(common, key)
        for node in texts.value if texts is not None and isinstance(texts.value, tuple) else ():
            if not isinstance(node.value, str):
                continue
            try:
                python_pattern(node.value)
            except PatternError as error:
                yield node, f"{key}: the pattern {node.value!r} cannot be used: {error}"


def _downloads(common: Node) -> Iterator[tuple[Node, str]]:
    for file in _items(common, "download_files"):
        for key, problem_of in (("filename", file_problem), ("uri", uri_problem)):
            node = _at(file, key)
            if node is not None and isinstance(node.value, str) and (message := problem_of(node.value)):
                yield node, f"download_files.{key}: {message}"
    artifacts = _items(common, "artifacts")
    if artifacts and (message := artifact_problems(tuple(each.plain() for each in artifacts))):
        yield artifacts[-1], f"artifacts: {message}"


def _split(common: Node) -> Iterator[tuple[Node, str]]:
    weights = _at(common, "default_version", "weights")
    if weights is not None and isinstance(weights.value, dict):
        values = list(weights.plain().values())
        if values and all(value == 0 for value in values):
            yield weights, "default_version.weights: at least one version needs a weight above 0"


def _instances(common: Node) -> Iterator[tuple[Node, str]]:
    group = _at(common, "instance_group")
    gpus = _at(common, "instance_group", "gpus")
    if group is None or gpus is None or not isinstance(gpus.value, tuple) or not gpus.value:
        return
    numbers, settings = gpus.plain(), group.plain()
    if settings.get("kind") == "cpu":
        yield gpus, "instance_group.gpus: instances of kind cpu have no GPUs; remove one of the two"
    if len(set(map(str, numbers))) < len(numbers):
        yield (
            gpus,
            "instance_group.gpus: each GPU stands here once; `count` says how many instances share them",
        )
    count = settings.get("count", 1)
    if type(count) is int and 0 < count < len(numbers) and len(numbers) % count:
        yield (
            gpus,
            f"instance_group.gpus: {len(numbers)} GPUs cannot be dealt out evenly to {count} instances",
        )


def _priorities(common: Node) -> Iterator[tuple[Node, str]]:
    scheduler = _at(common, "scheduler")
    settings: dict[str, Any] = scheduler.plain() if scheduler and isinstance(scheduler.value, dict) else {}
    levels = settings.get("priority_levels", 1)
    if type(levels) is not int:
        return
    has = f"scheduler.priority_levels is {levels}"
    default = _at(common, "scheduler", "default_priority_level")
    if default is not None and type(default.value) is int and default.value > levels:
        yield default, f"scheduler.default_priority_level: there is no level {default.value}; {has}"
    policies = _at(common, "scheduler", "priority_queue_policy")
    for level, entry in (policies.value if policies and isinstance(policies.value, dict) else {}).items():
        if level.isdecimal() and int(level) > levels:
            yield entry.key, f"scheduler.priority_queue_policy: there is no level {level}; {has}"


def _items(common: Node, key: str) -> list[Node]:
    """The mappings of a list."""
    listed = _at(common, key)
    if listed is None or not isinstance(listed.value, tuple):
        return []
    return [each for each in listed.value if isinstance(each.value, dict)]


def _at(node: Node, *keys: str) -> Node | None:
    """The node under exactly this path, if there is one."""
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return None
        node = node.value[key].value
    return node
