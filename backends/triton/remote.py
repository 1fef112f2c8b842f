"""The connection to the other server: what it says of the model, one stream per request, and what its errors mean."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import msgspec
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from backends.contract import EngineError, LoadError, UnavailableError, UnsupportedError
from backends.triton.options import Options
from backends.triton.tensors import Declared, declared

DESCRIBE_S = 120.0
"""How long the server may take to describe the model, which it may have to load for that."""

LATE_S = 2.0
"""The server's own deadline is later than ours by this, so that ours is what the caller hears of."""

CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A peer that has gone without a word is noticed while a request waits for it. More pings than one in five
    # minutes make a server that is silent, over a long prompt say, end the connection.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that comes back is found soon; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
BUSY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.CANCELLED,  # by the server, which ends
    }
)
REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
UNKNOWN_MODEL = "Request for unknown model"


class Description(msgspec.Struct, frozen=True):
    """A model as its server describes it. Without `streams` it gives one answer to a request."""

    inputs: dict[str, Declared]
    outputs: frozenset[str]
    streams: bool


class Remote:
    """One model of the other server. `describe` may be called from any thread, `stream` from one event loop."""

    def __init__(self, model: str, options: Options) -> None:
        self.model = model
        self._options = options
        self._channel: grpc.aio.Channel | None = None

    def describe(self) -> Description:
        """Ask what the model is. Raises UnavailableError where the server or the model is not there now, LoadError
        where they refuse."""
        options = self._options
        with self._connect() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            self._wait_until_live(stub)
            given = {"timeout": DESCRIBE_S, "metadata": options.metadata}
            try:
                metadata = stub.ModelMetadata(
                    pb.ModelMetadataRequest(name=self.model, version=options.version), **given
                )
                config = stub.ModelConfig(
                    pb.ModelConfigRequest(name=self.model, version=options.version), **given
                ).config
            except grpc.RpcError as error:
                words = (
                    f"the server at {options.endpoint} cannot serve model {self.model!r}: {_details(error)}"
                )
                raise _not_described(error, words) from error
        return Description(
            declared(metadata.inputs),
            frozenset(output.name for output in metadata.outputs),
            config.model_transaction_policy.decoupled,
        )

    def _wait_until_live(self, stub: Any) -> None:
        options = self._options
        try:
            stub.ServerLive(
                pb.ServerLiveRequest(),
                timeout=options.connect_timeout_s,
                metadata=options.metadata,
                wait_for_ready=True,
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                words = f"the server at {options.endpoint} answers: {_details(error)}"
                raise _not_described(error, words) from error
            raise UnavailableError(
                f"no server answers at {options.endpoint} within {options.connect_timeout_s:g} s; start it, or "
                "correct `endpoint`, which must name a gRPC port"
            ) from error

    async def stream(
        self, request: pb.ModelInferRequest, *, timeout_s: float | None
    ) -> AsyncIterator[pb.ModelInferResponse]:
        """The answers to one request. Closing the iterator cancels the request there.

        Raises UnavailableError, UnsupportedError or EngineError with the server's words.
        """
        options = self._options
        request.model_name, request.model_version = self.model, options.version
        call = service_pb2_grpc.GRPCInferenceServiceStub(self._open()).ModelStreamInfer(
            _only(request),
            metadata=(*options.metadata, ("triton_grpc_error", "true")),
            timeout=timeout_s + LATE_S if timeout_s is not None else None,
        )
        try:
            async for message in call:
                if message.error_message:
                    raise self._refused(message.error_message)
                yield message.infer_response
        except grpc.RpcError as error:
            raise self._failed(error) from error
        finally:
            call.cancel()

    def _open(self) -> grpc.aio.Channel:
        """The channel of this event loop, made when first needed. It connects anew by itself."""
        if self._channel is None:
            options = self._options
            if options.is_secure:
                self._channel = grpc.aio.secure_channel(
                    options.target, grpc.ssl_channel_credentials(), options=CHANNEL
                )
            else:
                self._channel = grpc.aio.insecure_channel(options.target, options=CHANNEL)
        return self._channel

    def _connect(self) -> grpc.Channel:
        options = self._options
        if options.is_secure:
            return grpc.secure_channel(options.target, grpc.ssl_channel_credentials(), options=CHANNEL)
        return grpc.insecure_channel(options.target, options=CHANNEL)

    def _refused(self, message: str) -> EngineError:
        kind = UnavailableError if message.startswith(UNKNOWN_MODEL) else EngineError
        return kind(f"the server at {self._options.endpoint} answers: {message}")

    def _failed(self, error: grpc.RpcError) -> EngineError:
        code, details = error.code(), _details(error)
        if code in BUSY:
            return UnavailableError(f"the server at {self._options.endpoint} does not answer now: {details}")
        if code in REFUSED:
            return UnsupportedError(f"the server at {self._options.endpoint} refuses this: {details}")
        return EngineError(f"the server at {self._options.endpoint} failed ({code.name}): {details}")


async def _only(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    yield request


def _not_described(error: Any, words: str) -> EngineError:
    may_pass = error.code() in BUSY or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return UnavailableError(words) if may_pass else LoadError(words)


def _details(error: Any) -> str:
    return str(error.details() or error.code().name)
