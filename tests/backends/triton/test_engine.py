"""The engine against a server on loopback that plays what a real one seldom does: failures, and TensorRT-LLM."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from backends.contract import (
    NO_LIMIT,
    EngineError,
    EngineRequest,
    LoadError,
    LoadRequest,
    Sampling,
    TokenChunk,
    UnavailableError,
    UnsupportedError,
)
from backends.triton.engine import TritonEngine

VLLM = (("text_input", "BYTES", [1]), ("stream", "BOOL", [1]), ("sampling_parameters", "BYTES", [1]))
TENSORRT_LLM = (
    ("text_input", "BYTES", [-1, 1]),
    ("max_tokens", "INT32", [-1, 1]),
    ("stream", "BOOL", [-1, 1]),
    ("temperature", "FP32", [-1, 1]),
    ("top_k", "INT32", [-1, 1]),
    ("top_p", "FP32", [-1, 1]),
    ("random_seed", "UINT64", [-1, 1]),
    ("repetition_penalty", "FP32", [-1, 1]),
    ("end_id", "INT32", [-1, 1]),
)
Script = Callable[[pb.ModelInferRequest, Any], AsyncIterator[pb.ModelStreamInferResponse]]


def text(value: str, *, is_last: bool = False, **numbers: int) -> pb.ModelStreamInferResponse:
    """One answer, with UINT32 outputs by name."""
    message = pb.ModelStreamInferResponse()
    response = message.infer_response
    response.parameters["triton_final_response"].bool_param = is_last
    data = value.encode()
    response.outputs.add(name="text_output", datatype="BYTES", shape=[1])
    response.raw_output_contents.append(struct.pack("<I", len(data)) + data)
    for name, number in numbers.items():
        response.outputs.add(name=name, datatype="UINT32", shape=[1])
        response.raw_output_contents.append(struct.pack("<I", number))
    return message


async def says_ab(request: pb.ModelInferRequest, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
    yield text("a")
    yield text("b", is_last=True)


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Describes one model, keeps what it is asked, and answers as `script` says."""

    def __init__(self) -> None:
        self.inputs: Any = VLLM
        self.streams = True
        self.script: Script = says_ab
        self.asked: list[pb.ModelInferRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.remaining_s: list[float | None] = []
        self.cancelled = asyncio.Event()

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        answer = pb.ModelMetadataResponse(name=request.name)
        for name, datatype, shape in self.inputs:
            answer.inputs.add(name=name, datatype=datatype, shape=shape)
        answer.outputs.add(name="text_output", datatype="BYTES", shape=[-1])
        return answer

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        answer = pb.ModelConfigResponse()
        answer.config.model_transaction_policy.decoupled = self.streams
        return answer

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in requests:
            self.asked.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.remaining_s.append(context.time_remaining())
            try:
                async for message in self.script(request, context):
                    yield message
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    def values(self) -> dict[str, Any]:
        """What the last request's tensors hold."""
        (request,) = self.asked[-1:]
        kinds = {"BOOL": "<?", "INT32": "<i", "UINT64": "<Q", "FP32": "<f"}
        values: dict[str, Any] = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if tensor.datatype == "BYTES":
                values[tensor.name] = raw[4:].decode()
            else:
                (values[tensor.name],) = struct.unpack(kinds[tensor.datatype], raw)
        return values


@contextlib.asynccontextmanager
async def listening(servicer: FakeServer, port: int = 0) -> AsyncIterator[int]:
    """A server on loopback; its port."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


@pytest.fixture
def servicer() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def port(servicer: FakeServer) -> AsyncIterator[int]:
    async with listening(servicer) as port:
        yield port


async def loaded(port: int, *, context_tokens: int | None = None, **options: Any) -> TritonEngine:
    engine = TritonEngine()
    given = {"endpoint": f"grpc://127.0.0.1:{port}", "connect_timeout_s": 5.0, **options}
    request = LoadRequest(model="orca", weights="", options=given, context_tokens=context_tokens)
    await asyncio.to_thread(engine.load, request, lambda _: None)
    return engine


def asks(prompt: str = "hello", *, max_tokens: int = 8, **given: Any) -> EngineRequest:
    sampling = Sampling(**given.pop("sampling", {}))
    asked = frozenset(
        name for name in Sampling.__struct_fields__ if getattr(sampling, name) != getattr(Sampling(), name)
    )
    asked |= given.pop("given", frozenset())
    return EngineRequest(
        request_id="r", text=prompt, sampling=sampling, given=asked, max_tokens=max_tokens, **given
    )


async def answer(engine: TritonEngine, request: EngineRequest) -> list[TokenChunk]:
    return [chunk async for chunk in engine.generate(request)]


async def test_chunks_come_as_the_server_sends_them(servicer: FakeServer, port: int) -> None:
    chunks = await answer(await loaded(port), asks())
    assert [(chunk.text, chunk.finish) for chunk in chunks] == [("a", None), ("b", "stop")]


async def test_a_stream_that_just_ends_is_a_finished_answer(servicer: FakeServer, port: int) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a")

    servicer.script = script
    chunks = await answer(await loaded(port), asks())
    assert [(chunk.text, chunk.finish) for chunk in chunks] == [("a", None), ("", "stop")]


async def test_counts_tell_a_cut_answer_where_the_server_gives_no_reason(
    servicer: FakeServer, port: int
) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a", num_output_tokens=1, num_input_tokens=5)
        yield text("b", num_output_tokens=1, num_input_tokens=5, is_last=True)

    servicer.script = script
    chunks = await answer(await loaded(port), asks(max_tokens=2))
    assert chunks[-1].finish == "length"
    assert [(chunk.num_tokens, chunk.prompt_tokens) for chunk in chunks] == [(1, 5), (1, 5)]


async def test_sampling_parameters_go_by_the_names_of_vllm(servicer: FakeServer, port: int) -> None:
    sampling = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
        "repeat_penalty": 1.5,
        "presence_penalty": 0.25,
        "seed": 3,
    }
    request = asks(sampling=sampling, min_tokens=2, stop_token_ids=(4, 5), ignore_eos=True)
    await answer(await loaded(port), request)
    values = servicer.values()
    assert values["stream"] is True and values["text_input"] == "hello"
    assert values["sampling_parameters"] == (
        '{"max_tokens": 8, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.5, '
        '"presence_penalty": 0.25, "seed": 3, "min_tokens": 2, "stop_token_ids": [4, 5], "ignore_eos": true}'
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (set(), {"max_tokens": 8}),
        ({"temperature"}, {"max_tokens": 8, "temperature": 1.0}),
        ({"top_k", "seed", "typical_p"}, {"max_tokens": 8, "top_k": -1}),
    ],
)
async def test_what_nobody_asked_for_is_left_to_the_server(
    servicer: FakeServer, port: int, given: set[str], expected: dict[str, Any]
) -> None:
    await answer(await loaded(port), asks(given=frozenset(given)))
    assert json.loads(servicer.values()["sampling_parameters"]) == expected


async def test_inputs_that_the_model_lacks_are_not_sent(servicer: FakeServer, port: int) -> None:
    await answer(await loaded(port), asks())
    assert set(servicer.values()) == {"text_input", "stream", "sampling_parameters"}


async def test_the_prompt_is_taken_off_an_answer_that_must_have_it(servicer: FakeServer, port: int) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("hello world", is_last=True)

    servicer.script, servicer.streams = script, False
    (chunk,) = await answer(await loaded(port), asks())
    assert chunk.text == " world"
    assert servicer.values()["stream"] is False


async def test_name_version_and_headers_are_those_of_the_configuration(
    servicer: FakeServer, port: int
) -> None:
    engine = await loaded(
        port, remote_model="whale", remote_version=3, headers={"Authorization": "Bearer key"}
    )
    await answer(engine, asks())
    assert (servicer.asked[0].model_name, servicer.asked[0].model_version) == ("whale", "3")
    assert servicer.metadata[0]["authorization"] == "Bearer key"


async def test_tensorrt_llm_gets_a_tensor_for_each_parameter(servicer: FakeServer, port: int) -> None:
    servicer.inputs = TENSORRT_LLM
    sampling = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "repeat_penalty": 1.5, "seed": 3}
    chunks = await answer(await loaded(port), asks(sampling=sampling, stop_token_ids=(9,), max_tokens=2))
    assert servicer.values() == {
        "text_input": "hello",
        "max_tokens": 2,
        "stream": True,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.75,
        "repetition_penalty": 1.5,
        "random_seed": 3,
        "end_id": 9,
    }
    assert all(tensor.shape == [1, 1] for tensor in servicer.asked[0].inputs)
    assert [(chunk.num_tokens, chunk.finish) for chunk in chunks] == [(1, None), (1, "length")]


async def test_tensorrt_llm_is_greedy_without_a_temperature_of_zero(servicer: FakeServer, port: int) -> None:
    servicer.inputs = TENSORRT_LLM
    await answer(await loaded(port), asks(sampling={"temperature": 0}))
    assert servicer.values()["top_k"] == 1 and "temperature" not in servicer.values()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asks(max_tokens=NO_LIMIT), "max_tokens"),
        (asks(sampling={"frequency_penalty": 1}), "frequency_penalty"),
        (asks(sampling={"typical_p": 0.5}), "typical_p"),
        (asks(ignore_eos=True), "ignore_eos"),
        (asks(stop_token_ids=(1, 2)), "stop_token_ids"),
        (asks(max_tokens=2**40), "max_tokens"),
    ],
)
async def test_what_tensorrt_llm_has_no_tensor_for_is_refused(
    servicer: FakeServer, port: int, request_: EngineRequest, words: str
) -> None:
    servicer.inputs = TENSORRT_LLM
    engine = await loaded(port)
    with pytest.raises(UnsupportedError, match=words):
        await answer(engine, request_)
    assert servicer.asked == []


async def test_other_tensors_are_no_model_of_text(servicer: FakeServer, port: int) -> None:
    servicer.inputs = (("image", "FP32", [3, 224, 224]),)
    with pytest.raises(LoadError, match=r"neither .* \(its inputs: image\)"):
        await loaded(port)


async def test_a_protocol_that_is_named_must_be_that_of_the_model(port: int) -> None:
    with pytest.raises(LoadError, match="protocol vllm"):
        await loaded(port, protocol="tensorrt_llm")


async def test_a_server_that_is_not_there_fails_the_load_with_its_address() -> None:
    servicer = FakeServer()
    async with listening(servicer) as port:
        pass
    with pytest.raises(UnavailableError, match=rf"no server answers at grpc://127.0.0.1:{port} within 0.2 s"):
        await loaded(port, connect_timeout_s=0.2)


async def test_unknown_options_are_refused_by_name(port: int) -> None:
    with pytest.raises(LoadError, match="gpu_layers"):
        await loaded(port, gpu_layers=3)


async def test_a_server_that_goes_away_fails_the_request_and_serves_again_when_it_is_back() -> None:
    servicer = FakeServer()
    began = asyncio.Event()

    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a")
        began.set()
        await asyncio.Event().wait()

    servicer.script = script
    async with listening(servicer) as port:
        engine = await loaded(port)
        running = asyncio.create_task(answer(engine, asks()))
        await began.wait()
    with pytest.raises(UnavailableError, match="does not answer now"):
        await running
    with pytest.raises(UnavailableError, match="does not answer now"):
        await answer(engine, asks())
    servicer.script = says_ab
    async with listening(servicer, port), asyncio.timeout(20):
        while True:
            with contextlib.suppress(UnavailableError):
                assert (await answer(engine, asks()))[-1].finish == "stop"
                break


async def test_closing_the_iterator_cancels_the_request_there(servicer: FakeServer, port: int) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a")
        await asyncio.Event().wait()

    servicer.script = script
    chunks = (await loaded(port)).generate(asks())
    assert (await anext(chunks)).text == "a"
    await chunks.aclose()  # type: ignore[attr-defined]
    await servicer.cancelled.wait()


async def test_a_server_that_hangs_is_given_a_deadline_a_little_after_ours(
    servicer: FakeServer, port: int
) -> None:
    await answer(await loaded(port), asks(timeout_s=30.0))
    (remaining_s,) = servicer.remaining_s
    assert remaining_s is not None and 30.0 < remaining_s < 33.0


async def test_a_deadline_that_passes_there_fails_the_request(
    servicer: FakeServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a")
        await asyncio.Event().wait()

    monkeypatch.setattr("backends.triton.remote.LATE_S", 0.2)
    servicer.script = script
    engine = await loaded(port)
    with pytest.raises(EngineError, match="DEADLINE_EXCEEDED"):
        await answer(engine, asks(timeout_s=0.1))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UnavailableError),
        (grpc.StatusCode.CANCELLED, UnavailableError),
        (grpc.StatusCode.INVALID_ARGUMENT, UnsupportedError),
        (grpc.StatusCode.UNIMPLEMENTED, UnsupportedError),
        (grpc.StatusCode.INTERNAL, EngineError),
        (grpc.StatusCode.UNAUTHENTICATED, EngineError),
    ],
)
async def test_a_status_says_whose_fault_it_was(
    servicer: FakeServer, port: int, code: grpc.StatusCode, kind: type[EngineError]
) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield text("a")
        await context.abort(code, "the server's own words")

    servicer.script = script
    with pytest.raises(EngineError, match="the server's own words") as raised:
        await answer(await loaded(port), asks())
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Request for unknown model: 'orca' is not found", UnavailableError),
        ("no such thing", EngineError),
    ],
)
async def test_an_error_in_band_fails_the_request(
    servicer: FakeServer, port: int, message: str, kind: type[EngineError]
) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield pb.ModelStreamInferResponse(error_message=message)

    servicer.script = script
    with pytest.raises(EngineError, match=message) as raised:
        await answer(await loaded(port), asks())
    assert type(raised.value) is kind


async def test_an_answer_that_is_cut_short_fails_the_request(servicer: FakeServer, port: int) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        message = text("a")
        message.infer_response.raw_output_contents[0] = b"\1"
        yield message

    servicer.script = script
    with pytest.raises(EngineError, match="cut short"):
        await answer(await loaded(port), asks())


async def test_an_end_without_an_answer_fails_the_request(servicer: FakeServer, port: int) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        return
        yield

    servicer.script = script
    with pytest.raises(EngineError, match="without an answer"):
        await answer(await loaded(port), asks())
