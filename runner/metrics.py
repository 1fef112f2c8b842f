"""What is measured, in Prometheus' terms. Adapters render it; names begin with `modelyard_`."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runner.tallies import VersionStatistics
from runner.wire.messages import WorkerStats

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
TOKENS = tuple(float(2**power) for power in range(0, 18, 2))
ROWS = tuple(float(2**power) for power in range(9))

LABELS = ("model", "version")


class Metrics:
    """One registry per server; nothing here is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Submission to first token", FIRST_TOKEN_S
        )
        self._token = self._histogram(
            "inter_token_latency_seconds", "Between two events of a stream", TOKEN_S
        )
        self._request = self._histogram("e2e_request_latency_seconds", "Submission to last token", REQUEST_S)
        self._queue = self._histogram("request_queue_time_seconds", "Waiting for a lane", FIRST_TOKEN_S)
        self._prompt_tokens = self._histogram("request_prompt_tokens", "Prompt length", TOKENS)
        self._output_tokens = self._histogram("request_generation_tokens", "Output length", TOKENS)
        self._step = self._histogram("step_seconds", "Engine time of a step", STEP_S)
        self._batch = self._histogram("step_batch_rows", "Sequences in a step", ROWS)
        self._batch_tokens = self._histogram("step_batch_tokens", "Tokens in a step", TOKENS)
        self._requests = self._counter("requests", "Requests by outcome", "outcome")
        self._running = self._gauge("running_sequences", "Sequences in a lane")
        self._waiting = self._gauge("waiting_sequences", "Sequences waiting for a lane")
        self._kv_used = self._gauge("kv_tokens_used", "KV tokens held, shared prefixes once")
        self._kv_total = self._gauge("kv_tokens_total", "KV tokens there are")
        self._cached = self._gauge("cached_lanes", "Idle lanes kept for their prefix")
        self._offloaded = self._gauge("offloaded_bytes", "Prefixes kept in main memory, outside the KV pool")
        self._loaded = self._gauge(
            "model_loaded", "How often the version is loaded: 2 while it is being reloaded"
        )
        self._load = self._gauge("model_load_seconds", "How long the last load took")
        self._steps = self._counter("steps", "Engine steps")
        self._preemptions = self._counter("preemptions", "Sequences put back for want of memory")
        self._hits = self._counter("prefix_hit_tokens", "Prompt tokens taken from the prefix cache")
        self._guessed = self._counter("guessed_tokens", "Tokens guessed by prompt look-up and verified")
        self._right = self._counter("right_guesses", "Guessed tokens that were right")
        self._prompted = self._counter("prompt_tokens", "Prompt tokens computed")
        self._generated = self._counter("generation_tokens", "Tokens generated")
        self._restarts = self._counter("worker_restarts", "Workers started again after a crash")

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def request(self, model: str, version: int) -> "RequestObserver":
        """Measures of one request."""
        labels = (model, str(version))
        return RequestObserver(
            first_token=self._first_token.labels(*labels).observe,
            token=self._token.labels(*labels).observe,
            request=self._request.labels(*labels).observe,
            queue=self._queue.labels(*labels).observe,
            prompt_tokens=self._prompt_tokens.labels(*labels).observe,
            output_tokens=self._output_tokens.labels(*labels).observe,
            outcome=lambda outcome: self._requests.labels(*labels, outcome).inc(),
        )

    def loaded(self, model: str, version: int, load_s: float) -> None:
        self._loaded.labels(model, str(version)).inc()
        self._load.labels(model, str(version)).set(load_s)

    def unloaded(self, model: str, version: int) -> None:
        self._loaded.labels(model, str(version)).dec()

    def restart_counter(self, model: str, version: int) -> Callable[[], None]:
        return self._restarts.labels(model, str(version)).inc

    def worker_observer(self, statistics: VersionStatistics) -> "WorkerObserver":
        """Takes what the workers of one load report, and hands it on to the version's `statistics`."""
        labels = (statistics.model, str(statistics.version))
        return WorkerObserver(
            gauges=[
                (self._running.labels(*labels), "running"),
                (self._waiting.labels(*labels), "waiting"),
                (self._kv_used.labels(*labels), "kv_tokens_used"),
                (self._kv_total.labels(*labels), "kv_tokens_total"),
                (self._cached.labels(*labels), "lanes_cached"),
                (self._offloaded.labels(*labels), "offloaded_bytes"),
            ],
            counters=[
                (self._steps.labels(*labels), "steps_total"),
                (self._preemptions.labels(*labels), "preemptions_total"),
                (self._hits.labels(*labels), "prefix_hit_tokens_total"),
                (self._prompted.labels(*labels), "prompt_tokens_total"),
                (self._generated.labels(*labels), "generated_tokens_total"),
                (self._guessed.labels(*labels), "guessed_tokens_total"),
                (self._right.labels(*labels), "right_guesses_total"),
            ],
            step=self._step.labels(*labels).observe,
            rows=self._batch.labels(*labels).observe,
            tokens=self._batch_tokens.labels(*labels).observe,
            statistics=statistics,
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"modelyard_{name}", text, LABELS, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return Counter(f"modelyard_{name}", text, (*LABELS, *more), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"modelyard_{name}", text, LABELS, registry=self.registry)


class WorkerObserver:
    """Adds up what workers report: a gauge is the sum over all workers of a version, old loads included."""

    def __init__(
        self,
        *,
        gauges: list[tuple[Gauge, str]],
        counters: list[tuple[Counter, str]],
        step: Callable[[float], None],
        rows: Callable[[float], None],
        tokens: Callable[[float], None],
        statistics: VersionStatistics,
    ) -> None:
        self._gauges = gauges
        self._counters = counters
        self._step = step
        self._rows = rows
        self._tokens = tokens
        self._statistics = statistics
        self._latest: dict[object, WorkerStats] = {}

    def __call__(self, worker: object, stats: WorkerStats) -> None:
        """`stats` is the newest of `worker`."""
        before = self._latest.get(worker, WorkerStats())
        self._latest[worker] = stats
        self._move_gauges(before, stats)
        self._statistics.stepped(before, stats)
        for counter, field in self._counters:
            gained = getattr(stats, field) - getattr(before, field)
            if gained:
                counter.inc(gained)
        if stats.step_rows:
            self._step(stats.step_s)
            self._rows(stats.step_rows)
            self._tokens(stats.step_tokens)

    def forget(self, worker: object) -> None:
        """`worker` has ended; its totals begin anew should it come back."""
        last = self._latest.pop(worker, WorkerStats())
        self._move_gauges(last, WorkerStats())
        self._statistics.left(last)

    def _move_gauges(self, before: WorkerStats, after: WorkerStats) -> None:
        for gauge, field in self._gauges:
            change = getattr(after, field) - getattr(before, field)
            if change:
                gauge.inc(change)


class RequestObserver:
    """The histograms of one model's requests, labels already bound: it is called once per token. `outcome`: the
    request ended as "success", "cancelled" or with the error of that name."""

    __slots__ = ("first_token", "outcome", "output_tokens", "prompt_tokens", "queue", "request", "token")

    def __init__(self, **observers: Callable[[Any], None]) -> None:
        for name, observe in observers.items():
            setattr(self, name, observe)

    first_token: Callable[[float], None]
    outcome: Callable[[str], None]
    token: Callable[[float], None]
    request: Callable[[float], None]
    queue: Callable[[float], None]
    prompt_tokens: Callable[[float], None]
    output_tokens: Callable[[float], None]
