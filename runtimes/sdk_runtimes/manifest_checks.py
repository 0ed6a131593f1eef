"""What a well-typed manifest must also satisfy before anything it names is opened."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from sdk_runtimes.bundle_files import check_distinct, check_path, is_plain_component
from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import Limits
from sdk_runtimes.manifest import FileEntry, Golden, Manifest, QualityRecord
from sdk_runtimes.specs import DTYPES, ProgramSpec, SymbolRange, TensorSpec

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_+-]{0,63}")  # targets, precisions
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EXPRESSION = re.compile(
    r"[A-Za-z0-9_+\-*/%(), ]{1,256}"
)  # sizes of outputs; data for people, never evaluated
_NAMES = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*(?!\s*\(|[A-Za-z0-9_])")
_UNBACKED = re.compile(r"u\d+")  # torch's name for a size that depends on values
_MAX_SIZE = 2**63 - 1
_MAX_NAME = 256
_MAX_CASES = 1024


def check_manifest(manifest: Manifest, limits: Limits) -> None:
    """Checks paths, hashes, sizes, and that everything named is there and named once.

    Raises:
        UnsafeBundleError: names what is wrong.
    """
    _require(0 < len(manifest.name) <= _MAX_NAME, f"the bundle's name has {len(manifest.name)} characters")
    _check_files(manifest, limits)
    _require(bool(manifest.programs), "the manifest lists no program")
    _unique("programs", (program.id.lower() for program in manifest.programs))
    for program in manifest.programs:
        _check_program(program, manifest)
    _check_orphans(manifest)
    _unique("goldens of a program", (golden.program for golden in manifest.goldens))
    for golden in manifest.goldens:
        _check_golden(golden, manifest)
    _unique("quality records", (record.program for record in manifest.quality))
    outputs = {program.id: {output.name for output in program.outputs} for program in manifest.programs}
    for record in manifest.quality:
        _check_quality(record, outputs)


def _check_files(manifest: Manifest, limits: Limits) -> None:
    _require(len(manifest.files) <= limits.files, f"the manifest lists {len(manifest.files)} files")
    for path, entry in manifest.files.items():
        check_path(path, limits)
        _check_entry(path, entry)
    check_distinct(manifest.files)
    total = sum(entry.size for entry in manifest.files.values())
    _require(total <= limits.total_bytes, f"the files have {total} bytes, more than {limits.total_bytes}")


def _check_entry(path: str, entry: FileEntry) -> None:
    _require(_SHA256.fullmatch(entry.sha256) is not None, f"{path!r} has the sha256 {entry.sha256[:80]!r}")
    _require(0 <= entry.size <= _MAX_SIZE, f"{path!r} has the size {entry.size}")


def _check_program(program: ProgramSpec, manifest: Manifest) -> None:
    where = f"program {program.id[:200]!r}"
    # Names become parts of file names in caches.
    _require(
        is_plain_component(program.name) and len(program.name) <= _MAX_NAME, f"{where} has an unsafe name"
    )
    for word in (program.target, program.precision):
        _require(_WORD.fullmatch(word) is not None, f"{where} has the target or precision {word[:80]!r}")
    _require(bool(program.files), f"{where} has no files")
    _unique(f"files of {where}", program.files)
    for file in program.files:
        _require(file in manifest.files, f"{where} names {file[:200]!r}, which `files` does not list")
        _require(file.startswith("programs/"), f"{where} names {file!r}, which is outside programs/")
    for figure in ("weights_bytes", "activations_bytes", "flops"):
        _require(
            0 <= getattr(program, figure) <= _MAX_SIZE, f"{where} has {figure}={getattr(program, figure)}"
        )
    _check_symbols(where, program.symbols)
    declared = frozenset(item.symbol for item in program.symbols)
    for side, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        _unique(f"{side} of {where}", (spec.name for spec in specs))
        for spec in specs:
            _check_tensor(f"{where}, {spec.name[:80]!r}", spec, declared, is_input=side == "inputs")


def _check_symbols(where: str, symbols: Iterable[SymbolRange]) -> None:
    symbols = tuple(symbols)
    _unique(f"symbols of {where}", (item.symbol for item in symbols))
    for item in symbols:
        _require(_SYMBOL.fullmatch(item.symbol) is not None, f"{where} has the symbol {item.symbol[:80]!r}")
        sane = 0 <= item.minimum <= item.maximum <= _MAX_SIZE and 1 <= item.step <= _MAX_SIZE
        _require(sane, f"{where} gives {item.symbol!r} the range {item.minimum}..{item.maximum}:{item.step}")


def _check_tensor(where: str, spec: TensorSpec, declared: frozenset[str], *, is_input: bool) -> None:
    _require(0 < len(spec.name) <= _MAX_NAME, f"{where}: a name has 1 to {_MAX_NAME} characters")
    _require(
        spec.dtype in DTYPES, f"{where} has the dtype {spec.dtype[:80]!r}, not one of {', '.join(DTYPES)}"
    )
    for dim in spec.shape:
        if isinstance(dim, int):
            _require(0 <= dim <= _MAX_SIZE, f"{where} has the size {dim}")
        elif is_input:
            _require(
                dim in declared, f"{where} uses the symbol {dim[:80]!r}, which `symbols` does not declare"
            )
        else:
            _check_expression(where, dim, declared)


def _check_expression(where: str, text: str, declared: frozenset[str]) -> None:
    _require(_EXPRESSION.fullmatch(text) is not None, f"{where} has the size {text[:80]!r}")
    unknown = [
        name for name in _NAMES.findall(text) if name not in declared and not _UNBACKED.fullmatch(name)
    ]
    _require(not unknown, f"{where} uses the symbols {unknown[:5]}, which `symbols` does not declare")


def _check_orphans(manifest: Manifest) -> None:
    used = {file for program in manifest.programs for file in program.files}
    orphans = sorted(path for path in manifest.files if path.startswith("programs/") and path not in used)
    _require(not orphans, f"no program uses {orphans[:5]}")


def _check_golden(golden: Golden, manifest: Manifest) -> None:
    names = {program.name for program in manifest.programs}
    _require(golden.program in names, f"goldens of {golden.program[:80]!r}, which is no program")
    listed = golden.file in manifest.files and golden.file.startswith("golden/")
    _require(listed, f"goldens in {golden.file[:200]!r}, which `files` does not list below golden/")
    _require(0 < golden.cases <= _MAX_CASES, f"goldens with {golden.cases} cases, not 1 to {_MAX_CASES}")


def _check_quality(record: QualityRecord, outputs: dict[str, set[str]]) -> None:
    where = f"quality of {record.program[:200]!r}"
    _require(record.program in outputs, f"{where}, which is no program")
    # An unverified program that gives no reason, or a verdict that nobody reached, would read as a pass.
    explained = bool(record.evaluator) if record.verdict == "passed" else bool(record.reason)
    _require(explained, f"{where} is {record.verdict!r} without saying on what, or why")
    _require(record.tolerance.rel_rmse >= 0, f"{where} has a negative tolerance")
    _unique(f"outputs in {where}", (output.output for output in record.outputs))
    for output in record.outputs:
        _require(
            output.output in outputs[record.program], f"{where} speaks of an unknown {output.output[:80]!r}"
        )
        figures = (output.rel_rmse, output.max_abs, output.cosine, output.psnr_db)
        _require(all(map(math.isfinite, figures)), f"{where} has figures that are not finite: {figures}")


def _unique(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    _require(not twice, f"{what}: {', '.join(repr(name[:80]) for name in twice[:5])} more than once")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UnsafeBundleError(f"manifest.json: {message}", fix="fetch or export the bundle again")
