"""`modelyard pull` as a person runs it: the command in a process, a hub on loopback, a cache of its own."""

import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.cli.app import build_cli
from repository.hub.lock import NAME, read_lock
from tests.hub_server import Fault, HubServer
from tests.serving import COMMAND, DEMO, ROOT, serve

QUESTION = "How do I add a model?"


class Yard:
    """A folder with a cache and, as soon as something is pulled, a repository."""

    def __init__(self, hub: HubServer, home: Path) -> None:
        self.hub = hub
        self.home = home
        self.models = home / "models"

    def environment(self, **more: str) -> dict[str, str]:
        path = {"PYTHONPATH": str(ROOT)}
        return {**os.environ, **path, **self.hub.environment(self.home / "cache", **more)}

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.home,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def call(self, *words: str) -> Result:
        """The same command inside this process, which is quicker."""
        return CliRunner().invoke(build_cli(), list(words))

    def pull(self, *words: str) -> str:
        """What it printed; it must go well."""
        done = self.call("pull", *words)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        """The one line that it said; it must fail."""
        done = self.call("pull", *words)
        assert done.exit_code == 1
        assert done.stdout == ""
        *_, last = done.stderr.splitlines()
        assert last.startswith("modelyard: "), done.stderr
        return last

    def published(self) -> list[str]:
        """What is in the repository, below its root."""
        files = [path for path in self.models.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return sorted(path.relative_to(self.models).as_posix() for path in files)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.chdir(tmp_path)
    with HubServer() as hub:
        hub.patch(monkeypatch, tmp_path / "cache")
        yield Yard(hub, tmp_path)


@pytest.fixture
def many(yard: Yard) -> Yard:
    """A hub with three quantisations of a model that is no model."""
    weights = {f"m-{quant}.gguf": quant.encode() * 1000 for quant in ("Q2_K", "Q4_K_M", "Q8_0")}
    yard.hub.add("acme/m-GGUF", {**weights, "mmproj-f16.gguf": b"eye", "README.md": "# M"})
    return yard


def test_a_model_is_pulled_past_a_cut_and_answers(yard: Yard):
    yard.hub.add_demo("acme/demo-GGUF")
    yard.hub.faults.append(Fault(kind="cut", after=5_000_000))
    said = yard.run("pull", "acme/demo-GGUF").stdout
    assert "demo:1 is acme/demo-GGUF@" in said
    assert "16.9 MB" in said
    assert yard.published() == ["demo/1/LICENSE", "demo/1/model.gguf", NAME]
    assert (yard.models / "demo/1/model.gguf").read_bytes() == DEMO.read_bytes()
    with serve(yard.models, yard.home / "state") as served:
        answer = served.client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=40
        )
    assert "folder" in (answer.choices[0].message.content or "")


def test_a_checkpoint_is_pulled_with_what_it_needs(yard: Yard):
    files = {path.name: path for path in (ROOT / "examples/demo_model/hf").iterdir()}
    yard.hub.add("acme/demo", {**files, "README.md": "# Demo", "pytorch_model.bin": b"again"})
    yard.pull("acme/demo", "--as", "tiny")
    assert yard.published() == sorted([f"tiny/1/{name}" for name in files] + [NAME])
    checked = yard.call("check", "--verify")
    assert (checked.exit_code, checked.stdout) == (0, "")


def test_the_same_is_not_pulled_twice_unless_forced(many: Yard):
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    many.hub.requests.clear()
    assert "m:1 is acme/m-GGUF@" in (said := many.pull("acme/m-GGUF/m-Q8_0.gguf"))
    assert "already" in said
    assert not many.hub.gets()
    assert "m:2 is" in many.pull("acme/m-GGUF/m-Q8_0.gguf", "--force")


def test_one_missing_file_of_several_is_brought_back(yard: Yard):
    yard.hub.add("acme/m-GGUF", {"m.gguf": b"GGUF", "LICENSE": "MIT"})
    yard.pull("acme/m-GGUF")
    (yard.models / "m/1/m.gguf").unlink()
    assert "m:1 is acme/m-GGUF@" in yard.pull()
    assert yard.published() == ["m/1/LICENSE", "m/1/m.gguf", NAME]


def test_a_new_commit_is_a_new_version(many: Yard):
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    many.hub.add("acme/m-GGUF", {"m-Q8_0.gguf": b"better"})
    assert "m:2 is" in many.pull("acme/m-GGUF")
    assert (many.models / "m/2/m-Q8_0.gguf").read_bytes() == b"better"


def test_without_a_terminal_a_choice_must_be_made(many: Yard):
    line = many.refused("acme/m-GGUF")
    assert "Q2_K (4.0 kB), Q8_0 (4.0 kB), Q4_K_M (6.0 kB)" in line
    assert "--quant Q4_K_M" in line
    assert many.published() == []


def test_in_a_terminal_the_choice_is_asked_for(many: Yard):
    ours, theirs = pty.openpty()
    words = [*COMMAND, "pull", "acme/m-GGUF"]
    with subprocess.Popen(
        words,
        cwd=many.home,
        env=many.environment(TERM="dumb"),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Which one (Q4_K_M)" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, b"\n")
        assert process.stdout is not None
        said = process.stdout.read()
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert b"Q8_0" in shown
    assert "m:1 is" in said
    assert "m/1/m-Q4_K_M.gguf" in many.published()


def _read(number: int) -> bytes:
    try:
        return os.read(number, 1000)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme/none"], "there is no acme/none at http://127.0.0.1"),
        (["acme/gated"], "set HF_TOKEN to a token of that account"),
        (["acme/m-GGUF@v9"], 'no branch, tag or commit "v9"'),
        (["acme/m-GGUF", "--quant", "Q5_0"], "it has Q2_K (4.0 kB)"),
    ],
)
def test_a_refusal_is_one_line_and_nothing_is_published(many: Yard, words, said):
    many.hub.add("acme/gated", {"m.gguf": b"x"}, gated=True)
    assert said in many.refused(*words)
    assert many.published() == []


def test_a_hub_that_may_not_be_asked_is_told(many: Yard):
    done = many.run("pull", "acme/m-GGUF", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    line = "modelyard: acme/m-GGUF is not in the cache, and HF_HUB_OFFLINE is set; unset it to download"
    assert done.stderr.splitlines() == [line]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpt2"], "owner/repo[/file][@revision]"),
        (["acme/m", "--as", "a:b"], "cannot hold a colon"),
        (["acme/m", "--as", "2"], "would read as a version"),
        (["acme/m", "--as", "../b"], "cannot be a"),
        (["acme/m", "--as", "a/b/c"], "at most owner/name"),
        (["--quant", "Q2_K"], "need to be told what to pull"),
        ([], "names no versions"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_asking_a_hub(yard: Yard, words, said):
    assert said in yard.refused(*words)
    assert not yard.hub.requests


def test_a_wrong_hash_publishes_nothing(many: Yard):
    many.hub.faults.append(Fault(kind="flip", after=3))
    assert "another hash than promised" in many.refused("acme/m-GGUF/m-Q2_K.gguf")
    assert many.published() == []


def test_ctrl_c_says_that_a_later_call_goes_on_and_it_does(yard: Yard):
    yard.hub.add_demo("acme/demo-GGUF")
    yard.hub.faults.append(Fault(kind="stall", after=16_000_000))  # more than sockets hold
    words = [*COMMAND, "pull", "acme/demo-GGUF"]
    with subprocess.Popen(
        words, cwd=yard.home, env=yard.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert yard.hub.stalled.wait(30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "modelyard: stopped; the same command goes on from here"
    assert yard.published() == []
    yard.pull("acme/demo-GGUF")
    assert yard.hub.gets()[-1].status == 206


def test_a_full_disk_is_told_and_a_later_call_goes_on(yard: Yard):
    yard.hub.add_demo("acme/demo-GGUF")
    limited = ["bash", "-c", 'ulimit -f 4000; exec "$@"', "-", *COMMAND, "pull", "acme/demo-GGUF"]
    done = subprocess.run(
        limited, cwd=yard.home, env=yard.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the disk is full" in done.stderr.splitlines()[-1]
    assert yard.published() == []
    yard.pull("acme/demo-GGUF")
    assert yard.hub.gets()[-1].headers["Range"].startswith(f"bytes={4000 * 1024}-")


def test_a_repository_that_cannot_be_written_to_is_told_before_the_download(many: Yard):
    many.models.write_text("a file")
    assert "cannot write" in many.refused("acme/m-GGUF/m-Q2_K.gguf")
    assert not many.hub.gets()


def test_pulls_at_once_are_all_in_the_lock(many: Yard):
    words = [["--as", "a"], ["--as", "b"], ["--as", "b"]]
    running = [
        subprocess.Popen(
            [*COMMAND, "pull", "acme/m-GGUF/m-Q8_0.gguf", *each],
            cwd=many.home,
            env=many.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for each in words
    ]
    for process in running:
        process.communicate(timeout=60)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert [each.folder for each in read_lock(many.models)] == ["a/1", "b/1"]
    assert len(many.hub.gets()) == 1


def test_what_the_lock_names_and_is_missing_is_restored_as_it_was(many: Yard):
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    many.pull("acme/m-GGUF", "--quant", "Q2_K", "--as", "small")
    before = (many.models / NAME).read_bytes()
    many.hub.add("acme/m-GGUF", {"m-Q8_0.gguf": b"another commit"})
    shutil.rmtree(many.models / "m")
    shutil.rmtree(many.home / "cache")
    said = many.pull()
    assert "m:1 is acme/m-GGUF@" in said
    assert "small:1 is" in said
    assert (many.models / "m/1/m-Q8_0.gguf").read_bytes() == b"Q8_0" * 1000
    assert (many.models / NAME).read_bytes() == before
    assert many.pull("models").count("already") == 2


def test_what_is_not_what_the_lock_says_is_not_restored(many: Yard):
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    lock = many.models / NAME
    sha256 = read_lock(many.models)[0].files[0].sha256
    lock.write_text(lock.read_text().replace(sha256, "0" * 64))
    shutil.rmtree(many.models / "m")
    assert "m-Q8_0.gguf is not what modelyard.lock says it was" in many.refused()
    assert many.published() == [NAME]


def test_what_cannot_be_restored_hides_nothing_else(many: Yard):
    many.hub.add("acme/b", {"b.gguf": b"b" * 100})
    many.pull("acme/b")
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    del many.hub.repos["acme/b"]
    for name in ("b", "m"):
        shutil.rmtree(many.models / name)
    shutil.rmtree(many.home / "cache")
    done = many.call("pull")
    assert done.exit_code == 1
    assert "there is no acme/b" in done.stderr
    assert "m:1 is" in done.stdout


def test_another_model_does_not_become_the_next_version_by_chance(many: Yard):
    many.hub.add("other/m", {"m.gguf": b"other"})
    many.pull("acme/m-GGUF", "--quant", "Q8_0")
    assert "there is a model m already (from acme/m-GGUF)" in many.refused("other/m")
    assert "m:2 is other/m@" in many.pull("other/m", "--as", "m")


def test_a_folder_with_weights_of_its_own_is_not_covered(many: Yard):
    (many.models / "m").mkdir(parents=True)
    (many.models / "m" / "mine.gguf").write_bytes(b"mine")
    assert "holds weights of its own" in many.refused("acme/m-GGUF/m-Q8_0.gguf")


@pytest.mark.parametrize(("there", "name"), [("m/1", "m/b"), ("m/b/1", "m")])
def test_a_model_is_not_put_into_another_one(many: Yard, there: str, name: str):
    (many.models / there).mkdir(parents=True)
    assert "choose another name" in many.refused("acme/m-GGUF/m-Q8_0.gguf", "--as", name)


def test_a_model_may_be_two_folders_deep(many: Yard):
    many.pull("acme/m-GGUF/m-Q8_0.gguf", "--as", "acme/m")
    assert many.published() == ["acme/m/1/m-Q8_0.gguf", NAME]


def test_a_loose_file_keeps_its_name(many: Yard):
    many.models.mkdir()
    (many.models / "m.gguf").write_bytes(b"mine")
    assert "m.gguf has the name m" in many.refused("acme/m-GGUF/m-Q8_0.gguf")


def test_a_damaged_version_is_found_by_check(many: Yard):
    many.pull("acme/m-GGUF/m-Q8_0.gguf")
    (many.models / "m/1/m-Q8_0.gguf").write_bytes(b"Q8_1" * 1000)
    done = many.call("check", "--verify")
    assert done.exit_code == 1
    assert "m-Q8_0.gguf: is not what was pulled" in done.stdout
