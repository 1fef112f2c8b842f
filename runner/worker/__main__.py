"""`python -I -m runner.worker FD [NAME]`: one model instance. FD is this process's end of a socketpair.
(`--describe NAME...` tells instead what this Python has of the backends.)

Threads: a reader takes frames and notices the server's end; an intake thread renders and tokenises; a grammar
thread, once it is needed, compiles; the main thread loads the engine and runs it. Nothing but frames goes over the
socket; stdout and stderr are the log.
"""

import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends.contract import Engine, EngineError, EngineInfo, StepEngine, StreamEngine, UnavailableError
from runner.errors import RunnerError, UnsupportedFeature
from runner.wire.frames import ProtocolError, worker_decoder
from runner.wire.messages import (
    PROTOCOL,
    Cancel,
    Detokenize,
    Detokenized,
    Embed,
    Loading,
    LoadRefused,
    Ready,
    ResetCache,
    Start,
    Stop,
    Submit,
    Tokenize,
    ToWorker,
)
from runner.wire.requests import GenerateRequest, TextPrompt
from runner.worker.admission import Admission, refusal
from runner.worker.chat import TemplateError
from runner.worker.intake import Intake
from runner.worker.step_loop import StepLoop
from runner.worker.stream_loop import StreamLoop
from runner.worker.turned_away import check_embeds
from runner.worker.writer import FrameWriter

if TYPE_CHECKING:
    from runner.worker.grammar.compiler import GrammarCompiler

logger = logging.getLogger("runner.worker")

RECEIVE_BYTES = 1 << 18
WARM_UP_TOKENS = 8


class Worker:
    """Composes reader, intake, engine and loop."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._writer = FrameWriter(connection)
        self._incoming: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._loop: StepLoop | StreamLoop | None = None

    def run(self) -> int:
        """Load, serve until told to stop; returns the exit status."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        start = self._incoming.get()
        if not isinstance(start, Start):
            raise ProtocolError("the first frame must be a Start")
        if start.protocol != PROTOCOL:
            return self._refuse(
                f"the worker speaks protocol {PROTOCOL}, this server {start.protocol}; "
                f"run `modelyard env create {Path(sys.prefix).name} --refresh`"
            )
        began = time.monotonic()
        try:
            engine = _engine(start)
            info = _usable(engine.load(start.load, lambda fraction: self._writer.send([Loading(fraction)])))
            loop = self._make_loop(engine, info, start)
            intake = Intake(engine, info, start, clock=time.monotonic)
            for text in start.warmup:
                self._warm_up(loop, intake, text)
        except (EngineError, TemplateError, RunnerError) as error:
            logger.error("load failed: %s", error)
            return self._refuse(str(error), may_pass=isinstance(error, UnavailableError))
        except MemoryError:
            return self._refuse("there is not enough memory to load the weights")
        except Exception as error:
            logger.exception("load failed")
            return self._refuse(f"{type(error).__name__}: {error}")
        self._loop = loop
        self._writer.send([Ready(protocol=PROTOCOL, info=info, load_s=time.monotonic() - began)])
        admission = Admission(
            intake,
            loop,
            limits=start.limits,
            sender=self._writer,
            make_compiler=lambda: _grammar_compiler(engine, info),
        )
        taking_in = (intake, admission, loop, start)
        threading.Thread(target=self._take_in, args=taking_in, name="intake", daemon=True).start()
        try:
            if not loop.run():
                return 1  # an engine that broke is not to be trusted with its own end
            engine.unload()
            return 0
        finally:
            self._writer.close()

    def _make_loop(self, engine: Engine, info: EngineInfo, start: Start) -> StepLoop | StreamLoop:
        match engine:
            case StepEngine():
                return StepLoop(engine, info, start.limits, sender=self._writer, clock=time.monotonic)
            case StreamEngine():
                return StreamLoop(engine, info, start.limits, sender=self._writer)
        raise EngineError(f"{start.engine} is neither a StepEngine nor a StreamEngine")

    def _warm_up(self, loop: StepLoop | StreamLoop, intake: Intake, text: str) -> None:
        request = GenerateRequest(prompt=TextPrompt(text), max_tokens=WARM_UP_TOKENS)
        job = intake.job(0, request)
        if isinstance(loop, StepLoop):
            loop.warm_up(job, intake.sequences(job))
        else:
            loop.warm_up(job, intake.engine_requests(job))

    def _refuse(self, reason: str, *, may_pass: bool = False) -> int:
        self._writer.send([LoadRefused(reason, may_pass)])
        self._writer.close()
        return 1

    def _read(self) -> None:
        """Pass messages on. When the server is gone, or this thread cannot go on for whatever reason, end this
        process and all it has started."""
        decoder = worker_decoder()
        try:
            while data := self._socket.recv(RECEIVE_BYTES):
                for message in decoder.feed(data):
                    if isinstance(message, Stop):
                        self._stop()
                    else:
                        self._incoming.put(message)
        except Exception:
            logger.exception("the connection to the server failed")
        finally:
            os.killpg(0, signal.SIGKILL)

    def _stop(self) -> None:
        if self._loop is None:
            os.killpg(0, signal.SIGKILL)  # still loading: nothing is worth keeping
        else:
            self._loop.stop()

    def _take_in(
        self, intake: Intake, admission: Admission, loop: StepLoop | StreamLoop, start: Start
    ) -> None:
        while True:
            message = self._incoming.get()
            if loop.is_broken:
                return  # not accepted: the server asks this worker's successor
            call = getattr(message, "call", 0)
            try:
                self._handle(message, intake, admission, loop, start)
            except Exception as error:
                self._writer.send([refusal(call, error)])

    def _handle(
        self,
        message: ToWorker,
        intake: Intake,
        admission: Admission,
        loop: StepLoop | StreamLoop,
        start: Start,
    ) -> None:
        match message:
            case Submit(call, request):
                admission.submit(call, request)
            case Cancel(call):
                admission.cancel(call)
            case Tokenize():
                self._writer.send([intake.prompts.tokenized(message)])
            case Detokenize(call, tokens):
                self._writer.send([Detokenized(call, intake.prompts.detokenize(tokens))])
            case Embed(call, prompts, dimensions):
                check_embeds(start.limits, loop.num_embeds)
                batch = intake.prompts.embed_batch(prompts, dimensions=dimensions)
                loop.embed(call, batch, dimensions=dimensions)
            case ResetCache(call):
                loop.reset_cache(call)
            case _:
                raise UnsupportedFeature(f"this worker does not know {type(message).__name__}")


def _engine(start: Start) -> Engine:
    module_name, _, class_name = start.engine.partition(":")
    try:
        engine_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"the engine {start.engine} cannot be imported: {error}") from error
    engine = engine_class()
    if not isinstance(engine, Engine):
        raise EngineError(f"{start.engine} is not an Engine")
    return engine


def _grammar_compiler(engine: Engine, info: EngineInfo) -> "GrammarCompiler":
    """Made when the first grammar is asked for: many workers never need the library."""
    try:
        from runner.worker.grammar.compiler import GrammarCompiler
    except ImportError as error:
        raise UnsupportedFeature(
            "structured output needs llguidance, which is not installed in the environment of this model's engine"
        ) from error
    return GrammarCompiler(engine, info)


def _usable(info: EngineInfo) -> EngineInfo:
    """A sequence must fit the KV pool alone, however long the engine would let it become."""
    if not info.kv_tokens:
        return info  # a pool of the engine's own
    return msgspec.structs.replace(info, context_tokens=min(info.context_tokens, info.kv_tokens))


def main() -> int:
    """Entry point. The server decides when a worker ends: signals meant for a terminal's group are ignored."""
    if sys.argv[1].startswith("--describe"):
        from backends.registry import Registry
        from runner.worker.describe import print_description

        print_description(Registry(), sys.argv[2:], with_probes=sys.argv[1] == "--describe")
    if os.getpgrp() != os.getpid():
        os.setsid()  # ending this process ends its group, which must not be the starter's
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    sys.exit(main())
