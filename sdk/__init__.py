"""From a trained PyTorch model, in one call, to a verified bundle that runs without torch.

    import sdk

    sdk.export(model, "net.bundle", target=["onnx", "openvino"], sample_inputs=(x,))
    with sdk.load("net.bundle") as session:
        outputs = session.run({"x": array})

Importing this loads neither torch nor any engine.
"""

from sdk.benching import bench
from sdk.exporting import export
from sdk.inspecting import inspect
from sdk_export.gate import Gate
from sdk_runtimes import errors
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
    "inspect",
    "load",
    "verify",
]
