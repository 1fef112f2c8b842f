"""Which model a request means, by every rule and in their order."""

import pytest

from runner.errors import ModelNotFound
from runner.names import choose_name, parse_name

MANY = {"orca": 1, "tiny": 1}
ONE = {"orca": 1}
ALIASES = {"whale": "orca"}


@pytest.mark.parametrize(
    ("asked", "bearer", "known", "fallback", "chosen"),
    [
        ("orca", None, MANY, "never", "orca"),
        ("orca:2", None, MANY, "never", "orca:2"),
        ("whale", None, MANY, "never", "whale"),
        ("whale:1", None, MANY, "never", "whale:1"),
        ("orca", "tiny", MANY, "always", "orca"),  # the request's own name before a token
        (None, "tiny", MANY, "never", "tiny"),
        ("", "tiny", MANY, "never", "tiny"),
        (None, "tiny:3", MANY, "never", "tiny:3"),
        ("wrong", "tiny", MANY, "always", None),  # a wrong name is not mended by a token
        (None, "sk-nothing", MANY, "always", None),
        (None, None, MANY, "always", None),
        ("wrong", None, ONE, "always", "orca"),
        ("wrong", None, ONE, "missing", None),
        ("wrong", None, ONE, "never", None),
        (None, None, ONE, "always", "orca"),
        (None, None, ONE, "missing", "orca"),
        (None, None, ONE, "never", None),
        (None, "sk-nothing", ONE, "missing", "orca"),
        (None, "orca", ONE, "never", "orca"),
        (None, None, {}, "always", None),
        ("orca", None, {}, "always", None),
    ],
)
def test_a_request_means_the_model_that_the_rules_say(asked, bearer, known, fallback, chosen):
    def choose() -> str:
        return choose_name(asked, bearer, known=known, aliases=ALIASES, fallback=fallback)

    if chosen is not None:
        assert choose() == chosen
        return
    with pytest.raises(ModelNotFound) as caught:
        choose()
    assert all(name in caught.value.message for name in known) or not known


@pytest.mark.parametrize(
    ("text", "model", "version", "adapter"),
    [
        ("orca", "orca", None, None),
        ("orca:2", "orca", 2, None),
        ("org/orca:12", "org/orca", 12, None),
        ("orca:pirate", "orca", None, "pirate"),
        ("orca:2:pirate", "orca", 2, "pirate"),
        (":2", ":2", None, None),
        (":pirate", ":pirate", None, None),
        ("orca:", "orca:", None, None),
        ("orca:2:", "orca:2:", None, None),
        ("orca:pirate:2", "orca:pirate:2", None, None),
        ("orca:2:3", "orca:2:3", None, None),
        ("orca:²", "orca:²", None, None),
        ("orca:" + "9" * 19, "orca:" + "9" * 19, None, None),
    ],
)
def test_a_name_may_end_with_a_version_that_is_a_number_and_an_adapter_that_is_none(
    text, model, version, adapter
):
    name = parse_name(text)
    assert (name.model, name.version, name.adapter) == (model, version, adapter)
    assert str(name) == text
