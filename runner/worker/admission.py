"""From a request that came in to its place in the loop. One whose output is bound to a grammar waits here until
that is compiled, and holds up nobody.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import InvalidRequest, RunnerError
from runner.wire.messages import CallAccepted, CallFailed, SchedulerLimits
from runner.wire.requests import GenerateRequest
from runner.worker.answers import Sender
from runner.worker.grammar.forms import GrammarError
from runner.worker.intake import Intake, bound_by
from runner.worker.jobs import Job
from runner.worker.step_loop import StepLoop
from runner.worker.stream_loop import StreamLoop
from runner.worker.turned_away import check_queue

if TYPE_CHECKING:
    from runner.worker.grammar.compiler import GrammarCompiler
    from runner.worker.grammar.matcher import Grammar

logger = logging.getLogger(__name__)


class Compiling(NamedTuple):
    """A call that waits for its grammar."""

    request: GenerateRequest
    grammar: "Future[Grammar]"


class Admission:
    """Its public methods are for one thread; grammars come from another."""

    def __init__(
        self,
        intake: Intake,
        loop: StepLoop | StreamLoop,
        *,
        limits: SchedulerLimits,
        sender: Sender,
        make_compiler: Callable[[], "GrammarCompiler"],
    ) -> None:
        self._intake = intake
        self._loop = loop
        self._limits = limits
        self._sender = sender
        self._make_compiler = make_compiler
        self._compiler: GrammarCompiler | None = None
        # A call leaves here and enters the loop in one go, so that a Cancel meets it in one of the two.
        self._lock = threading.Lock()
        self._compiling: dict[int, Compiling] = {}

    def submit(self, call: int, request: GenerateRequest) -> None:
        """Accept the call, now or when its grammar is there. Raises RunnerError where it is turned away."""
        self._check_queue(request.priority)
        job = self._intake.job(call, request)
        form = self._intake.form(job)
        if form is None:
            self._accept(job, None)
            return
        if self._compiler is None:
            self._compiler = self._make_compiler()
        future = self._compiler.compile(form)
        self._compiling[call] = Compiling(request, future)
        future.add_done_callback(lambda future: self._settle(job, future))

    def cancel(self, call: int) -> None:
        """Withdraw the call, wherever it is."""
        with self._lock:
            compiling = self._compiling.pop(call, None)
        if compiling is not None:
            compiling.grammar.cancel()
        self._loop.cancel(call)

    def _check_queue(self, level: int) -> None:
        compiling = [one.request for one in self._compiling.copy().values()]
        here = sum(request.n for request in compiling if request.priority == level)
        check_queue(
            self._limits,
            level,
            ahead=self._ahead + sum(request.n for request in compiling),
            waiting=self._loop.num_waiting(level) + here,
        )

    @property
    def _ahead(self) -> int:
        """Sequences that no lane is free for; below zero, so many lanes are free."""
        return self._loop.num_sequences - self._loop.num_lanes

    def _settle(self, job: Job, future: "Future[Grammar]") -> None:
        with self._lock:
            # A loop that broke has failed its calls. This one was not accepted: the server asks another worker.
            if self._compiling.pop(job.call, None) is None or self._loop.is_broken:
                return
            try:
                self._accept(job, _grammar(future, param=bound_by(job.request)))
            except Exception as error:
                self._sender.send([refusal(job.call, error)])

    def _accept(self, job: Job, grammar: "Grammar | None") -> None:
        accepted = CallAccepted(
            job.call, len(job.prompt), max(0, self._ahead), self._intake.idle(job.request)
        )
        if isinstance(self._loop, StepLoop):
            sequences = self._intake.sequences(job, grammar)
            self._sender.send([accepted])
            self._loop.submit(job, sequences)
        else:
            requests = self._intake.engine_requests(job)
            self._sender.send([accepted])
            self._loop.submit(job, requests)


def refusal(call: int, error: Exception) -> CallFailed:
    """The message that turns a call away."""
    if isinstance(error, RecursionError):
        error = InvalidRequest("the request is nested too deeply")
    if not isinstance(error, RunnerError):
        logger.error("a request could not be taken in", exc_info=error)
        error = RunnerError(f"the request could not be taken in: {error or type(error).__name__}")
    return CallFailed(call, error.to_wire())


def _grammar(future: "Future[Grammar]", *, param: str) -> "Grammar":
    try:
        return future.result()
    except GrammarError as error:
        raise InvalidRequest(f"`{param}` cannot be used: {error}", param=param) from error
