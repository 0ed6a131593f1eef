"""From a trained PyTorch model, in one call, to a verified bundle that runs without torch.

    import sdk

    sdk.export(model, "net.bundle", target=["onnx", "openvino"], sample_inputs=(x,))
    with sdk.load("net.bundle") as session:
        outputs = session.run({"x": array})

Importing this loads neither torch nor any engine, and not even numpy: each name below is fetched from its
home at first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk import errors
    from sdk.benching import bench
    from sdk.exporting import export
    from sdk.forgetting import forget
    from sdk.inspecting import inspect
    from sdk.pruning import prune, prune_
    from sdk_export.gate import Gate
    from sdk_runtimes.bundle import Bundle
    from sdk_runtimes.devices import devices
    from sdk_runtimes.errors import SdkError
    from sdk_runtimes.loading import load
    from sdk_runtimes.manifest import Tolerance
    from sdk_runtimes.session import Session
    from sdk_runtimes.specs import ProgramSpec, TensorSpec
    from sdk_runtimes.verifying import verify

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Gate",
    "ProgramSpec",
    "SdkError",
    "Session",
    "TensorSpec",
    "Tolerance",
    "bench",
    "devices",
    "errors",
    "export",
    "forget",
    "inspect",
    "load",
    "prune",
    "prune_",
    "verify",
]

# public name -> the module that holds it; a test keeps it equal to `__all__`
_HOMES = {
    "Bundle": "sdk_runtimes.bundle",
    "Gate": "sdk_export.gate",
    "ProgramSpec": "sdk_runtimes.specs",
    "SdkError": "sdk_runtimes.errors",
    "Session": "sdk_runtimes.session",
    "TensorSpec": "sdk_runtimes.specs",
    "Tolerance": "sdk_runtimes.manifest",
    "bench": "sdk.benching",
    "devices": "sdk_runtimes.devices",
    "errors": "sdk.errors",
    "export": "sdk.exporting",
    "forget": "sdk.forgetting",
    "inspect": "sdk.inspecting",
    "load": "sdk_runtimes.loading",
    "prune": "sdk.pruning",
    "prune_": "sdk.pruning",
    "verify": "sdk_runtimes.verifying",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdk' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value: object = home if name == "errors" else getattr(home, name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
