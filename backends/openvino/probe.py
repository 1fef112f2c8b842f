"""What this Python environment has of OpenVINO: its version, and the devices that it could compute on."""

from importlib.metadata import PackageNotFoundError, version

from backends.contract import Probe

REMEDY = "run `modelyard env create openvino`"


def probe() -> Probe:
    """Called only where OpenVINO may be installed."""
    try:
        engine = engine_version()
        import openvino_genai  # noqa: F401  what is installed may not load
        from openvino import Core
    except (ImportError, PackageNotFoundError) as error:
        return Probe(problem=f"OpenVINO cannot be used here: {error}; {REMEDY}")
    try:
        return Probe(engine=engine, devices=tuple(Core().available_devices))
    except RuntimeError as error:  # a driver that does not answer
        return Probe(engine=engine, problem=f"OpenVINO cannot list its devices: {error}")


def engine_version() -> str:
    """As a bug report needs it."""
    return f"openvino-genai {version('openvino-genai')}"
