"""Files that do not load say why, and what to do about it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.contract import LoadError, LoadRequest
from backends.llamacpp.devices import check_main_gpu
from backends.llamacpp.engine import LlamaCppEngine
from backends.llamacpp.logs import CONTINUED, ERROR, INFO, WARN, last_errors, log_bridge

DEBUG = 1

Load = Callable[..., LlamaCppEngine]
Write = Callable[..., Path]


def test_a_missing_file_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"cannot read .*gone\.gguf: No such file"):
        load(weights=tmp_path / "gone.gguf")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"tjgg\x03\x00\x00\x00", r"is a ggjt file from before GGUF.*convert_llama_ggml_to_gguf\.py"),
        (b"lmgg", "is a ggml file from before GGUF"),
        (b"fmgg", "is a ggmf file from before GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04", r"is not a GGUF file \(it starts with b'PK"),
        (b"GGUF\x03\x00\x00\x00", "llama.cpp cannot load"),
        (b"GGUF\xff\xff\x00\x00" + bytes(64), "llama.cpp cannot load"),
    ],
)
def test_a_file_that_is_no_gguf_says_what_it_is(
    load: Load, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=words):
        load(weights=path)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_called_incomplete(load: Load, tiny: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.gguf"
    whole = tiny.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(LoadError, match=r"llama\.cpp cannot load .*copy or download it again"):
        load(weights=path)


def test_an_unknown_architecture_is_named(load: Load, write_gguf: Write) -> None:
    weights = write_gguf(general__architecture="futureformer")
    with pytest.raises(
        LoadError, match=r"unknown model architecture: 'futureformer'; .*newer llama-cpp-python"
    ):
        load(weights=weights)


def test_missing_metadata_is_llama_cpps_to_explain(load: Load, write_gguf: Write) -> None:
    with pytest.raises(LoadError, match=r"llama\.cpp cannot load .*: .+"):
        load(weights=write_gguf(llama__block_count=9))


def test_a_folder_with_one_model_is_enough(load: Load, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(tiny)
    (tmp_path / "mmproj-model.gguf").write_bytes(b"")
    assert load(weights=tmp_path).info.vocabulary == 269


def test_a_folder_with_none_or_several_is_not(load: Load, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="found: none"):
        load(weights=tmp_path)
    for name in ("a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"):
        (tmp_path / name).symlink_to(tiny)
    with pytest.raises(LoadError, match=r"found: a\.gguf, b-00001-of-00002\.gguf; name one"):
        load(weights=tmp_path)


def test_what_progress_raises_stops_the_load(tiny: Path) -> None:
    def stop(share: float) -> None:
        raise InterruptedError(f"stopped at {share}")

    with pytest.raises(InterruptedError, match=r"stopped at 0\.0"):
        LlamaCppEngine().load(LoadRequest(model="tiny", weights=str(tiny)), stop)


def test_more_lanes_than_llama_cpp_has_are_refused(load: Load) -> None:
    with pytest.raises(LoadError, match=r"256 lanes are asked for, and llama\.cpp has 255"):
        load(lanes=256)


def test_a_context_that_llama_cpp_refuses_says_why(load: Load) -> None:
    with pytest.raises(LoadError, match=r"(?i)v cache.*flash_attn.*check context_size"):
        load(options={"cache_type_v": "q8_0", "flash_attention": "off"})


def test_a_failed_load_can_be_tried_again(tiny: Path) -> None:
    engine = LlamaCppEngine()
    bad = LoadRequest(model="tiny", weights=str(tiny), context_tokens=256, memory_bytes=1)
    with pytest.raises(LoadError, match="KV cache"):
        engine.load(bad, lambda _share: None)
    engine.load(LoadRequest(model="tiny", weights=str(tiny), context_tokens=256), lambda _share: None)
    assert engine.info.context_tokens == 256
    engine.unload()


def test_loading_writes_nothing_to_the_terminal(load: Load, capfd: pytest.CaptureFixture[str]) -> None:
    load(embeddings=True)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_loading_warns_of_nothing(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load(embeddings=True, kv_tokens=2048)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert any("n_ctx" in record.message for record in caplog.records)


@pytest.mark.parametrize("named", [99, "99", "cuda:99"])
def test_a_gpu_that_is_not_there_is_refused(load: Load, named: object) -> None:
    with pytest.raises(LoadError, match="main_gpu: there is no GPU 99"):
        load(options={"main_gpu": named})


@pytest.mark.parametrize(
    ("value", "there", "is_refused"),
    [
        (None, 0, False),
        (0, 0, False),
        ("0", 0, False),
        ("cpu", 0, False),
        ("cuda:0", 0, True),
        ("cuda:0", 1, False),
        (1, 1, True),
        (1, 2, False),
    ],
)
def test_a_gpu_is_named_by_whoever_writes_more_than_0(value: object, there: int, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(LoadError, match="there is no GPU"):
            check_main_gpu(value, there=there)
    else:
        check_main_gpu(value, there=there)


def test_asking_for_a_gpu_without_one_warns(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    load(options={"gpu_layers": 99})
    assert "gpu_layers: 99 has no effect" in caplog.text


def test_log_lines_are_put_together(caplog: pytest.LogCaptureFixture) -> None:
    bridge = log_bridge()
    with caplog.at_level(logging.DEBUG, logger="llama.cpp"), bridge.record() as lines:
        for level, text in [
            (WARN, b"first "), (CONTINUED, b"half\nsecond"), (CONTINUED, b" half\n"), (DEBUG, b"hidden "),
            (CONTINUED, b"too\n"), (INFO, b"...."), (CONTINUED, b"..\n"), (INFO, b"no newline"),
            (ERROR, b"load: it broke\n"), (ERROR, b"failed to load model\n"),
        ]:  # fmt: skip
            bridge._receive(level, text, None)
    assert lines == [
        (WARN, "first half"), (WARN, "second half"), (INFO, "no newline"), (ERROR, "load: it broke"),
        (ERROR, "failed to load model"),
    ]  # fmt: skip
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "WARNING", "DEBUG", "ERROR", "ERROR"]
    assert last_errors(lines) == "it broke"
