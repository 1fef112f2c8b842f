"""How a repository is served, as values."""

from pathlib import Path

import msgspec


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is served. Control modes: on-demand, none, poll, explicit. Times in seconds.

    `drain_s`: what running requests have when the server ends. `stuck_s`: a worker that says nothing for so long is
    not waited for when its version is unloaded. `allow_pull`: a request may name a model on the hub, which is fetched
    if that leaves `keep_free_bytes` free on the disk.
    """

    repository: Path
    state_dir: Path
    control_mode: str = "on-demand"
    load_models: tuple[str, ...] = ()
    memory_budget_bytes: int | None = None
    ready_means: str = "loadable"
    single_model_fallback: str = "always"
    poll_s: float = 2.0
    drain_s: float = 30.0
    stuck_s: float = 300.0
    cores: int | None = None
    allow_remote_code: bool = False
    allow_pull: bool = False
    keep_free_bytes: int = 10 * 2**30
