"""Which versions made a bundle."""

from importlib import metadata

_PACKAGES = (
    "edge-sdk",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "openvino",
    "coremltools",
    "numpy",
)


def installed_versions() -> dict[str, str]:
    """Package name to version, of those that take part in an export and are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
