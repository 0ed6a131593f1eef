"""A bundle on disk, checked before anything native sees it."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from sdk_runtimes.bundle_files import MANIFEST_NAME, check_file, list_files, open_regular
from sdk_runtimes.errors import (
    ArgumentError,
    BundleError,
    IntegrityError,
    UnknownChoiceError,
    UnsafeBundleError,
)
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.manifest import Manifest, QualityRecord, parse_manifest
from sdk_runtimes.manifest_checks import check_manifest
from sdk_runtimes.program_files import check_program
from sdk_runtimes.specs import ProgramSpec


@dataclass(frozen=True)
class Bundle:
    """A folder of programs, assets, goldens and a manifest.

    Attributes:
        path: the folder.
        manifest: what is in it.
        digest: sha256 of `manifest.json`, which holds the hash of every other file.
    """

    path: Path
    manifest: Manifest
    digest: str

    @property
    def size_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(entry.size for entry in self.manifest.files.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets there are programs for, in the order of the manifest."""
        return tuple(dict.fromkeys(program.target for program in self.manifest.programs))

    @property
    def names(self) -> tuple[str, ...]:
        """The networks there are programs of, in the order of the manifest."""
        return tuple(dict.fromkeys(program.name for program in self.manifest.programs))

    def program(self, target: str | None = None, name: str | None = None) -> ProgramSpec:
        """The one program of this target and name; either may be left out where only one fits.

        Raises:
            UnknownChoiceError: there is none; lists those there are.
            ArgumentError: several fit.
        """
        if target is not None and target not in self.targets:
            raise UnknownChoiceError("target", target, self.targets)
        if name is not None and name not in self.names:
            raise UnknownChoiceError("program", name, self.names)
        fits = [p for p in self.manifest.programs if target in (None, p.target) and name in (None, p.name)]
        if not fits:
            raise UnknownChoiceError("program", f"{name}.{target}", [p.id for p in self.manifest.programs])
        if len(fits) > 1:
            first = fits[0]
            raise ArgumentError(
                f"{len(fits)} programs fit: {', '.join(program.id for program in fits)}",
                why="one of them must be chosen",
                fix=f"bundle.program(target={first.target!r}, name={first.name!r})",
            )
        return fits[0]

    def quality(self, program: ProgramSpec | str) -> QualityRecord | None:
        """What the gate saw of a program (or of a `ProgramSpec.id`); None where it did not look."""
        key = program if isinstance(program, str) else program.id
        return next((record for record in self.manifest.quality if record.program == key), None)

    def file(self, relative: str) -> Path:
        """Where a file of the manifest lies.

        Raises:
            UnknownChoiceError: the manifest does not list it.
        """
        if relative not in self.manifest.files:
            raise UnknownChoiceError("file", relative, self.manifest.files)
        return self.path / relative

    def at(self, path: Path) -> "Bundle":
        """The same bundle after its folder was moved to `path`."""
        return replace(self, path=path)

    def __str__(self) -> str:
        rows = [_row(self, program) for program in self.manifest.programs]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        head = f"{self.path.name}: {self.manifest.name}, {_size(self.size_bytes)}, {self.digest[:12]}"
        return "\n".join([head, *(f"  {line.rstrip()}" for line in table)])


def open_bundle(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Reads a bundle and checks everything before anything native sees it.

    Args:
        path: the bundle's folder.
        limits: caps on what it may ask of this machine.

    Raises:
        BundleError: there is no bundle.
        IntegrityError: a file is missing, truncated or altered.
        UnsafeBundleError: paths, links, sizes, limits, schema version, what the graphs ask for.
        UnknownChoiceError: a target that this release does not know.
    """
    root = Path(path)
    data = read_manifest_bytes(root, limits)
    manifest = parse_manifest(data, limits=limits)
    check_manifest(manifest, limits)
    check_listing(root, manifest, limits)
    for relative, entry in manifest.files.items():
        check_file(root, relative, entry)
    for program in manifest.programs:
        check_program(root, program, limits)
    return Bundle(root, manifest, hashlib.sha256(data).hexdigest())


def read_manifest_bytes(root: Path, limits: Limits) -> bytes:
    """The bytes of `manifest.json`.

    Raises:
        BundleError: there is no bundle, or its manifest is too large or a link.
    """
    if not root.is_dir() or not os.path.lexists(root / MANIFEST_NAME):
        raise BundleError(
            f"there is no bundle at {str(root)!r}",
            why=f"a bundle is a folder with a {MANIFEST_NAME}",
            fix="sdk.export(model, out) writes one",
        )
    with open_regular(root / MANIFEST_NAME) as file:
        data = file.read(limits.manifest_bytes + 1)
    if len(data) > limits.manifest_bytes:
        raise UnsafeBundleError(f"{MANIFEST_NAME} is larger than {limits.manifest_bytes} bytes")
    return data


def check_listing(root: Path, manifest: Manifest, limits: Limits) -> None:
    """Checks that what lies on disk is what the manifest lists.

    Raises:
        IntegrityError: a file is missing.
        UnsafeBundleError: a file too many, a link.
    """
    on_disk, listed = set(list_files(root, limits)), set(manifest.files)
    if missing := sorted(listed - on_disk):
        raise IntegrityError(
            f"files are missing: {missing[:5]}", why="the manifest lists them", fix="fetch the bundle again"
        )
    if extra := sorted(on_disk - listed):
        raise UnsafeBundleError(
            f"files are not in the manifest: {extra[:5]}", fix="remove them, or fetch the bundle again"
        )


def _row(bundle: Bundle, program: ProgramSpec) -> tuple[str, str, str, str]:
    size = sum(bundle.manifest.files[file].size for file in program.files)
    return program.id, program.precision, _size(size), describe(bundle.quality(program))


def describe(record: QualityRecord | None) -> str:
    """A verdict in words: "passed on onnxruntime:cpu, rel. RMSE 3e-07", "UNVERIFIED: <reason>"."""
    if record is None:
        return "UNVERIFIED: the gate was off"
    worst = max((output.rel_rmse for output in record.outputs), default=None)
    figure = "" if worst is None else f", rel. RMSE {worst:.1g}"
    if record.verdict != "passed":
        return f"UNVERIFIED: {record.reason}" + (f" [{record.evaluator}{figure}]" if figure else "")
    note = f" ({record.reason})" if record.reason else ""
    return f"passed on {record.evaluator}{figure}{note}"


def _size(count: int) -> str:
    value, units = float(count), iter(("B", "KB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
