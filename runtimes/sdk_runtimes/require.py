"""One door to optional packages."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import MappingProxyType, ModuleType

from sdk_runtimes.errors import MissingExtraError

# import name -> extra of edge-sdk that installs it
EXTRAS = MappingProxyType(
    {
        "torch": "export",
        "onnx": "export",
        "onnx_ir": "export",
        "onnxscript": "export",
        "openvino": "openvino",
        "coremltools": "coreml",
        "tensorrt": "tensorrt",
        "cuda.bindings.runtime": "tensorrt",
    }
)

# import name -> what it would report to its maker through. `import openvino` sends an event to an analytics
# service, from a child process; where this package is missing, it takes a stub that does nothing.
_PHONES_HOME = MappingProxyType({"openvino": "openvino_telemetry"})


def require(module: str, *, needed_for: str = "") -> ModuleType:
    """Imports an optional package.

    Args:
        module: import name, a key of `EXTRAS`.
        needed_for: what the caller wanted to do, for the message.

    Raises:
        MissingExtraError: the package is not installed; names the pip line.
    """
    try:
        with _hidden(_PHONES_HOME.get(module.partition(".")[0])):
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, needed_for, str(error)) from error


@contextlib.contextmanager
def _hidden(module: str | None) -> Iterator[None]:
    """A module that cannot be imported meanwhile; one that was imported before stays."""
    if module is None or module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own way to say "not there"
    try:
        yield
    finally:
        del sys.modules[module]


def require_installed(module: str, *, needed_for: str = "") -> None:
    """Like `require`, but imports nothing: for what is slow or loud to import and only needed later.

    Raises:
        MissingExtraError: the package is not installed; names the pip line.
    """
    if not is_installed(module):
        raise _missing(module, needed_for, f"no module named {module!r} is on sys.path")


def _missing(module: str, needed_for: str, reason: str) -> MissingExtraError:
    return MissingExtraError(
        f"{module!r} is not installed" + (f", and {needed_for} needs it" if needed_for else ""),
        why=reason,
        fix=f"pip install 'edge-sdk[{EXTRAS[module]}]'",
    )


def is_installed(module: str) -> bool:
    """Whether an optional package could be imported; imports nothing but its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
