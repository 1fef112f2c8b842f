"""What a server is told at its start, as values. Reading flags is the command line's business."""

from pathlib import Path

import msgspec


class AppSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the HTTP application behaves. Times in seconds, sizes in bytes.

    `keepalive_s`: after so long without output a stream sends a comment. `api_keys`: none means that
    everybody may ask, and that a bearer token may name a model.
    """

    version: str = "0+unknown"
    api_keys: tuple[str, ...] = ()
    body_limit_bytes: int = 10_000_000
    body_timeout_s: float = 60
    keepalive_s: float = 10
    send_timeout_s: float = 60
    access_log: bool = False


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that `modelyard serve` composes a server from."""

    repository: Path
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    control_mode: str = "on-demand"
    load_models: tuple[str, ...] = ()
    memory_budget_bytes: int | None = None
    ready_means: str = "loadable"
    single_model_fallback: str = "always"
    poll_s: float = 2.0
    drain_s: float = 30.0
    log_format: str = "text"
    app: AppSettings = AppSettings()
