"""`modelyard chat`: talk to a running server in the terminal."""

import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

_TIMEOUT_S = 600.0


class ChatError(Exception):
    """The server did not answer, or not with an answer."""


class ChatClient:
    """One server's chat endpoint. Keeps no history."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        named = url if "://" in url else f"http://{url}"
        self._url = named.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def models(self) -> list[str]:
        """The names of all models. Raises ChatError."""
        with self._open("/v1/models", None) as answer, self._telling():
            return [model["id"] for model in msgspec.json.decode(answer.read())["data"]]

    def answer(self, model: str | None, messages: list[dict[str, str]]) -> Iterator[str]:
        """The texts of one answer as they come. Raises ChatError."""
        body: dict[str, Any] = {"messages": messages, "stream": True}
        if model is not None:
            body["model"] = model
        with self._open("/v1/chat/completions", msgspec.json.encode(body)) as answer, self._telling():
            for line in answer:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                chunk = msgspec.json.decode(line[6:])
                if "error" in chunk:
                    raise ChatError(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    yield choice["delta"].get("content") or ""

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong while an answer is read becomes a ChatError."""
        try:
            yield
        except (http.client.HTTPException, OSError) as error:
            raise ChatError(f"the answer broke off: {error or type(error).__name__}") from None
        except (msgspec.DecodeError, KeyError, TypeError):
            raise ChatError(f"what answers at {self._url} is no Modelyard") from None

    def _open(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self._url + path, data=body, headers=self._headers)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise ChatError(_reason(error.read()) or f"the server answered {error.code}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no such address
            reason = getattr(error, "reason", error)
            raise ChatError(f"no answer from {self._url}: {reason}; is `modelyard serve` running?") from None


def chat(
    model: Annotated[str | None, typer.Argument(help="The model; left out where there is only one.")] = None,
    url: Annotated[str, typer.Option(envvar="MODELYARD_URL", help="The server.")] = "http://127.0.0.1:8080",
    api_key: Annotated[str | None, typer.Option(envvar="MODELYARD_API_KEY")] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
) -> None:
    """Chat with a model of a running server. Ctrl-C stops an answer, Ctrl-D leaves; /new begins afresh."""
    client = ChatClient(url, api_key=api_key)
    start = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    try:
        if model is None:
            model = _only_model(client.models())
        for text in _questions():
            if text == "/new":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": text})
            try:
                reply = _show(client.answer(model, messages))
            except ChatError as error:
                if not _is_terminal():
                    raise
                reply = ""
                typer.echo(f"modelyard: {error}", err=True)
            if reply:
                messages.append({"role": "assistant", "content": reply})
            else:
                messages.pop()
    except ChatError as error:
        typer.echo(f"modelyard: {error}", err=True)
        raise typer.Exit(1) from None


def _only_model(names: list[str]) -> str | None:
    if len(names) > 1:
        raise ChatError(f"there are several models; name one of {', '.join(names)}")
    return names[0] if names else None


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _questions() -> Iterator[str]:
    """Lines from the terminal, with editing and history, or from a pipe; empty ones are passed over."""
    is_terminal = _is_terminal()
    if is_terminal:
        import readline  # noqa: F401 - gives input() its editing and history
    while True:
        try:
            line = input("> " if is_terminal else "")
        except EOFError:
            if is_terminal:
                typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo()
            continue
        if line.strip():
            yield line.strip()


def _show(texts: Iterator[str]) -> str:
    """Print an answer as it comes; Ctrl-C ends it early. Returns what came."""
    reply = ""
    try:
        for text in texts:
            reply += text
            typer.echo(text, nl=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    finally:
        typer.echo()
    return reply


def _reason(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
