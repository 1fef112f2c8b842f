"""The methods of `inference.GRPCInferenceService`."""

import asyncio
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from adapters.kserve.access import check_admin, check_model
from adapters.kserve.errors import Code, KServeError, invalid, unsupported
from adapters.kserve.face import KServe
from adapters.kserve.models import known_model
from adapters.kserve.naming import name_of, version_number
from adapters.kserve.over_grpc.calls import Access, Call, call
from adapters.kserve.over_grpc.stream import InferStream
from adapters.kserve.over_grpc.values import read_request, response_message
from adapters.kserve.repository import CONFIG, FILE_PREFIX, no_repository

_SEVERAL = KServeError(
    Code.UNIMPLEMENTED, "ModelInfer RPC doesn't support models with decoupled transaction policy"
)
_NO_MEMORY = "shared memory is not supported by this server; send tensors in the messages"


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(
        self, kserve: KServe, access: Access, *, stopping: asyncio.Event, send_timeout_s: float
    ) -> None:
        self.access = access
        self._kserve = kserve
        self._runner = kserve.runner
        self._stopping = stopping
        self._send_timeout_s = send_timeout_s

    # The server

    @call(needs="nothing")
    async def ServerLive(self, request: Any, call: Call) -> Any:
        return service_pb2.ServerLiveResponse(live=self._runner.is_live())

    @call(needs="nothing")
    async def ServerReady(self, request: Any, call: Call) -> Any:
        return service_pb2.ServerReadyResponse(ready=self._runner.is_ready())

    @call()
    async def ServerMetadata(self, request: Any, call: Call) -> Any:
        return service_pb2.ServerMetadataResponse(**self._kserve.models.server())

    # Models

    @call()
    async def ModelReady(self, request: Any, call: Call) -> Any:
        version = version_number(request.version)
        ready = self._kserve.models.is_ready(request.name, version, call.key)
        return service_pb2.ModelReadyResponse(ready=ready)

    @call()
    async def ModelMetadata(self, request: Any, call: Call) -> Any:
        version = version_number(request.version)
        body = await self._kserve.models.metadata(request.name, version, call.key)
        return json_format.ParseDict(body, service_pb2.ModelMetadataResponse())

    @call()
    async def ModelConfig(self, request: Any, call: Call) -> Any:
        version = version_number(request.version)
        body = await self._kserve.models.config(request.name, version, call.key)
        config = json_format.ParseDict(body, model_config_pb2.ModelConfig())
        return service_pb2.ModelConfigResponse(config=config)

    @call()
    async def ModelStatistics(self, request: Any, call: Call) -> Any:
        version = version_number(request.version)
        body = self._kserve.models.statistics(request.name or None, version, call.key)
        return json_format.ParseDict(body, service_pb2.ModelStatisticsResponse())

    # Inference

    @call()
    async def ModelInfer(self, request: Any, call: Call) -> Any:
        version = version_number(request.model_version)
        inference = self._kserve.inference
        target = await inference.target(inference.resolve(request.model_name, version, call.key))
        asked = read_request(request, target.model).request
        answer = await inference.response(target, asked, if_several=_SEVERAL)
        return response_message(answer, with_final=False)

    @call()
    async def ModelStreamInfer(self, requests: Any, call: Call) -> None:
        stream = InferStream(
            self._kserve.inference,
            call.context,
            call.key,
            stopping=self._stopping,
            send_timeout_s=self._send_timeout_s,
        )
        await stream.run()

    # The repository

    @call()
    async def RepositoryIndex(self, request: Any, call: Call) -> Any:
        _check_repository(request)
        entries = self._kserve.repository.index(only_ready=request.ready, key=call.key)
        return json_format.ParseDict({"models": entries}, service_pb2.RepositoryIndexResponse())

    @call(needs="admin")
    async def RepositoryModelLoad(self, request: Any, call: Call) -> Any:
        _check_repository(request)
        config: str | None = None
        files: dict[str, bytes] = {}
        for name, value in request.parameters.items():
            kind = value.WhichOneof("parameter_choice")
            if name == CONFIG:
                _check_kind(name, kind, "string_param")
                config = value.string_param
            elif name.startswith(FILE_PREFIX):
                _check_kind(name, kind, "bytes_param")
                files[name.removeprefix(FILE_PREFIX)] = value.bytes_param
            else:
                raise invalid(f"unrecognized load parameter '{name}'.")
        await self._kserve.repository.load(request.model_name, config=config, files=files)
        return service_pb2.RepositoryModelLoadResponse()

    @call(needs="admin")
    async def RepositoryModelUnload(self, request: Any, call: Call) -> Any:
        _check_repository(request)
        for name, value in request.parameters.items():
            if name != "unload_dependents":
                raise invalid(f"unrecognized unload parameter '{name}'.")
            if value.WhichOneof("parameter_choice") != "bool_param":
                raise invalid("invalid value type for 'unload_dependents' parameter, expected bool_param.")
        await self._kserve.repository.unload(request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    # Settings

    @call()
    async def LogSettings(self, request: Any, call: Call) -> Any:
        if request.settings:
            check_admin(call.key, "Changing log settings")
            change = {}
            for name, value in request.settings.items():
                kind = value.WhichOneof("parameter_choice")
                change[name] = None if kind is None else getattr(value, kind)
            self._kserve.logs.change(change)
        response = service_pb2.LogSettingsResponse()
        for name, value in self._kserve.logs.shown().items():
            kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
            setattr(response.settings[name], kinds[type(value)], value)
        return response

    @call()
    async def TraceSetting(self, request: Any, call: Call) -> Any:
        model = None
        if request.model_name:
            model = known_model(self._runner, request.model_name)
            check_model(call.key, name_of(model, None), self._runner)
        if request.settings:
            check_admin(call.key, "Changing trace settings")
            change = {name: list(given.value) or None for name, given in request.settings.items()}
            self._kserve.tracer.change(change, model)
        response = service_pb2.TraceSettingResponse()
        for name, values in self._kserve.tracer.settings(model).shown().items():
            response.settings[name].value.extend(values)
        return response

    # Shared memory, which there is none of

    @call()
    async def SystemSharedMemoryStatus(self, request: Any, call: Call) -> Any:
        _check_region(request)
        return service_pb2.SystemSharedMemoryStatusResponse()

    @call()
    async def CudaSharedMemoryStatus(self, request: Any, call: Call) -> Any:
        _check_region(request)
        return service_pb2.CudaSharedMemoryStatusResponse()

    @call()
    async def SystemSharedMemoryRegister(self, request: Any, call: Call) -> Any:
        raise unsupported(_NO_MEMORY)

    @call()
    async def SystemSharedMemoryUnregister(self, request: Any, call: Call) -> Any:
        raise unsupported(_NO_MEMORY)

    @call()
    async def CudaSharedMemoryRegister(self, request: Any, call: Call) -> Any:
        raise unsupported(_NO_MEMORY)

    @call()
    async def CudaSharedMemoryUnregister(self, request: Any, call: Call) -> Any:
        raise unsupported(_NO_MEMORY)


def _check_repository(request: Any) -> None:
    if request.repository_name:
        raise no_repository()


def _check_kind(name: str, kind: str | None, expected: str) -> None:
    if kind != expected:
        raise invalid(f"invalid value type for load parameter '{name}', expected {expected}.")


def _check_region(request: Any) -> None:
    if request.name:
        raise unsupported(_NO_MEMORY)
