import pytest

from repository.hub.errors import HubError
from repository.hub.reference import HubReference, looks_like_reference, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("owner/repo", HubReference("owner/repo")),
        ("hf://owner/repo/f.gguf", HubReference("owner/repo", "f.gguf")),
        ("huggingface://owner/repo/a/b.gguf", HubReference("owner/repo", "a/b.gguf")),
        ("owner/repo/f.gguf@v1.0", HubReference("owner/repo", "f.gguf", "v1.0")),
        ("owner/repo@refs/pr/1", HubReference("owner/repo", None, "refs/pr/1")),
        ("owner/repo@release/1.0", HubReference("owner/repo", None, "release/1.0")),
        ("owner/repo@main/f.gguf", HubReference("owner/repo", "f.gguf", "main")),
        ("owner/repo@4.0bpw", HubReference("owner/repo", None, "4.0bpw")),
    ],
)
def test_a_reference_names_a_repository_maybe_a_file_and_a_revision(text: str, reference: HubReference):
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpt2", "owner/repo[/file][@revision]"),
        ("/owner/repo", "names no model"),
        ("../repo", "names no model"),
        ("owner/..", "names no model"),
        ("ow ner/repo", "names no model"),
        ("owner/a--b", "names no model"),
        ("owner/repo/../../f", "no file of a repository"),
        ("owner/repo//f", "no file of a repository"),
        ("owner/repo/a\\b", "no file of a repository"),
        ("owner/repo@", "no branch, tag or commit"),
        ("owner/repo@a..b", "no branch, tag or commit"),
        ("https://hub.example/owner/repo/blob/v2/f.gguf", "write owner/repo/f.gguf@v2"),
        ("https://hub.example/owner/repo", "write owner/repo"),
    ],
)
def test_what_is_no_reference_is_refused_with_what_to_write(text: str, words: str):
    with pytest.raises(HubError) as caught:
        parse_reference(text)
    assert words in str(caught.value)
    assert caught.value.kind == "malformed"
    assert not looks_like_reference(text)


@pytest.mark.parametrize("text", ["owner/repo", "owner/repo/f.gguf@v1.0", "owner/repo@refs/pr/1"])
def test_a_reference_is_shown_as_it_is_written(text: str):
    assert str(parse_reference(text)) == text
