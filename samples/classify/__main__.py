"""`make demo`: one network, from PyTorch to a verified bundle on two engines. Results in `build/demo/`."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

import sdk
from samples.classify.network import LICENCE, NAME, build
from samples.classify.pictures import PICTURES, preprocess
from samples.classify.results import PYTORCH, Results, read_guesses
from samples.classify.table import print_results
from samples.classify.webpage import write_webpage
from sdk.bench_report import BenchReport
from sdk.cold_start import ColdStart
from sdk_runtimes.bundle import Bundle
from sdk_runtimes.sessions.eager import eager_session

HOME = Path(__file__).resolve().parents[2]
OUT = HOME / "build" / "demo"
THREADS = 2
RUNS = 30


def main() -> int:
    """Exports, proves, runs, measures, reports.

    Returns:
        0; 1 where an engine sees something else than PyTorch.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    network = build()
    with console.status("exporting to ONNX and OpenVINO, and proving both …"):
        bundle, export_s = _export(network)
    with console.status("looking at the photographs, with torch and without …"):
        pytorch = _process("samples.classify.pytorch_side", THREADS)
        engines = _process("samples.classify.bundle_side", bundle.path, THREADS)
    with console.status("measuring, side by side …"):
        bench = _with_cold_start(_bench(network, bundle), ColdStart(**pytorch["cold_start"]))
    told = {PYTORCH: pytorch["guesses"]} | engines["guesses"]
    results = Results(bundle, {side: read_guesses(rows) for side, rows in told.items()}, bench, export_s)
    print_results(results, console)
    report = OUT / "report.html"
    write_webpage(results, report)
    shown = report.relative_to(HOME) if report.is_relative_to(HOME) else report
    console.print(f"\nreport: {shown}", soft_wrap=True)
    if not results.same_top1:
        console.print("an engine sees something else than PyTorch", style="bold red")
    return 0 if results.same_top1 else 1


def _export(network: Any) -> tuple[Bundle, float]:
    import torch

    start = time.perf_counter()
    bundle = sdk.export(
        network,
        OUT / f"{NAME}.bundle",
        target=["onnx", "openvino"],
        sample_inputs=(torch.from_numpy(preprocess(PICTURES[0].open())),),
        name=NAME,
        licence=LICENCE,
        overwrite=True,
    )
    return bundle, time.perf_counter() - start


def _process(module: str, *arguments: object) -> dict[str, Any]:
    """Runs a module in a process of its own and reads the JSON that it prints."""
    done = subprocess.run(  # noqa: S603 (our own interpreter with our own module)
        [sys.executable, "-m", module, *map(str, arguments)], cwd=HOME, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _bench(network: Any, bundle: Bundle) -> BenchReport:
    eager = eager_session(network, bundle.manifest.programs[0], threads=THREADS)
    return sdk.bench(bundle, against={PYTORCH: eager}, threads=THREADS, runs=RUNS)


def _with_cold_start(bench: BenchReport, cold_start: ColdStart) -> BenchReport:
    """The bench cannot start the caller's PyTorch model afresh; the demo did."""
    first, *others = bench.sides
    return replace(bench, sides=(replace(first, cold_start=cold_start), *others))


if __name__ == "__main__":
    sys.exit(main())
