"""A small model hub on loopback: repositories with revisions, large files behind a redirect, tokens, and faults.

Set `HF_ENDPOINT` to its `url` (or pass that as `endpoint`). It speaks what `huggingface_hub` asks: the model and
tree routes, `resolve` with its headers, ranges. What it was asked stands in `requests`.
"""

import email.utils
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from msgspec import Struct

ROOT = Path(__file__).parents[1]
LARGE = (".gguf", ".safetensors", ".bin", ".pth", ".pt")
_ROUTE = re.compile(
    r"/api/models/(?P<api>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<at>[^/]+)(?:/(?P<folder>.+))?)?\Z"
    r"|/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)\Z"
    r"|/lfs/(?P<sha256>[0-9a-f]{64})\Z"
)


class Fault(Struct, kw_only=True):
    """What goes wrong with requests whose line (`GET /lfs/... model.gguf`) holds `match`, `times` times.

    `cut`: the connection ends after `after` bytes of this answer. `stall`: nothing comes after them until the hub is
    closed. `flip`: the byte at `after` is another one. `short`: only `after` bytes are there, and said to be there.
    `shift`: a part begins a byte before the one asked for, and says so.
    `status`: this one, with `headers`. `redirect`: to the same place, once more. `no_range`: `Range` is not heeded, and
    the answer is cut after `after` bytes, if that is given.
    """

    kind: Literal["cut", "stall", "flip", "short", "shift", "status", "redirect", "no_range"]
    match: str = "GET /lfs/"
    times: int | None = 1
    after: int = 0
    status: int = 500
    headers: dict[str, str] = {}


class Seen(Struct, frozen=True):
    """A request, and how it was answered. `headers` have names as `Content-Length`."""

    method: str
    path: str
    headers: dict[str, str]
    status: int


class Repo:
    """One repository: files by commit, commits by branch or tag."""

    def __init__(self, name: str, *, gated: bool, private: bool) -> None:
        self.name = name
        self.gated = gated
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubServer:
    """The hub; a context manager that serves from a thread. `tokens` are those it knows."""

    def __init__(self, *, tokens: tuple[str, ...] = ("hf_good",)) -> None:
        self.tokens = tokens
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.large: dict[str, tuple[str, bytes]] = {}
        self.closing = threading.Event()
        self.stalled = threading.Event()  # set as soon as a `stall` has begun
        self.claims: dict[str, int] = {}  # sizes that are told in place of the real ones, by file name
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(
        self,
        name: str,
        files: Mapping[str, bytes | str | Path] | Path,
        *,
        revision: str = "main",
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Commits files (contents, or what to read them from; or a folder) to a branch; the commit's id."""
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p for p in files.rglob("*") if p.is_file()}
        content = {key: _content(value) for key, value in files.items()}
        repo = self.repos.setdefault(name, Repo(name, gated=gated, private=private))
        summary = [(key, sha256_of(data)) for key, data in sorted(content.items())]
        commit = hashlib.sha1(repr((name, summary)).encode()).hexdigest()
        repo.commits[commit] = content
        repo.refs[revision] = commit
        for key, data in content.items():
            if _is_large(key):
                self.large[sha256_of(data)] = (key, data)
        return commit

    def add_demo(self, name: str = "acme/demo-GGUF", **given: Any) -> str:
        """The demo model as a GGUF, with what such a repository has beside it."""
        model = ROOT / "models/demo/1/model.gguf"
        return self.add(name, {"model.gguf": model, "README.md": "# Demo\n", "LICENSE": "MIT\n"}, **given)

    def add_demo_checkpoint(self, name: str = "acme/demo", **given: Any) -> str:
        """The demo model as a folder that transformers loads."""
        return self.add(name, ROOT / "examples/demo_model/hf", **given)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for a process that is to use this hub and a cache below `home`."""
        offline = {"HF_HUB_OFFLINE": "", "HF_TOKEN": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "*", **offline, **more}

    def patch(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """The same for this process, whose hub library has read its variables already."""
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))

    def gets(self, part: str = "/lfs/") -> list[Seen]:
        """The GET requests whose path holds `part`."""
        return [seen for seen in self.requests if seen.method == "GET" and part in seen.path]

    def take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in line and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith(LARGE)


def _content(value: bytes | str | Path) -> bytes:
    match value:
        case Path():
            return value.read_bytes()
        case str():
            return value.encode()
        case _:
            return value


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Answers):
        pass

    Handler.hub = hub
    return Handler


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status = status
        named = {"X-Error-Code": code, "X-Error-Message": message}
        self.headers = {key: value for key, value in named.items() if value}


class _Answers(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        found = _ROUTE.match(parts.path)
        sha256 = found["sha256"] if found else None
        name = self.hub.large.get(sha256, ("", b""))[0] if sha256 else ""
        fault = self.hub.take_fault(f"{self.command} {unquote(parts.path)} {name}")
        try:
            match fault:
                case Fault(kind="status"):
                    self._send(fault.status, b"", fault.headers)
                case Fault(kind="redirect"):
                    self._send(307, b"", {"Location": self.path})
                case _ if found is None:
                    raise _Refused(404)
                case _ if sha256:
                    self._large(sha256, fault)
                case _ if found["api"]:
                    self._describe(found)
                case _:
                    self._resolve(found, fault)
        except _Refused as refused:
            self._send(refused.status, b"", refused.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _repo(self, name: str, *, is_content: bool) -> Repo:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.tokens:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not given):
            raise _Refused(404 if given else 401, "RepoNotFound", "Repository not found")
        if repo.gated and is_content and not given:
            raise _Refused(401, "GatedRepo", f"Access to model {name} is restricted.")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repo.commit_of(unquote(revision))
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repo.commits[commit]

    def _describe(self, found: re.Match[str]) -> None:
        repo = self._repo(unquote(found["api"]), is_content=False)
        commit, files = self._files(repo, found["at"] or "main")
        answer: Any
        if found["what"] == "tree":
            answer = list(_tree(files))
        else:
            siblings = [self._sibling(name, data) for name, data in sorted(files.items())]
            answer = {"id": repo.name, "modelId": repo.name, "sha": commit, "siblings": siblings, "tags": []}
            answer |= {"private": repo.private, "gated": "manual" if repo.gated else False}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.hub.claims.get(name, len(data))
        more = (
            {"lfs": {"sha256": sha256_of(data), "size": size, "pointerSize": 134}} if _is_large(name) else {}
        )
        return {"rfilename": name, "size": size, "blobId": git_id(data), **more}

    def _resolve(self, found: re.Match[str], fault: Fault | None) -> None:
        repo = self._repo(unquote(found["repo"]), is_content=True)
        commit, files = self._files(repo, found["revision"])
        data = files.get(unquote(found["file"]))
        headers = {"X-Repo-Commit": commit}
        if data is None:
            refused = _Refused(404, "EntryNotFound", "Entry not found")
            refused.headers |= headers
            raise refused
        if not _is_large(found["file"]):
            self._content(data, headers | {"ETag": f'"{git_id(data)}"'}, fault)
            return
        sha256 = sha256_of(data)
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        headers["Location"] = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/lfs/{sha256}"
        self._send(302, b"", headers)

    def _large(self, sha256: str, fault: Fault | None) -> None:
        if sha256 not in self.hub.large:
            raise _Refused(404)
        if self.headers.get("Authorization"):
            raise _Refused(400, "", "a signed address takes no token")
        self._content(self.hub.large[sha256][1], {"ETag": f'"{sha256}"'}, fault)

    def _content(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        after = fault.after if fault else 0
        if kind == "flip":
            data = data[:after] + bytes([data[after] ^ 1]) + data[after + 1 :]
        elif kind == "short":
            data = data[:after]
        status = 200
        wanted = re.match(r"bytes=(\d+)-(\d*)\Z", self.headers.get("Range", ""))
        if wanted and kind != "no_range":
            start, end = int(wanted[1]) - (kind == "shift"), min(int(wanted[2] or len(data)), len(data) - 1)
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers |= {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            data, status = data[start : end + 1], 206
        headers |= {"Accept-Ranges": "bytes"}
        if kind in ("cut", "stall") or (kind == "no_range" and after):
            self._head(status, len(data), headers)
            self.wfile.write(data[:after])
            self.wfile.flush()
            if kind == "stall":
                self.hub.stalled.set()
                self.hub.closing.wait()
            self.close_connection = True
        else:
            self._send(status, data, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.hub.requests.append(
            Seen(self.command, self.path, {key.title(): value for key, value in self.headers.items()}, status)
        )
        self.send_response_only(status)
        self.send_header("Date", email.utils.formatdate(usegmt=True))
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()


def _tree(files: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    for name, data in sorted(files.items()):
        large = {"oid": sha256_of(data), "size": len(data), "pointerSize": 134}
        more = {"lfs": large} if _is_large(name) else {}
        yield {"type": "file", "path": name, "size": len(data), "oid": git_id(data), **more}
