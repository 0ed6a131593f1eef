"""The manifest of a bundle: what is in it, what was proven, where it comes from.

Plain frozen dataclasses, so that importing them costs nothing; pydantic checks them strictly when a
manifest is read, and derives the published JSON schema from them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.specs import STRICT, ProgramSpec
from sdk_runtimes.strict_json import load_json

if TYPE_CHECKING:
    import pydantic

SCHEMA_VERSION = 1

Verdict = Literal["passed", "unverified"]


@dataclass(frozen=True)
class FileEntry:
    """Content address of one file.

    Attributes:
        sha256: lower-case hex.
        size: bytes.
    """

    __pydantic_config__ = STRICT

    sha256: str
    size: int


@dataclass(frozen=True)
class Tolerance:
    """How far the shipped bytes may be from eager fp32.

    Attributes:
        rel_rmse: root mean square error over the root mean square of the truth, per output.
        min_psnr_db: for images; None where it does not apply.
    """

    __pydantic_config__ = STRICT

    rel_rmse: float
    min_psnr_db: float | None = None


@dataclass(frozen=True)
class OutputQuality:
    """The worst draw of one output.

    Attributes:
        output: its name.
        draw: the inputs that were worst ("sample", "normal-0", "zeros", …).
        rel_rmse: relative root mean square error.
        max_abs: largest absolute difference.
        cosine: cosine similarity.
        psnr_db: peak signal-to-noise ratio over the truth's own range.
    """

    __pydantic_config__ = STRICT

    output: str
    draw: str
    rel_rmse: float
    max_abs: float
    cosine: float
    psnr_db: float


@dataclass(frozen=True)
class QualityRecord:
    """What the gate saw of one program.

    Attributes:
        program: `ProgramSpec.id`.
        verdict: "passed" when the shipped bytes ran here and were right; else "unverified".
        evaluator: what ran them ("onnxruntime:cpu", "mil-evaluator", …); empty if nothing did.
        reason: why it is unverified, or what the verdict does not cover; empty otherwise.
        tolerance: what it was held to.
        outputs: the worst draw of every output.
        repaired: module paths that `repair=True` promoted to fp32.
    """

    __pydantic_config__ = STRICT

    program: str
    verdict: Verdict
    evaluator: str
    reason: str
    tolerance: Tolerance
    outputs: tuple[OutputQuality, ...] = ()
    repaired: tuple[str, ...] = ()


@dataclass(frozen=True)
class Golden:
    """Inputs and eager outputs that are replayed at first load on a device.

    Attributes:
        program: `ProgramSpec.name`; programs of several targets share it.
        file: a safetensors file with tensors `<case>/in/<name>` and `<case>/out/<name>`.
        cases: how many cases it holds; they are numbered from 0.
    """

    __pydantic_config__ = STRICT

    program: str
    file: str
    cases: int


@dataclass(frozen=True)
class Provenance:
    """Where a bundle comes from. Holds no clock, so that the same export gives the same bytes.

    Attributes:
        model: qualified class name of what was exported, or the file's name.
        recipe: the arguments of the export.
        versions: package name -> version.
        seed: of the gate's draws.
    """

    __pydantic_config__ = STRICT

    model: str
    recipe: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int


@dataclass(frozen=True)
class Manifest:
    """The whole of `manifest.json`."""

    __pydantic_config__ = STRICT

    schema_version: int
    name: str
    programs: tuple[ProgramSpec, ...]
    files: Mapping[str, FileEntry]
    quality: tuple[QualityRecord, ...]
    goldens: tuple[Golden, ...]
    provenance: Provenance
    licence: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def dump_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON: sorted keys, two spaces, a newline at the end. NaN and Inf are refused."""
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True, allow_nan=False, default=dict)
    return text.encode() + b"\n"


def parse_manifest(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Reads a manifest; `manifest_checks.check_manifest` then looks at what it says.

    Raises:
        UnsafeBundleError: not JSON, an unknown schema version, an unknown key, a wrong type.
    """
    import pydantic

    document = load_json(data, name="manifest.json", limits=limits)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise UnsafeBundleError(
            f"manifest.json has schema version {version!r}",
            why=f"this release reads version {SCHEMA_VERSION}",
            fix="pip install -U edge-sdk, or export the model again",
        )
    try:
        return _adapter().validate_json(data)
    except pydantic.ValidationError as error:
        raise UnsafeBundleError("manifest.json does not follow the schema", why=str(error)) from error


@cache
def _adapter() -> "pydantic.TypeAdapter[Manifest]":
    """Built once: it takes most of a warm load."""
    import pydantic

    return pydantic.TypeAdapter(Manifest)


def manifest_schema() -> dict[str, Any]:
    """The JSON schema of `manifest.json`, as published in `docs/`."""
    schema = _adapter().json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
