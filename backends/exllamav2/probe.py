"""What this Python environment has of exllamav2, without importing it: that would compile its extension."""

from backends.contract import LoadError, Probe
from backends.exllamav2 import machine


def probe() -> Probe:
    """The version, and the GPUs that it could compute on."""
    version = machine.installed("exllamav2")
    if version is None:
        return Probe(problem=f"exllamav2 is not installed; run `{machine.CREATE}`")
    engine = f"exllamav2 {version}"
    try:
        gpus = machine.select_gpus(machine.import_torch(), None)
        machine.require_extension()
    except LoadError as error:
        return Probe(engine=engine, problem=str(error))
    return Probe(engine=engine, devices=tuple(f"cuda:{number}" for number in range(len(gpus))))
