"""The gRPC server: its port, its limits and its end. Import it only where gRPC is served: that takes time."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

from adapters.keys import KeyRing
from adapters.kserve.face import KServe
from adapters.kserve.over_grpc.calls import Access
from adapters.kserve.over_grpc.health import HealthService
from adapters.kserve.over_grpc.service import InferenceService
from adapters.listener import listen
from adapters.settings import AppSettings

INT32_MAX = 2**31 - 1
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share its calls
    ("grpc.max_receive_message_length", INT32_MAX),
    ("grpc.max_send_message_length", INT32_MAX),
)


class GrpcServer:
    """Make it in a running loop: `port` is taken then, 0 for any. Calls are answered from `serve` on. Raises OSError
    and KeyFileError."""

    def __init__(self, kserve: KServe, settings: AppSettings, *, host: str, port: int) -> None:
        self._stopping = asyncio.Event()
        self._server = grpc.aio.server(options=_OPTIONS)
        access = Access(KeyRing(settings.api_keys, settings.api_key_file), log=settings.access_log)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(kserve, access, stopping=self._stopping, send_timeout_s=settings.send_timeout_s),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(
            HealthService(kserve.runner, access, stopping=self._stopping), self._server
        )
        if port:
            listen(host, port).close()  # gRPC does not say why it cannot
        try:
            self.port: int = self._server.add_insecure_port(_address(host, port))
        except RuntimeError as error:
            raise OSError(str(error)) from None

    async def serve(self, *, stop: asyncio.Event, grace_s: float) -> None:
        """Answer calls until `stop` is set; running ones then have `grace_s` to finish, and no new ones are taken."""
        await self._server.start()
        try:
            await stop.wait()
        finally:
            self._stopping.set()
            await self._server.stop(grace_s)


def _address(host: str, port: int) -> str:
    shown = host or "[::]"
    return f"[{shown}]:{port}" if ":" in shown and not shown.startswith("[") else f"{shown}:{port}"
