"""A manifest in a form that people read."""

from collections.abc import Iterator, Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sdk.units import flops_text, range_text
from sdk_runtimes.bundle import Bundle, describe
from sdk_runtimes.memory_sizes import format_size
from sdk_runtimes.specs import ProgramSpec


def describe_bundle(bundle: Bundle) -> Iterator[RenderableType]:
    """The manifest in a readable form: head, programs, quality, files, goldens, provenance."""
    manifest = bundle.manifest
    yield Text(f"{bundle.path.name}: {manifest.name}", style="bold")
    yield Text(
        f"{format_size(bundle.size_bytes)} in {len(manifest.files)} files, schema {manifest.schema_version}, "
        f"licence {manifest.licence or 'not stated'}, digest {bundle.digest}"
    )
    for program in manifest.programs:
        yield _program(bundle, program)
    yield _quality(bundle)
    yield _files(bundle)
    for golden in manifest.goldens:
        yield Text(f"goldens of {golden.program}: {golden.cases} cases in {golden.file}")
    provenance = manifest.provenance
    recipe = {"model": provenance.model, "seed": str(provenance.seed)} | dict(provenance.recipe)
    yield _pairs("made from", recipe)
    yield _pairs("versions", provenance.versions)
    if manifest.metadata:
        yield _pairs("metadata", manifest.metadata)


def _program(bundle: Bundle, program: ProgramSpec) -> Table:
    rows = {
        "precision": program.precision,
        "inputs": "\n".join(map(str, program.inputs)),
        "outputs": "\n".join(map(str, program.outputs)),
        "symbols": "\n".join(f"{item.symbol} from {range_text(item)}" for item in program.symbols),
        "files": "\n".join(program.files),
        "weights": format_size(program.weights_bytes),
        "activations": f"{format_size(program.activations_bytes)} at most",
        "FLOPs": flops_text(program.flops) if program.flops else "",
        "options": "\n".join(f"{key} = {value}" for key, value in program.options.items()),
        "gate": describe(bundle.quality(program)),
    }
    return _pairs(f"program {program.id}", rows)


def _quality(bundle: Bundle) -> Table:
    table = Table(title="quality", title_justify="left", box=None, header_style="bold")
    for column in ("program", "verdict", "evaluator", "output", "worst draw"):
        table.add_column(column)
    for column in ("rel. RMSE", "limit", "max abs", "cosine", "PSNR dB"):
        table.add_column(column, justify="right")
    for record in bundle.manifest.quality:
        verdict = (
            Text("passed", style="green")
            if record.verdict == "passed"
            else Text("UNVERIFIED", style="bold yellow")
        )
        limit = f"{record.tolerance.rel_rmse:.1g}"
        if not record.outputs:
            table.add_row(record.program, verdict, record.evaluator or record.reason)
        for item in record.outputs:
            figures = (f"{item.rel_rmse:.2g}", limit, f"{item.max_abs:.2g}", f"{item.cosine:.7f}")
            table.add_row(
                record.program,
                verdict,
                record.evaluator,
                item.output,
                item.draw,
                *figures,
                f"{item.psnr_db:.1f}",
            )
        if record.repaired:
            table.add_row("", "", Text(f"in fp32 by repair: {', '.join(record.repaired)}"))
    return table


def _files(bundle: Bundle) -> Table:
    table = Table(
        "file", "size", "sha256", title="files", title_justify="left", box=None, header_style="bold"
    )
    table.columns[1].justify = "right"
    for path, entry in sorted(bundle.manifest.files.items()):
        table.add_row(path, format_size(entry.size), entry.sha256)
    return table


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        if value:
            style = "bold yellow" if value.startswith("UNVERIFIED") else ""
            table.add_row(f"  {key}", Text(value, style=style))
    return table
