"""What a verdict, a compiled blob or a measured speed depends on."""

import importlib.metadata
from functools import lru_cache

from sdk_runtimes.backends import BACKENDS
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.specs import ProgramSpec


@lru_cache(maxsize=1)
def sdk_version() -> str:
    """Version of the installed distribution; "0" in a source tree that was never installed."""
    try:
        return importlib.metadata.version("edge-sdk")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def identity_of(bundle: Bundle, spec: ProgramSpec, device: str) -> dict[str, str]:
    """Bundle bytes, program, device, driver and versions. Anything else gives the same result.

    Args:
        bundle: its digest covers every byte.
        spec: one of its programs.
        device: a device id.
    """
    engine = BACKENDS[device.partition(":")[0]].identity(device)
    return {
        "bundle": bundle.digest,
        "name": bundle.manifest.name,
        "program": spec.id,
        "device": device,
        "sdk": sdk_version(),
        **engine,
    }
