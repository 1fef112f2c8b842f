"""ModelStreamInfer: many requests on one stream, whose answers take turns.

Owns the tasks of one call. An error of a request is told in its answer and leaves the others alone, unless the
client wants real statuses; when the client leaves, all work is cancelled.
"""

import asyncio
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2

from adapters.asgi import closing
from adapters.keys import ApiKey
from adapters.kserve.errors import Code, KServeError
from adapters.kserve.inference import Inference
from adapters.kserve.naming import version_number
from adapters.kserve.over_grpc.calls import as_told
from adapters.kserve.over_grpc.values import error_message, read_request, response_message

REAL_STATUSES = "triton_grpc_error"
_WAITING = 64


class InferStream:
    """`stopping`: set when the server ends; the stream then takes no further request and ends after its last one. So it
    does when the client takes nothing of what is sent for `send_timeout_s`."""

    def __init__(
        self,
        inference: Inference,
        context: Any,
        key: ApiKey | None,
        *,
        stopping: asyncio.Event,
        send_timeout_s: float,
    ) -> None:
        self._inference = inference
        self._context = context
        self._key = key
        self._stopping = stopping
        self._send_timeout_s = send_timeout_s
        self._has_real_statuses = wants_real_statuses(context)
        self._answers: asyncio.Queue[Any] = asyncio.Queue(_WAITING)

    async def run(self) -> None:
        """Returns when all requests are answered. Raises KServeError where the call is to end with one."""
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            try:
                failure = await self._write()
            except TimeoutError:
                failure = KServeError(
                    Code.UNAVAILABLE, f"the client took no answer for {self._send_timeout_s:g} s"
                )
            reading.cancel()
        if failure is not None:
            raise failure

    async def _write(self) -> Exception | None:
        """Send the answers until there are no more, or one is the error that ends the call. Raises TimeoutError."""
        time = asyncio.get_running_loop().time
        async with asyncio.timeout(None) as limit:
            while (message := await self._answers.get()) is not None:
                if isinstance(message, Exception):
                    return message
                limit.reschedule(time() + self._send_timeout_s)
                await self._context.write(message)
                limit.reschedule(None)
        return None

    async def _read(self) -> None:
        """Answer every request that comes, each in a task of its own, until no more come or the server ends."""
        async with asyncio.TaskGroup() as running:
            taking = running.create_task(self._take(running))
            stopping = running.create_task(self._stopping.wait())
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            stopping.cancel()
        await self._answers.put(None)

    async def _take(self, running: asyncio.TaskGroup) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            running.create_task(self._answer(message))

    async def _answer(self, message: Any) -> None:
        try:
            version = version_number(message.model_version)
            name = self._inference.resolve(message.model_name, version, self._key)
            target = await self._inference.target(name)
            asked = read_request(message, target.model)
            async with closing(self._inference.responses(target, asked.request)) as answers:
                async for answer in answers:
                    if answer.is_empty and not asked.wants_empty_final:
                        continue
                    response = response_message(answer, with_final=True)
                    await self._answers.put(service_pb2.ModelStreamInferResponse(infer_response=response))
        except Exception as error:
            told = as_told(error)
            await self._answers.put(told if self._has_real_statuses else error_message(told.message, message))


def wants_real_statuses(context: Any) -> bool:
    """Whether the client asks that an error ends the call with its status."""
    for name, value in context.invocation_metadata() or ():
        if name == REAL_STATUSES:
            return str(value).lower() == "true"
    return False
