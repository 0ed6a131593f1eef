"""Which check a target's files must pass before its engine sees them."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from sdk_runtimes.bundle_files import is_plain_component, open_regular
from sdk_runtimes.errors import UnknownChoiceError, UnsafeBundleError
from sdk_runtimes.limits import Limits
from sdk_runtimes.specs import ProgramSpec
from sdk_runtimes.strict_json import load_json

PACKAGE_MANIFEST = "Manifest.json"


def check_program(root: Path, program: ProgramSpec, limits: Limits) -> None:
    """Looks into the files of a program, as its engine will.

    Raises:
        BundleError: they are not what the target's engine should be given.
        UnknownChoiceError: a target that this release has no check for.
    """
    if program.target not in CHECKS:
        raise UnknownChoiceError(
            "target", program.target, CHECKS, fix="pip install -U edge-sdk, or export the model again"
        )
    CHECKS[program.target](root, program, limits)


def _check_onnx(root: Path, program: ProgramSpec, limits: Limits) -> None:
    # Readers of formats are imported when one is read: `import sdk` stays light.
    from sdk_runtimes.onnx_wire import check_onnx_file

    _check_suffix(program, ".onnx")
    folder = PurePosixPath(program.entry).parent
    beside = [PurePosixPath(file) for file in program.files[1:]]
    allowed = {file.relative_to(folder).as_posix() for file in beside if file.is_relative_to(folder)}
    check_onnx_file(root / program.entry, allowed_files=allowed, limits=limits)


def _check_openvino(root: Path, program: ProgramSpec, limits: Limits) -> None:
    from sdk_runtimes.openvino_ir import check_openvino_file

    _check_suffix(program, ".xml")
    weights = PurePosixPath(program.entry).with_suffix(".bin").as_posix()
    if weights not in program.files and (root / weights).exists():
        raise UnsafeBundleError(
            f"{program.id!r} does not list {weights!r}", why="its engine opens it by name"
        )
    check_openvino_file(root / program.entry, limits=limits)


def _check_coreml(root: Path, program: ProgramSpec, limits: Limits) -> None:
    """An `.mlpackage`: the items that its manifest names are files of the program, inside the package."""
    entry = PurePosixPath(program.entry)
    package = entry.parent
    if entry.name != PACKAGE_MANIFEST or package.suffix != ".mlpackage":
        raise UnsafeBundleError(
            f"{program.id!r} opens {program.entry!r}", why="not the manifest of an .mlpackage"
        )
    with open_regular(root / program.entry) as file:
        document = load_json(file.read(limits.header_bytes), name=program.entry, limits=limits)
    items = document.get("itemInfoEntries") if isinstance(document, dict) else None
    if not isinstance(items, dict) or document.get("rootModelIdentifier") not in items:
        raise UnsafeBundleError(f"{program.entry!r} names no root model")
    for item in items.values():
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(path, str) or not all(map(is_plain_component, path.split("/"))):
            raise UnsafeBundleError(f"{program.entry!r} names the item {str(path)[:200]!r}")
        inside = f"{package}/Data/{path}"
        if not any(file == inside or file.startswith(f"{inside}/") for file in program.files):
            raise UnsafeBundleError(f"{program.entry!r} names {path!r}, which is no file of {program.id!r}")


def _check_suffix(program: ProgramSpec, suffix: str) -> None:
    if not program.entry.endswith(suffix):
        raise UnsafeBundleError(
            f"{program.id!r} opens {program.entry!r}", why=f"its engine takes {suffix} files"
        )


CHECKS: Mapping[str, Callable[[Path, ProgramSpec, Limits], None]] = MappingProxyType(
    {
        "onnx": _check_onnx,
        "tensorrt": _check_onnx,
        "openvino": _check_openvino,
        "coreml": _check_coreml,
    }
)
"""A new target adds its row; without one its bundles are refused."""
