"""Makes a saved `.mlpackage` reproducible: same network, same bytes."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

NAMES_KEY = "edge-sdk.names"
"""Metadata of the package: a JSON object, Core ML's name of an input or output to the network's own."""

_ROOT = Path("com.apple.CoreML")
_MODEL, _WEIGHTS = _ROOT / "model.mlmodel", _ROOT / "weights"
# path in the package -> what Core ML calls such an item
_ITEMS: Mapping[Path, str] = {
    _MODEL: "CoreML Model Specification",
    _WEIGHTS: "CoreML Model Weights",
}


def settle_package(package: Path, names: Mapping[str, str]) -> tuple[str, ...]:
    """Rewrites what coremltools makes anew each time, and drops what is no part of the model.

    The manifest names its items by random ids and the metadata hold the day of the conversion: the ids
    become functions of the paths, and the metadata the names. The debug mapping beside the manifest goes.

    Returns:
        Paths of all files relative to the package's folder, the manifest first.
    """
    from coremltools.proto import Model_pb2

    model = package / "Data" / _MODEL
    spec = Model_pb2.Model()
    spec.ParseFromString(model.read_bytes())
    metadata = spec.description.metadata.userDefined
    metadata.clear()
    metadata[NAMES_KEY] = json.dumps(names, sort_keys=True, ensure_ascii=True)
    model.write_bytes(spec.SerializeToString(deterministic=True))
    (package / "Manifest.json").write_text(_manifest(package), encoding="utf-8")
    for extra in package.glob("*.json"):
        if extra.name != "Manifest.json":
            extra.unlink()
    files = sorted(path for path in package.rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name != "Manifest.json")
    return tuple(path.relative_to(package.parent).as_posix() for path in files)


def _holds_a_file(item: Path) -> bool:
    """A network without weights has an empty weights folder, which is no item."""
    return item.is_file() or any(path.is_file() for path in item.rglob("*"))


def _manifest(package: Path) -> str:
    """A manifest with ids that depend on nothing but the paths."""
    ids = {path: str(uuid.uuid5(uuid.NAMESPACE_URL, path.as_posix())) for path in _ITEMS}
    entries = {
        ids[path]: {
            "author": "com.apple.CoreML",
            "description": description,
            "name": path.name,
            "path": path.as_posix(),
        }
        for path, description in _ITEMS.items()
        if _holds_a_file(package / "Data" / path)
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": ids[_MODEL],
    }
    return json.dumps(manifest, indent=4, sort_keys=True) + "\n"
