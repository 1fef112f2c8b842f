"""ModelStreamInfer and `grpc.health.v1`: interleaving, flags, errors in band, cancelling, the end of the server."""

import asyncio
import queue

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from adapters.kserve.over_grpc import health
from adapters.settings import AppSettings
from runner.errors import GenerationFailed, Overloaded
from runner.wire.requests import Delta
from tests.adapters.kserve.faces import faces, message, text_of
from tests.adapters.support import VECTOR_MODEL, ScriptedRunner, accepted, finished, says

FINAL, EMPTY_FINAL = "triton_final_response", "triton_enable_empty_final_response"


async def stream(served, *requests: pb.ModelInferRequest, metadata=None) -> list[pb.ModelStreamInferResponse]:
    """All answers to requests that are sent at once."""
    return [answer async for answer in served.stub.ModelStreamInfer(iter(requests), metadata=metadata)]


def shown(answers) -> list[tuple[str, str, bool]]:
    """Id, text and final flag of every answer."""
    return [
        (
            answer.infer_response.id,
            text_of(answer.infer_response),
            answer.infer_response.parameters[FINAL].bool_param,
        )
        for answer in answers
    ]


async def test_every_piece_is_a_message_and_the_last_says_so():
    async with faces(ScriptedRunner()) as served:
        answers = await stream(served, message("Hi", "stream", id="7"))
    assert shown(answers) == [("7", "Hello", False), ("7", " there", True)]
    assert [answer.error_message for answer in answers] == ["", ""]


async def test_with_several_samples_only_the_last_message_of_all_is_final():
    request = message("Hi", "stream")
    request.parameters["n"].int64_param = 2
    async with faces(ScriptedRunner()) as served:
        answers = await stream(served, request)
    flags = [answer.infer_response.parameters[FINAL].bool_param for answer in answers]
    assert flags == [False, False, False, True]


async def test_without_the_stream_input_there_is_one_message_with_the_prompt():
    async with faces(ScriptedRunner()) as served:
        assert shown(await stream(served, message(id="7"))) == [("7", "HiHello there", True)]


async def test_a_vector_is_one_final_message():
    runner = ScriptedRunner()
    runner.config = VECTOR_MODEL
    async with faces(runner) as served:
        (answer,) = await stream(served, message(id="7"))
    assert answer.infer_response.parameters[FINAL].bool_param
    assert answer.infer_response.outputs[0].name == "embedding"


@pytest.mark.parametrize(("wanted", "count"), [(True, 1), (False, 0)])
async def test_an_engine_that_ends_empty_gives_an_empty_final_message_where_that_is_wanted(wanted, count):
    request = message("Hi", "stream", id="7")
    request.parameters[EMPTY_FINAL].bool_param = wanted
    async with faces(ScriptedRunner(lambda request: [accepted(), finished(0)])) as served:
        answers = [answer.infer_response for answer in await stream(served, request)]
    assert [(each.id, each.model_name, len(each.outputs)) for each in answers] == [("7", "orca", 0)] * count
    assert all(each.parameters[FINAL].bool_param for each in answers)


async def test_an_engine_that_ends_with_content_gives_no_message_more():
    request = message("Hi", "stream", id="7")
    request.parameters[EMPTY_FINAL].bool_param = True
    async with faces(ScriptedRunner()) as served:
        assert shown(await stream(served, request)) == [("7", "Hello", False), ("7", " there", True)]


async def test_answers_to_several_requests_take_turns_by_id():
    turns = {name: asyncio.Event() for name in ("a1", "a2", "b1")}

    def script(request):
        name = request.prompt.text
        yield accepted()
        if name == "a":
            yield Delta(0, "a1", (1,))
            yield turns["b1"]
            yield Delta(0, "a2", (2,), finish="stop")
        else:
            yield turns["a1"]
            yield Delta(0, "b1", (1,))
            yield turns["a2"]
            yield Delta(0, "b2", (2,), finish="stop")
        yield finished(2)

    seen = []
    async with faces(ScriptedRunner(script)) as served:
        requests = [message(name, "stream", id=name) for name in ("a", "b")]
        async for answer in served.stub.ModelStreamInfer(iter(requests)):
            text = text_of(answer.infer_response)
            seen.append((answer.infer_response.id, text))
            if text in turns:
                turns[text].set()
    assert seen == [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")]


async def test_an_error_is_told_in_band_and_the_stream_stays_open():
    def script(request):
        yield accepted()
        if request.prompt.text == "late":
            yield Delta(0, "x", (1,))
        if request.prompt.text != "good":
            raise GenerationFailed("broken")
        yield Delta(0, "fine", (1,), finish="stop")
        yield finished(1)

    requests: asyncio.Queue[pb.ModelInferRequest | None] = asyncio.Queue()

    async def ask():
        while (request := await requests.get()) is not None:
            yield request

    async with faces(ScriptedRunner(script)) as served:
        call = served.stub.ModelStreamInfer(ask())
        told = []
        for request, count in (
            (message("early", id="1"), 1),
            (message("late", "stream", id="2"), 2),
            (message(model="nope", id="3"), 1),
            (message(model_version="abc", id="4"), 1),
            (message(b"\xff", id="5"), 1),
            (message("good", "stream", id="6"), 1),
        ):
            await requests.put(request)
            told += [await call.read() for _ in range(count)]
        await requests.put(None)
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK
    assert [(answer.infer_response.id, answer.error_message[:40]) for answer in told] == [
        ("1", "broken"),
        ("2", ""),
        ("2", "broken"),
        ("3", "Request for unknown model: 'nope' is not"),
        ("4", "failed to get model version from specifi"),
        ("5", "input 'text_input' is not valid UTF-8: i"),
        ("6", ""),
    ]
    assert all(FINAL in answer.infer_response.parameters for answer in told)
    assert [answer.infer_response.parameters[FINAL].bool_param for answer in told] == [
        True, False, True, True, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (message(id="1"), "UNAVAILABLE", "[request id: 1] Exceeds maximum queue size"),
        (message(model="nope"), "NOT_FOUND", "Request for unknown model: 'nope' is not found"),
    ],
)
async def test_with_real_statuses_an_error_ends_the_stream(request_, code, details):
    async with faces(ScriptedRunner(lambda request: [accepted(), Overloaded("full")])) as served:
        with pytest.raises(grpc.RpcError) as caught:
            await stream(served, request_, metadata=(("triton_grpc_error", "true"),))
    assert (caught.value.code().name, caught.value.details()) == (code, details)


async def test_with_real_statuses_an_error_cancels_the_other_requests():
    never = asyncio.Event()

    def script(request):
        yield accepted()
        if request.prompt.text == "bad":
            raise GenerationFailed("broken")
        yield never

    runner = ScriptedRunner(script)
    async with faces(runner) as served:
        with pytest.raises(grpc.RpcError):
            await stream(served, message("good"), message("bad"), metadata=(("triton_grpc_error", "true"),))
        await asyncio.wait_for(runner.closed.wait(), 10)


async def test_cancelling_the_call_cancels_all_its_work(caplog):
    never = asyncio.Event()
    closed = []

    class Counting(ScriptedRunner):
        async def generate(self, model, request):
            try:
                async for event in super().generate(model, request):
                    yield event
            finally:
                closed.append(request.prompt.text)
                if len(closed) == 2:
                    self.all_closed.set()

    runner = Counting(lambda request: [accepted(), Delta(0, "x", (1,)), never])
    runner.all_closed = asyncio.Event()
    async with faces(runner) as served:
        call = served.stub.ModelStreamInfer(iter([message(name, "stream", id=name) for name in ("a", "b")]))
        await call.read()
        await call.read()
        call.cancel()
        await asyncio.wait_for(runner.all_closed.wait(), 10)
    assert sorted(closed) == ["a", "b"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_stream_without_requests_ends_well():
    async with faces(ScriptedRunner()) as served:
        assert await stream(served) == []


async def test_a_stream_asks_for_a_key():
    async with faces(ScriptedRunner(), AppSettings(api_keys=("secret",))) as served:
        with pytest.raises(grpc.RpcError) as caught:
            await stream(served, message())
        answers = await stream(served, message(), metadata=(("authorization", "Bearer secret"),))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert len(answers) == 1


async def test_when_the_server_ends_open_streams_finish_their_requests_and_then_end():
    going = asyncio.Event()
    script = [accepted(), Delta(0, "a", (1,)), going, Delta(0, "b", (2,), finish="stop"), finished(2)]
    unsent: asyncio.Queue[pb.ModelInferRequest] = asyncio.Queue()

    async def ask():
        yield message("Hi", "stream", id="7")
        yield await unsent.get()  # which never comes: the client holds its stream open

    async with faces(ScriptedRunner(lambda request: script)) as served:
        call = served.stub.ModelStreamInfer(ask())
        first = await call.read()
        served.stop.set()
        await asyncio.sleep(0)
        going.set()
        second = await call.read()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK
        call.cancel()
    assert shown([first, second]) == [("7", "a", False), ("7", "b", True)]


# Health


async def test_health_follows_readiness_whatever_the_service():
    runner = ScriptedRunner()
    statuses = health_pb2.HealthCheckResponse
    async with faces(runner) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", "nope"):
            request = health_pb2.HealthCheckRequest(service=service)
            runner.is_serving = True
            assert (await stub.Check(request)).status == statuses.SERVING
            runner.is_serving = False
            assert (await stub.Check(request)).status == statuses.NOT_SERVING


async def test_a_watch_tells_every_change_and_the_end(monkeypatch):
    monkeypatch.setattr(health, "LOOK_S", 0.01)
    runner = ScriptedRunner()
    statuses = health_pb2.HealthCheckResponse
    async with faces(runner) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == statuses.SERVING
        runner.is_serving = False
        assert (await watching.read()).status == statuses.NOT_SERVING
        runner.is_serving = True
        assert (await watching.read()).status == statuses.SERVING
        served.stop.set()
        assert (await watching.read()).status == statuses.NOT_SERVING
        assert await watching.read() is grpc.aio.EOF


# Official clients


def text_inputs(module, *flags: str):
    text = module.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Hi"], dtype=np.object_))
    inputs = [text]
    for name in flags:
        given = module.InferInput(name, [1], "BOOL")
        given.set_data_from_numpy(np.array([True]))
        inputs.append(given)
    return inputs


async def test_tritonclient_streams_over_grpc():
    def ask(url: str):
        results: queue.SimpleQueue = queue.SimpleQueue()
        with tritonclient.grpc.InferenceServerClient(url) as client:
            client.start_stream(lambda result, error: results.put((result, error)))
            client.async_stream_infer(
                "orca",
                text_inputs(tritonclient.grpc, "stream"),
                request_id="7",
                enable_empty_final_response=True,
            )
            client.async_stream_infer("nope", text_inputs(tritonclient.grpc), request_id="8")
            seen = [results.get(timeout=10) for _ in range(3)]
            client.stop_stream()
        return seen

    async with faces(ScriptedRunner()) as served:
        seen = await asyncio.to_thread(ask, served.grpc_address)
    texts = [result.as_numpy("text_output")[0] for result, error in seen if error is None]
    (failure,) = [error for _, error in seen if error is not None]
    assert texts == [b"Hello", b" there"]
    assert "Request for unknown model: 'nope' is not found" in str(failure)


async def test_tritonclients_asyncio_client_streams_over_grpc():
    async def requests():
        yield {
            "model_name": "orca",
            "inputs": text_inputs(tritonclient.grpc.aio, "stream"),
            "request_id": "7",
            "enable_empty_final_response": True,
        }

    texts = []
    async with (
        faces(ScriptedRunner()) as served,
        tritonclient.grpc.aio.InferenceServerClient(served.grpc_address) as client,
    ):
        async for result, error in client.stream_infer(requests()):
            assert error is None
            texts.append(result.as_numpy("text_output")[0])
    assert texts == [b"Hello", b" there"]


async def test_a_client_that_takes_nothing_is_given_up():
    runner = ScriptedRunner(says(*["x" * 100_000] * 400))
    async with faces(runner, AppSettings(send_timeout_s=0.3)) as served:
        call = served.stub.ModelStreamInfer(iter([message("Hi", "stream")]))
        await asyncio.wait_for(runner.closed.wait(), 10)
        call.cancel()


async def test_a_call_that_its_client_gave_up_is_no_success_in_the_log(caplog):
    caplog.set_level("INFO", "modelyard.grpc")
    runner = ScriptedRunner(lambda request: [accepted(), asyncio.Event()])
    async with faces(runner, AppSettings(access_log=True)) as served:
        call = served.stub.ModelInfer(message("Hi"))
        while not runner.asked:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait_for(runner.closed.wait(), 10)
    assert [record.getMessage().split()[:2] for record in caplog.records] == [["ModelInfer", "CANCELLED"]]
