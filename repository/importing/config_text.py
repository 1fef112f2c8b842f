"""Writes a `config.yaml`: only the keys that are given, so that `repository.document` reads the same values again."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from repository.document import read_scalar


def config_text(values: Mapping[str, Any], comments: Sequence[str]) -> str:
    """The file's text: comments first, one a line; then the keys in the order they have."""
    head = "".join(f"# {line}\n" for comment in comments for line in comment.splitlines())
    if not values:
        return head
    written: str = yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return head + written


class _Dumper(yaml.SafeDumper):
    """PyYAML writes for readers of YAML 1.1: what 1.2 reads as something else than text gets quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    try:
        if style is None and read_scalar(text) != text:
            style = '"'
    except ValueError:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
