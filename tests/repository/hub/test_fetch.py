"""Downloads from a hub on loopback, with what goes wrong on the way."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from repository.hub import download
from repository.hub.errors import HubError
from repository.hub.fetch import fetch, fetch_cached
from repository.hub.reference import parse_reference
from repository.hub.values import Choice, Progress
from tests.hub_server import Fault, HubServer, sha256_of

MODEL = bytes(range(256)) * 4096  # 1 MiB
REPO = parse_reference("acme/m")


class Client:
    """Calls of `fetch` against one hub and cache; keeps what was said, and how long was to be waited."""

    def __init__(self, hub: HubServer, cache: Path) -> None:
        self.hub = hub
        self.cache = cache
        self.said: list[str] = []
        self.pauses: list[float] = []

    def fetch(self, text: str = "acme/m", **given):
        options = {"say": self.said.append, "sleep": self.pauses.append} | given
        return fetch(parse_reference(text), cache_dir=self.cache, endpoint=self.hub.url, **options)

    def error(self, text: str = "acme/m", **given) -> HubError:
        with pytest.raises(HubError) as caught:
            self.fetch(text, **given)
        assert "\n" not in str(caught.value)
        return caught.value

    def blobs(self) -> list[str]:
        return sorted(path.name for path in self.cache.glob("models--*/blobs/*"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", "")
    with HubServer() as server:
        server.add("acme/m", {"m.gguf": MODEL, "LICENSE": "MIT", "README.md": "# M"})
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "cache")


def test_a_model_is_fetched_with_its_sizes_and_hashes(client: Client):
    fetched = client.fetch()
    assert fetched.path.read_bytes() == MODEL
    assert [(file.name, file.size, file.sha256) for file in fetched.files] == [
        ("LICENSE", 3, sha256_of(b"MIT")),
        ("m.gguf", len(MODEL), sha256_of(MODEL)),
    ]
    assert fetched.revision == client.hub.repos["acme/m"].refs["main"]


def test_the_hubs_own_library_finds_what_was_fetched(client: Client):
    fetched = client.fetch()
    found = hf_hub_download("acme/m", "m.gguf", cache_dir=client.cache, local_files_only=True)
    assert Path(found) == fetched.path


def test_what_its_own_library_fetched_is_not_fetched_again(client: Client):
    hf_hub_download("acme/m", "m.gguf", cache_dir=client.cache, endpoint=client.hub.url)
    client.hub.requests.clear()
    client.fetch(verify=True)
    assert not client.hub.gets()


def test_a_folder_is_fetched_where_weights_need_their_tokenizer(client: Client):
    client.hub.add_demo_checkpoint("acme/hf")
    fetched = client.fetch("acme/hf")
    assert (fetched.path / "config.json").is_file()
    assert (fetched.path / "model.safetensors").is_file()


def test_a_revision_is_fetched_beside_another(client: Client):
    client.hub.add("acme/m", {"m.gguf": MODEL[:-1]}, revision="v2")
    assert client.fetch("acme/m@v2").path.read_bytes() == MODEL[:-1]
    assert client.fetch().path.read_bytes() == MODEL


def test_progress_goes_to_the_end_and_never_back(client: Client):
    seen: list[Progress] = []
    client.fetch(progress=seen.append)
    done = [each.done_bytes for each in seen]
    assert done == sorted(done)
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (len(MODEL) + 3, len(MODEL) + 3)
    assert (seen[-1].file, seen[-1].file_done_bytes) == ("m.gguf", len(MODEL))


def test_a_cut_is_mended_from_where_it_was(client: Client):
    client.hub.faults.append(Fault(kind="cut", after=300_000))
    assert client.fetch().path.read_bytes() == MODEL
    ranges = [seen.headers.get("Range") for seen in client.hub.gets()]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").partition("-")[0]) <= 300_000


def test_a_later_call_goes_on_where_one_was_stopped(client: Client):
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.file_done_bytes > 200_000:
            raise Stop

    with pytest.raises(Stop):
        client.fetch(progress=stop)
    kept = next(client.cache.glob("**/*.incomplete")).stat().st_size
    client.fetch()
    assert client.hub.gets()[-1].headers["Range"] == f"bytes={kept}-{len(MODEL) - 1}"
    assert any("going on at" in line for line in client.said)


def test_a_hub_without_ranges_sends_all_again(client: Client):
    client.hub.faults += [Fault(kind="cut", after=300_000), Fault(kind="no_range")]
    assert client.fetch().path.read_bytes() == MODEL


def test_a_very_large_file_comes_in_pieces(client: Client, monkeypatch):
    monkeypatch.setattr(download, "PIECE_BYTES", 400_000)
    client.hub.faults.append(Fault(kind="cut", after=300_000))
    assert client.fetch().path.read_bytes() == MODEL
    assert client.hub.gets()[0].headers["Range"] == "bytes=0-399999"
    assert client.hub.gets()[-1].headers["Range"].endswith(f"-{len(MODEL) - 1}")


def test_a_connection_that_stays_lost_ends_in_one_sentence_and_keeps_what_came(client: Client):
    client.hub.faults.append(Fault(kind="cut", after=0, times=None))
    client.hub.faults.insert(0, Fault(kind="cut", after=300_000))
    error = client.error()
    assert error.kind == "offline"
    assert "what came so far is kept" in str(error)
    assert len(client.pauses) > 3
    assert any(name.endswith(".incomplete") for name in client.blobs())
    client.hub.faults.clear()
    client.fetch()
    assert "Range" in client.hub.gets()[-1].headers


def test_a_hub_that_always_cuts_does_not_keep_a_call_for_ever(client: Client):
    client.hub.faults.append(Fault(kind="no_range", after=100_000, times=None))
    assert client.error().kind == "offline"


def test_a_rate_limit_is_waited_for_and_told(client: Client):
    client.hub.faults.append(Fault(kind="status", status=429, headers={"Retry-After": "7"}, match="/api/"))
    client.fetch()
    assert client.pauses == [7.0]
    assert "going on in 7 s" in client.said[0]


def test_a_rate_limit_in_the_hubs_own_words_is_waited_for(client: Client):
    headers = {"RateLimit": '"api";r=0;t=55'}
    client.hub.faults.append(Fault(kind="status", status=429, headers=headers, match="GET /acme/m/resolve"))
    client.fetch()
    assert client.pauses == [55.0]


def test_a_rate_limit_of_an_hour_is_not_waited_for(client: Client):
    client.hub.faults.append(Fault(kind="status", status=429, headers={"Retry-After": "3600"}, match="/api/"))
    error = client.error()
    assert (error.kind, client.pauses) == ("offline", [])
    assert "try again in 3600 s" in str(error)


def test_a_hub_that_stumbles_is_asked_again(client: Client):
    client.hub.faults.append(Fault(kind="status", status=503, match="GET", times=3))
    client.fetch()
    assert client.pauses == [0.5, 1.0, 2.0]


def test_a_hub_that_stays_down_ends_in_one_sentence(client: Client):
    client.hub.faults.append(Fault(kind="status", status=500, match="GET", times=None))
    error = client.error()
    assert error.kind == "offline"
    assert "status 500" in str(error)


def test_another_content_than_promised_is_refused_and_not_kept(client: Client):
    client.hub.faults.append(Fault(kind="flip", after=1000, times=None))
    error = client.error()
    assert error.kind == "broken"
    assert "another hash than promised" in str(error)
    assert sha256_of(MODEL) not in client.blobs()
    assert not list(client.cache.glob("**/*.incomplete"))


def test_another_content_of_a_small_file_is_refused(client: Client):
    client.hub.faults.append(Fault(kind="flip", match="GET /acme/m/resolve/"))
    assert "LICENSE of acme/m has another hash" in str(client.error())


@pytest.mark.parametrize("after", [0, 1000])
def test_another_size_than_promised_is_refused(client: Client, after: int):
    client.hub.faults.append(Fault(kind="short", after=after, times=None))
    error = client.error()
    assert error.kind == "broken"
    assert f"has {after} bytes where {len(MODEL)} were promised" in str(error)


def test_a_beginning_that_does_not_fit_is_thrown_away(client: Client):
    client.hub.faults.append(Fault(kind="cut", after=300_000, times=1))
    client.hub.faults.append(Fault(kind="status", status=404, match="GET /lfs"))
    client.error()
    partial = next(client.cache.glob("**/*.incomplete"))
    partial.write_bytes(b"?" + partial.read_bytes()[1:])
    assert client.fetch().path.read_bytes() == MODEL
    assert any("does not fit" in line for line in client.said)


def test_a_damaged_file_in_the_cache_is_taken_anew(client: Client):
    blob = client.fetch().path.resolve()
    blob.write_bytes(b"?" + MODEL[1:])
    assert client.fetch(verify=True).path.read_bytes() == MODEL
    blob.write_bytes(MODEL[1:])
    assert client.fetch().path.read_bytes() == MODEL
    assert any("damaged in the cache" in line for line in client.said)


def test_a_token_goes_to_the_hub_and_not_to_where_it_redirects(client: Client, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    client.hub.add("acme/gated", {"m.gguf": MODEL}, gated=True)
    client.fetch("acme/gated")
    asked = {seen.path.split("/")[1]: seen.headers.get("Authorization") for seen in client.hub.requests}
    assert asked == {"api": "Bearer hf_good", "acme": "Bearer hf_good", "lfs": None}


def test_a_redirect_more_is_followed(client: Client):
    client.hub.faults += [Fault(kind="redirect"), Fault(kind="redirect", match="/api/")]
    assert client.fetch().path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("text", "token", "kind", "words"),
    [
        ("acme/none", "", "missing", "there is no acme/none at"),
        ("acme/private", "", "missing", "if it is private, set HF_TOKEN"),
        ("acme/m@v9", "", "missing", 'acme/m has no branch, tag or commit "v9"'),
        ("acme/m/x.gguf", "", "missing", 'no file "x.gguf" (did you mean "m.gguf"?)'),
        ("acme/gated", "", "gated", "accept its conditions at"),
        ("acme/m", "hf_bad", "gated", "refuses the token given"),
    ],
)
def test_a_refusal_says_what_to_do(client: Client, monkeypatch, *, text, token, kind, words):
    monkeypatch.setenv("HF_TOKEN", token)
    client.hub.add("acme/gated", {"m.gguf": MODEL}, gated=True)
    client.hub.add("acme/private", {"m.gguf": MODEL}, private=True)
    error = client.error(text)
    assert (error.kind, client.pauses) == (kind, [])
    assert words in str(error)


def test_something_else_than_a_hub_is_told(client: Client, tmp_path: Path):
    client.hub.repos["acme/m"].commits.clear()
    headers = {"Content-Type": "text/html"}
    client.hub.faults.append(Fault(kind="status", status=200, headers=headers, match="/api/"))
    error = client.error()
    assert error.kind == "broken"
    assert "is HF_ENDPOINT right?" in str(error)


@pytest.mark.parametrize("name", ["../../evil.gguf", "/evil.gguf", "a/../../evil.gguf"])
def test_a_hub_cannot_write_beside_the_cache(client: Client, tmp_path: Path, name: str):
    client.hub.add("acme/evil", {name: MODEL})
    assert client.error("acme/evil").kind == "broken"
    assert not list(tmp_path.rglob("evil.gguf"))


def test_a_file_that_does_not_fit_the_disk_is_not_begun(client: Client):
    client.hub.claims["m.gguf"] = 10**18
    error = client.error()
    assert error.kind == "disk"
    assert "needs 1000000000.0 GB" in str(error)
    assert not client.hub.gets()


def test_without_a_hub_the_cache_is_enough(client: Client):
    fetched = client.fetch()
    client.hub.faults.append(Fault(kind="status", match="GET", times=None))
    again = client.fetch()
    assert again.path == fetched.path
    assert "taking what is in the cache" in client.said[-1]


def test_the_cache_alone_answers_without_a_request(client: Client):
    cached = partial(fetch_cached, REPO, cache_dir=client.cache)
    assert cached() is None
    fetched = client.fetch()
    client.hub.requests.clear()
    found = cached()
    assert found is not None
    assert (found.path, found.files) == (fetched.path, fetched.files)
    assert fetch_cached(REPO, choice=Choice(quant="Q8_0"), cache_dir=client.cache) is None
    assert not client.hub.requests


def test_what_was_cut_is_not_taken_for_whole(client: Client):
    client.hub.add_demo_checkpoint("acme/hf")
    client.hub.faults.append(Fault(kind="status", status=404, match="tokenizer.json"))
    client.error("acme/hf")
    assert fetch_cached(parse_reference("acme/hf"), cache_dir=client.cache) is None


def test_two_calls_at_once_download_once(client: Client):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        paths = {future.result().path for future in [pool.submit(client.fetch) for _ in range(4)]}
    assert len(paths) == 1
    assert len(client.hub.gets()) == 1
