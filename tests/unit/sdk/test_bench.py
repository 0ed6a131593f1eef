import json
from dataclasses import replace

import pytest

from handmade import SIZE, matmul_bundle
from sdk.benching import bench
from sdk.cold_start import Start, measure_cold_start
from sdk_runtimes.errors import ArgumentError, DeviceError, SessionError, UnknownChoiceError
from sdk_runtimes.session import Placement, Session
from sdk_runtimes.speeds import measured_speeds


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path):
    return matmul_bundle(tmp_path / "matmul.bundle")


class Numpy:
    """A session of the caller's own."""

    placement = Placement("numpy", "cpu")

    def __init__(self) -> None:
        self.fed: list[object] = []

    def run(self, feeds):
        self.fed.append(feeds[0])
        return [feeds[0] * 2]

    def close(self):
        pass


def quick(target, **options):
    return bench(target, **{"runs": 2, "warmup": 1, "cold_start": False, "floor": False} | options)


def test_every_side_is_measured_and_the_first_is_the_baseline(bundle):
    rival = Numpy()
    report = quick(bundle, against={"numpy": Session(bundle.program(), rival)})
    assert [side.label for side in report.sides] == ["numpy", "matmul.onnx"]
    first, second = report.sides
    assert first.ratio == 1.0
    assert second.ratio == pytest.approx(first.timing.median_ms / second.timing.median_ms)
    assert (first.program, first.verdict) == ("", "")
    assert second.verdict.startswith("passed")
    assert len(rival.fed) == 1 + 1 + 2  # warm-up, the lead-in of its turn, two measured
    json.dumps(report.as_dict(), allow_nan=False)


def test_floor_and_cold_start_come_with_the_program(bundle):
    report = bench(bundle.path, runs=2, warmup=0, threads=1)
    side = report.sides[0]
    assert report.peaks is not None
    assert report.peaks.threads == 1
    assert side.floor is not None
    assert side.share == pytest.approx(side.floor.floor_ms / side.timing.median_ms)
    assert side.floor.compute_ms == pytest.approx(2 * SIZE**3 / report.peaks.gemm_gflops / 1e6)
    start = side.cold_start
    assert start is not None
    assert start.total_ms == pytest.approx(start.import_ms + start.load_ms + start.first_run_ms)
    assert min(start.import_ms, start.load_ms, start.first_run_ms) > 0
    assert start.peak_rss_bytes is None or start.peak_rss_bytes > 10 << 20


def test_speeds_are_remembered_for_auto(bundle):
    report = quick(bundle)
    assert measured_speeds(bundle) == {("matmul.onnx", "onnxruntime:cpu"): report.sides[0].timing.median_ms}


def test_bundles_of_one_name_stay_apart(tmp_path, bundle):
    other = matmul_bundle(tmp_path / "elsewhere" / "matmul.bundle", verdict="none")
    report = quick([bundle, other.path])
    assert [side.label for side in report.sides] == [
        "matmul.bundle/matmul.onnx",
        "matmul.bundle/matmul.onnx (2)",
    ]
    assert report.sides[1].verdict.startswith("UNVERIFIED")


def test_nothing_to_measure_is_refused(bundle):
    with pytest.raises(ArgumentError, match="runs=0"):
        quick(bundle, runs=0)


def test_unknown_devices_and_symbols_list_the_known(bundle):
    with pytest.raises(UnknownChoiceError, match="onnxruntime:cpu"):
        quick(bundle, device="onnxruntime:abacus")
    with pytest.raises(UnknownChoiceError, match="symbol"):
        quick(bundle, sizes={"batch": 2})


def test_a_bundle_that_cannot_run_here_says_why(bundle):
    with pytest.raises(DeviceError, match="none of the programs") as caught:
        quick(bundle, device="coreml:cpu")
    assert "matmul.onnx" in caught.value.why


def test_programs_that_cannot_run_are_told(bundle, monkeypatch):
    def only_onnx(opened, device, *, target, name, threads):
        if target == "coreml":
            raise DeviceError("no Mac")
        return Session(opened.program(target, name), Numpy())

    spec = bundle.manifest.programs[0]
    both = replace(bundle.manifest, programs=(spec, replace(spec, target="coreml")))
    monkeypatch.setattr("sdk.benching.load", only_onnx)
    report = quick(replace(bundle, manifest=both))
    assert [side.label for side in report.sides] == ["matmul.onnx"]
    assert report.skipped == ("matmul.coreml: no Mac",)


def test_progress_is_told(bundle):
    told = []
    quick(bundle, progress=lambda *row: told.append(row))
    assert told[0] == ("timing", 1, 1)


def test_a_fresh_process_that_fails_says_what_it_said(bundle):
    start = Start(str(bundle.path) + ".gone", "onnxruntime:cpu", "onnx", "matmul", None, {})
    with pytest.raises(SessionError, match="fresh process") as caught:
        measure_cold_start(start)
    assert "no bundle" in caught.value.why or "manifest.json" in caught.value.why
