import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner

from adapters.cli.app import build_cli
from adapters.cli.chat import ChatClient, ChatError
from adapters.cli.doctor import PACKAGES, package_clashes
from adapters.cli.memory import parse_size, show_size
from repository.hub.reference import parse_reference
from repository.remote.record import Kept, Record, write_record
from repository.remote.wanted import Remote
from tests.repository.gguf_files import LLAMA, TENSORS, write_gguf

GIB = 2**30


def run(*words: object, **given: object):
    return CliRunner().invoke(build_cli(), [str(word) for word in words], **given)


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A repository with one sound model and three that are not."""
    for name in ("good", "typo", "both", "old"):
        (tmp_path / name / "1").mkdir(parents=True)
        write_gguf(tmp_path / name / "1" / "model.gguf", LLAMA, TENSORS)
    (tmp_path / "typo" / "config.yaml").write_text("contxt_size: 5\n")
    (tmp_path / "both" / "config.yaml").write_text("context_size: big\nthreads: 0\n")
    (tmp_path / "old" / "1" / "model.gguf").write_bytes(b"lmgg" + bytes(100))
    return tmp_path


def test_check_prints_every_problem_with_its_place_and_exits_1(yard: Path):
    result = run("check", yard)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert f"{yard}/both/config.yaml:1:15:" in result.stdout
    assert f"{yard}/both/config.yaml:2:10:" in result.stdout
    assert f"{yard}/typo/config.yaml:1:1:" in result.stdout
    assert 'did you mean "context_size"' in result.stdout
    assert "GGUF is needed" in result.stdout
    assert "4 models, 3 with problems" in result.stderr


def test_check_says_which_options_have_no_effect_and_exits_0(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "m" / "model.safetensors").write_bytes(bytes(2048))
    (tmp_path / "m" / "config.yaml").write_text("backend: vllm\nswap_space: 2\n")
    result = run("check", tmp_path)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert f"{tmp_path}/m/config.yaml:2:13: swap_space: No effect" in result.stdout


def test_check_of_a_sound_repository_exits_0_and_tells_the_backend_when_asked(tmp_path: Path):
    (tmp_path / "m").mkdir()
    write_gguf(tmp_path / "m" / "x.gguf", LLAMA, TENSORS)
    quiet, verbose = run("check", tmp_path), run("check", tmp_path, "-v")
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    assert "runs on llamacpp (claims:" in verbose.stdout


def test_check_says_what_was_passed_over(tmp_path: Path):
    for name in ("1", "v2"):
        (tmp_path / "m" / name).mkdir(parents=True)
    write_gguf(tmp_path / "m" / "1" / "x.gguf", LLAMA, TENSORS)
    (tmp_path / "stray.safetensors").write_bytes(b"x")
    result = run("check", tmp_path)
    assert result.exit_code == 0
    assert [line.endswith("(passed over)") for line in result.stdout.splitlines()] == [True, True]
    assert f"{tmp_path}/m/v2: not a version" in result.stdout


def test_check_and_list_say_what_is_not_fetched_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    models, state = tmp_path / "models", tmp_path / "state"
    (models / "m").mkdir(parents=True)
    (models / "m" / "config.yaml").write_text("parameters: {model: acme/demo@v1}\n")
    checked = run("check", models, "--state-dir", state)
    assert checked.exit_code == 0, checked.output
    assert checked.stdout == f"{models}/m/config.yaml: acme/demo@v1 is on the hub, not fetched yet\n"
    assert checked.stderr.strip() == "1 model, no problems; 1 not fetched yet"
    assert "acme/demo@v1: on the hub, not fetched yet" in run("list", models, "--state-dir", state).stdout
    weights = write_gguf(tmp_path / "w.gguf", LLAMA, TENSORS)
    remote = Remote(hub=parse_reference("acme/demo@v1"))
    kept = (Kept(str(weights), weights.stat().st_size),)
    write_record(state, remote, Record("acme/demo@v1", str(weights), kept))
    assert run("check", models, "--state-dir", state).stderr.strip() == "1 model, no problems"
    assert "llamacpp" in run("list", models, "--state-dir", state).stdout


def test_list_shows_models_and_what_is_wrong(yard: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = run("list", yard)
    assert result.exit_code == 0
    assert "good" in result.stdout
    assert "llamacpp" in result.stdout
    assert "GGUF is needed" in result.stdout


@pytest.mark.parametrize("command", ["check", "list", "serve"])
def test_a_repository_that_is_not_there_is_one_line_and_exit_1(command: str, tmp_path: Path):
    result = run(command, tmp_path / "nowhere")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "nowhere" in result.stderr


def test_schema_is_a_json_schema_with_the_backends_options():
    schema = msgspec.json.decode(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {"context_size", "cache_type_k", "delay_s"} <= schema["properties"].keys()
    jsonschema.validate({"backend": "echo", "delay_s": 0.1}, schema)


def test_backends_lists_the_plugins():
    result = run("backends")
    assert result.exit_code == 0
    assert {"llamacpp", "echo", "echo-stream"} <= set(result.stdout.split())


def test_every_package_of_this_distribution_is_where_this_file_says():
    assert list(package_clashes()) == []


def test_a_package_of_another_distribution_is_told_with_the_way_out(tmp_path: Path):
    home = tmp_path / "ours"
    places = {name: home / name for name in PACKAGES} | {"adapters": tmp_path / "other" / "adapters"}
    [line] = package_clashes(places.get, home=home)
    assert str(tmp_path / "other") in line
    assert "environment of its own" in line


def test_a_missing_package_is_told():
    assert len(list(package_clashes(lambda name: None))) == len(PACKAGES)


def test_doctor_shows_versions_cores_and_memory():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for word in ("python", "msgspec", "cores", "memory", "All is well."):
        assert word in result.stdout


def test_version_and_help_work():
    assert run("--version").stdout.startswith("modelyard ")
    assert "--drain-timeout" in run("serve", "--help", env={"COLUMNS": "200"}).stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--allow-pull", "--model-control-mode", "poll"], "no request loads a model"),
        (["--keep-free", "10%"], "10GiB"),
        (["--memory-budget", "lots"], "80%"),
        (["--memory-budget", "120%"], "at most 100 %"),
        (["--memory-budget", "0"], "over 0"),
        (["--api-key-file", "/nowhere/keys"], "/nowhere/keys"),
        (["--api-key", "two words"], "without spaces"),
        (["--cors-origin", "example.org"], "https://example.org"),
        (["--cors-origin", "https://example.org/page"], "https://example.org"),
    ],
)
def test_a_flag_that_cannot_be_honoured_is_refused_in_one_sentence(flags, words, tmp_path: Path):
    result = run("serve", tmp_path, *flags)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_malformed_key_file_is_told_with_its_line(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("# who may ask\nsk-secret role=king\n")
    result = run("serve", tmp_path, "--api-key-file", keys)
    assert result.exit_code == 1
    assert f"{keys}:2: role=king is none of user, admin" in result.stderr
    assert "sk-secret" not in result.output


def test_an_environment_variable_stands_for_a_flag(tmp_path: Path):
    result = run("serve", tmp_path, env={"MODELYARD_CORS_ORIGIN": "*  example.org"})
    assert "'example.org' is not an origin" in result.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50%", 50 * GIB),
        ("12GiB", 12 * GIB),
        ("12 g", 12 * GIB),
        ("2GB", 2_000_000_000),
        ("1.5MiB", 1_572_864),
        ("1000", 1000),
        ("7B", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int):
    assert parse_size(text, total_bytes=100 * GIB) == size


@pytest.mark.parametrize("text", ["", "x", "-5", "0%", "0", "0GiB", "12Q", "1e9"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match=r"must be|is not a size"):
        parse_size(text, total_bytes=GIB)


def test_sizes_are_shown_in_the_unit_that_fits():
    assert [show_size(size) for size in (5, 2048, 3 * GIB)] == ["5 B", "2.0 KiB", "3.0 GiB"]


@contextmanager
def chat_server(*answers: bytes, breaks_off: bool = False) -> Iterator[str]:
    """A server on a thread that knows one model and answers chats with the given streams in turn."""
    queue = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(b'{"data":[{"id":"orca"}]}')

        def do_POST(self) -> None:
            body = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            answer = queue.pop(0)
            if breaks_off:
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                self.wfile.write(head + b"%x\r\n%b\r\n40\r\n" % (len(answer), answer))
            else:
                self.reply(answer)

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    asked: list[object] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def chunk(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % msgspec.json.encode(text)


def test_chat_answers_each_line_of_a_pipe(capsys: pytest.CaptureFixture[str]):
    with chat_server(
        b": loading 5 %\n\n" + chunk("Hel") + chunk("lo") + b"data: [DONE]\n\n", chunk("bye")
    ) as url:
        result = run("chat", "--url", url, input="hi\n\nagain\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Hello\nbye\n"


def test_chat_tells_an_error_in_a_stream():
    broken = b'data: {"error":{"message":"the worker died"}}\n\n'
    with chat_server(broken) as url, pytest.raises(ChatError, match="the worker died"):
        list(ChatClient(url).answer("orca", []))


def test_chat_without_a_server_is_one_line_and_exit_1():
    result = run("chat", "--url", "http://127.0.0.1:9", input="hi\n")
    assert result.exit_code == 1
    assert "is `modelyard serve` running?" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://", "gopher://127.0.0.1", "127.0.0.1:9"])
def test_chat_with_an_address_that_is_none_is_one_line_and_exit_1(url: str):
    result = run("chat", "orca", "--url", url, input="hi\n")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1 and "no answer from" in result.stderr


def test_chat_needs_no_scheme_in_its_address():
    with chat_server(chunk("hello")) as url:
        result = run("chat", "--url", url.removeprefix("http://"), input="hi\n")
    assert (result.exit_code, result.stdout) == (0, "hello\n")


def test_chat_with_something_else_than_a_modelyard_is_one_line_and_exit_1():
    with chat_server(b"data: <html>\n\n") as url:
        result = run("chat", "--url", url, input="hi\n")
    assert result.exit_code == 1
    assert result.stderr == f"modelyard: what answers at {url} is no Modelyard\n"


def test_chat_tells_when_an_answer_breaks_off():
    with chat_server(chunk("Hel"), breaks_off=True) as url:
        result = run("chat", "--url", url, input="hi\n")
    assert (result.exit_code, result.stdout) == (1, "Hel\n")
    assert result.stderr.startswith("modelyard: the answer broke off")


def test_chat_at_a_terminal_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("adapters.cli.chat._is_terminal", lambda: True)
    broken = b'data: {"error":{"message":"the worker died"}}\n\n'
    with chat_server(broken, chunk("bye")) as url:
        result = run("chat", "--url", url, input="hi\nagain\n")
    assert result.exit_code == 0, result.output
    assert "bye" in result.stdout and "the worker died" in result.stderr


def test_help_imports_no_engine_and_no_server():
    import subprocess

    code = (
        "import sys; from adapters.cli.app import build_cli; build_cli();"
        "print(sorted({'llama_cpp', 'hypercorn', 'starlette', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
