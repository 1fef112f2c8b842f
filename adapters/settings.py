"""What a server is told at its start, as values. Reading flags is the command line's business."""

import msgspec

from runner.settings import RunnerSettings


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

    runner: RunnerSettings
    host: str = "127.0.0.1"
    port: int = 8080
    log_format: str = "text"
    app: AppSettings = AppSettings()
