"""An in-memory runner that plays scripts, a real Hypercorn around the application, and a plain HTTP client."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from openai import AsyncOpenAI

from adapters.app import build_app
from adapters.listener import listen, serve_app
from adapters.openai.responses.store import ResponseStore
from adapters.settings import AppSettings
from backends.contract import TokenLogprobs
from runner.api import (
    EmbedResult,
    ModelConfigInfo,
    ModelMetadata,
    ModelStats,
    ModelStatus,
    QueueInfo,
    State,
    TokenizeResult,
    VersionStatus,
)
from runner.errors import ModelNotFound
from runner.wire.requests import (
    Accepted,
    ChatPrompt,
    Delta,
    EditPrompt,
    Event,
    Finished,
    GenerateRequest,
    Prompt,
    TextPrompt,
    TokenPrompt,
    TokenText,
    Usage,
)

Step = Event | Exception | asyncio.Event
Script = Callable[[GenerateRequest], Iterable[Step]]

READY = ModelStatus(
    name="orca",
    versions=(VersionStatus(version=1, state="READY"),),
    default_version=1,
    ready=True,
    backend="echo",
    aliases=("whale",),
    context_tokens=4096,
    created=1_700_000_000,
)

TEXT_MODEL = ModelConfigInfo(
    name="orca",
    version=1,
    backend="echo",
    engine="echo",
    generates=True,
    embedding_length=0,
    context_tokens=4096,
    version_policy={"latest": {"num_versions": 1}},
    instance_count=1,
    instance_kind="cpu",
    gpus=(),
    max_lanes=16,
    queues=(QueueInfo(max_queue_size=256),),
    default_priority_level=1,
)
VECTOR_MODEL = msgspec.structs.replace(TEXT_MODEL, generates=False, embedding_length=3)


def replace_status(model: ModelStatus, *, name: str, state: State) -> ModelStatus:
    """Another model in that state."""
    versions = (VersionStatus(version=1, state=state),)
    return msgspec.structs.replace(model, name=name, aliases=(), versions=versions)


def accepted(prompt_tokens: int = 3, *, idle: tuple[str, ...] = ()) -> Accepted:
    return Accepted("orca", 1, prompt_tokens, 0, idle=idle)


def finished(completion_tokens: int, *, prompt_tokens: int = 3, cached_tokens: int = 0) -> Finished:
    return Finished(Usage(prompt_tokens, completion_tokens, cached_tokens))


def token(text: str, logprob: float = -0.5, **others: float) -> TokenText:
    """A token with its alternatives; token ids are of no matter here."""
    top = tuple((number, value) for number, value in enumerate(others.values()))
    return TokenText(TokenLogprobs(7, logprob, top), text.encode(), tuple(name.encode() for name in others))


def says(*texts: str, finish: str = "stop") -> Script:
    """Every sample of every request answers with these texts, one token each, taking turns."""

    def script(request: GenerateRequest) -> Iterable[Step]:
        yield accepted()
        for number, text in enumerate(texts):
            for index in range(request.n):
                logprobs = (token(text),) if request.logprobs is not None else ()
                ends = finish if number == len(texts) - 1 else None
                yield Delta(index, text, (number,), logprobs, finish=ends)
        yield finished(len(texts) * request.n)

    return script


class ScriptedRunner:
    """Implements `runner.api.RunnerApi` without engines. `asked` has every request with the model's name;
    `closed` is set when an iterator was closed before its end."""

    def __init__(self, script: Script | None = None, models: Sequence[ModelStatus] = (READY,)) -> None:
        self.script = script or says("Hello", " there")
        self.models = tuple(models)
        self.asked: list[tuple[str, GenerateRequest]] = []
        self.embedded: list[tuple[str, tuple[Prompt, ...], int | None]] = []
        self.tokenized: list[tuple[str, Prompt, bool]] = []
        self.closed = asyncio.Event()
        self.bearers: list[str | None] = []
        self.load_error: Exception | None = None
        self.loaded: list[str] = []
        self.load_config: str | None = None
        self.load_files: Mapping[str, bytes] | None = None
        self.config: ModelConfigInfo | Exception = TEXT_MODEL
        self.described: list[str] = []
        self.stats: list[ModelStats] = []
        self.unloaded: list[str] = []
        self.is_serving = True
        self.defaults: Mapping[str, Any] = {}

    @property
    def request(self) -> GenerateRequest:
        """The last request."""
        return self.asked[-1][1]

    async def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        self.asked.append((model, request))
        is_done = False
        try:
            for step in self.script(request):
                if isinstance(step, Exception):
                    is_done = True
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
            is_done = True
        finally:
            if not is_done:
                self.closed.set()

    async def embed(
        self, model: str, prompts: Sequence[Prompt], *, dimensions: int | None = None
    ) -> EmbedResult:
        """Vectors of the number of tokens, the count of prompts so far and 0.5."""
        self.embedded.append((model, tuple(prompts), dimensions))
        vectors = tuple(
            struct.pack("<3f", len(byte_tokens(prompt)), index, 0.5) for index, prompt in enumerate(prompts)
        )
        return EmbedResult(model="orca", vectors=vectors, prompt_tokens=3)

    async def tokenize(
        self, model: str, prompt: Prompt, *, add_special_tokens: bool = True, with_pieces: bool = False
    ) -> TokenizeResult:
        """A byte is a token, and what stands for BOS is 256."""
        self.tokenized.append((model, prompt, add_special_tokens))
        tokens = byte_tokens(prompt)
        if add_special_tokens and isinstance(prompt, TextPrompt):
            tokens = (256, *tokens)
        return TokenizeResult(
            tokens=tokens,
            text=bytes(token for token in tokens if token < 256).decode(),
            context_tokens=4096,
            pieces=tuple(bytes([token]) if token < 256 else b"<s>" for token in tokens)
            if with_pieces
            else (),
        )

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode()

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        self.bearers.append(bearer)
        if model is None:
            return self.models[0].name
        if model.partition(":")[0] not in {name for one in self.models for name in (one.name, *one.aliases)}:
            raise ModelNotFound(f'there is no model "{model}"; did you mean orca?', model=model)
        return model

    def request_defaults(self, model: str) -> Mapping[str, Any]:
        return self.defaults

    def index(self) -> tuple[ModelStatus, ...]:
        return self.models

    def is_live(self) -> bool:
        return self.is_serving

    def is_ready(self) -> bool:
        return self.is_serving

    def model_ready(self, model: str) -> bool:
        return model in ("orca", "orca:1")

    async def metadata(self, model: str) -> ModelMetadata:
        raise NotImplementedError

    async def model_config(self, model: str) -> ModelConfigInfo:
        self.described.append(model)
        if isinstance(self.config, Exception):
            raise self.config
        return self.config

    def statistics(self, model: str | None = None) -> tuple[ModelStats, ...]:
        rows = tuple(row for row in self.stats if model in (None, row.model, f"{row.model}:{row.version}"))
        if model is not None and not rows:
            raise ModelNotFound(f"nothing of {model} is loaded", model=model)
        return rows

    async def load(
        self, model: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        if self.load_error is not None:
            raise self.load_error
        self.loaded.append(model)
        self.load_config, self.load_files = config, files

    async def unload(self, model: str) -> None:
        if self.load_error is not None:
            raise self.load_error
        self.unloaded.append(model)

    async def reset_cache(self, model: str) -> None:
        raise NotImplementedError

    def metrics(self) -> bytes:
        return b"# HELP modelyard_up Up\n"


class HttpAnswer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        """The decoded `data:` events of a stream; "[DONE]" stands for itself."""
        lines = [
            part.removeprefix(b"data: ") for part in self.body.split(b"\n\n") if part.startswith(b"data: ")
        ]
        return ["[DONE]" if line == b"[DONE]" else msgspec.json.decode(line) for line in lines]


class Server:
    """A served application and ways to ask it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def openai(self, api_key: str = "none", *, strict: bool = True) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key=api_key,
            max_retries=0,
            _strict_response_validation=strict,
        )

    async def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and send one request; `body` is bytes or becomes JSON."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        given = {"host": "test", "content-type": "application/json", "content-length": str(len(raw))}
        lines = [f"{name}: {value}" for name, value in (given | (headers or {})).items()]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "connection: close", "", ""])
        writer.write(head.encode() + raw)
        await writer.drain()
        return reader, writer

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> HttpAnswer:
        """One request, its whole answer."""
        reader, writer = await self.send(method, path, body, headers)
        try:
            return parse_answer(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> HttpAnswer:
        return await self.ask("POST", path, body, headers)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> HttpAnswer:
        return await self.ask("GET", path, None, headers)


def parse_answer(raw: bytes) -> HttpAnswer:
    """Status, headers in lower case, and the body without its transfer encoding."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            parts.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        body = b"".join(parts)
    return HttpAnswer(int(first.split()[1]), headers, body)


@asynccontextmanager
async def serving(
    runner: ScriptedRunner,
    settings: AppSettings | None = None,
    *,
    idle_s: float = 75.0,
    store: ResponseStore | None = None,
) -> AsyncIterator[Server]:
    """The application on a free port of the loopback interface. `idle_s`: see `serve_app`."""
    settings = settings or AppSettings()
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    stop = asyncio.Event()
    app = build_app(runner, settings, store=store)
    limits = {"grace_s": 10.0, "idle_s": idle_s, "send_timeout_s": settings.send_timeout_s}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve_app(app, sock, stop=stop, **limits))
        try:
            yield Server(port)
        finally:
            stop.set()


def ask_user(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    """A chat body with one user message."""
    return {"model": "orca", "messages": [{"role": "user", "content": text}], **fields}


def tokens_of(prompt: Prompt) -> tuple[int, ...]:
    assert isinstance(prompt, TokenPrompt)
    return prompt.tokens


def byte_tokens(prompt: Prompt) -> tuple[int, ...]:
    """A prompt where every byte of its text is a token."""
    match prompt:
        case TextPrompt(text):
            return tuple(text.encode())
        case TokenPrompt(tokens):
            return tokens
        case ChatPrompt(messages=messages):
            return tuple("".join(f"<{each['role']}>{each['content']}" for each in messages).encode())
        case EditPrompt(text=text, instruction=instruction):
            return tuple(f"{instruction}: {text}".encode())
