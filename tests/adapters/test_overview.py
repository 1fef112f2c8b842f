"""The table of models that a start prints."""

from pathlib import Path

import pytest

from adapters.cli.overview import MOST_ROWS, print_start


def write(repository: Path, name: str, config: str) -> None:
    (repository / name).mkdir(parents=True)
    (repository / name / "config.yaml").write_text(config)


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_what_is_served_and_what_is_not_stand_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    write(repository, "good", "backend: echo\ndescription: repeats\n")
    write(repository, "off", "backend: echo\ndisabled: true\n")
    write(repository, "typo", "backend: echoo\n")
    write(repository, "awq", "backend: vllm\n")
    (repository / "awq" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (repository / "awq" / "model.safetensors").write_bytes(bytes(2048))
    (repository / "half.bin").write_bytes(b"x")
    assert print_start(repository, tmp_path / "state") == ["good"]
    assert lines(capsys) == [
        ["good", "1", "echo", "", "", "repeats"],
        ["awq", "not served: backend vllm is not installed here; run `modelyard env create vllm`"],
        ["off", "not served: disabled"],
        ["typo", 'not served: unknown backend "echoo" (did you mean "echo"?)'],
        [
            "passed over",
            f"{repository}/half.bin: only .gguf files can stand alone; put this one into a folder of its own",
        ],
    ]


@pytest.mark.parametrize(("good", "bad"), [(50, 0), (0, 50), (50, 50), (3, 50), (50, 3)])
def test_a_long_table_is_cut_with_a_count_and_has_room_for_both_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], good: int, bad: int
) -> None:
    repository = tmp_path / "models"
    for number in range(good):
        write(repository, f"good-{number:02}", "backend: echo\n")
    for number in range(bad):
        write(repository, f"bad-{number:02}", "backend: echoo\n")
    assert len(print_start(repository, tmp_path / "state")) == good
    *rows, last = lines(capsys)
    shown = [row[0].partition("-")[0] for row in rows]
    assert len(rows) == MOST_ROWS
    assert shown.count("good") >= min(good, MOST_ROWS // 2)
    assert shown.count("bad") >= min(bad, MOST_ROWS // 2)
    assert last == [
        f"and {good + bad - MOST_ROWS} more: `modelyard list {repository}` and `modelyard check` show them"
    ]
