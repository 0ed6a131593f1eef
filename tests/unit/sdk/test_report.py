import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from handmade import matmul_bundle
from sdk.bench_report import BenchReport, BenchSide
from sdk.bench_table import bench_table
from sdk.cold_start import ColdStart
from sdk.floor import Floor, Peaks
from sdk.html_parts import Bar, bars, page, picture, section, share_cell, table, text
from sdk.html_report import bench_section, bundle_sections, write_bundle_report, write_page
from sdk.turns import Timing
from sdk.units import flops_text, ms_text
from sdk_runtimes.errors import UnknownChoiceError, WriteError

FLOOR = Floor(4.0, 1.0, 40.0, 4.0, "compute")
START = ColdStart(100.0, 20.0, 8.0, 128.0, 90_000_000)


def report() -> BenchReport:
    eager = BenchSide("PyTorch <eager>", "", "fp32", "eager:cpu", "", Timing(9, 20.0, 18.0, 22.0, 50.0), 1.0)
    timing = Timing(9, 8.0, 6.0, 9.0, 125.0)
    name = "net.onnx"
    onnx = BenchSide(name, name, "fp32", "onnxruntime:cpu", "passed", timing, 2.5, START, FLOOR, 0.5)
    return BenchReport(
        (eager, onnx), 2, {"batch": 4}, "Some CPU, 2 cores", Peaks(2, 180.0), ("net.coreml: no Mac",)
    )


class Checker(HTMLParser):
    """Well-formed as far as we write HTML: every element is closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(document: str) -> Checker:
    checker = Checker()
    checker.feed(document)
    checker.close()
    assert checker.open == []
    return checker


def test_page_is_well_formed_and_asks_nobody_for_anything(tmp_path):
    bundle = matmul_bundle(tmp_path / "m.bundle")
    out = tmp_path / "deep" / "report.html"
    write_bundle_report(out, [str(bundle.path)], report())
    document = out.read_text()
    seen = checked(document).seen
    assert not {"script", "link", "iframe"} & {tag for tag, _ in seen}
    assert not re.search(r"https?://|url\(|@import", document)
    assert "default-src 'none'" in document


def test_bundle_sections_hold_all_that_the_manifest_says(tmp_path):
    bundle = matmul_bundle(tmp_path / "m.bundle")
    words = "".join(bundle_sections(bundle))
    for entry in bundle.manifest.files.values():
        assert entry.sha256 in words
    for expected in (bundle.digest, "matmul.onnx", "passed", "1.0e-07", "Apache-2.0", "tests.handmade"):
        assert expected in words
    assert "UNVERIFIED" not in words


@pytest.mark.parametrize("verdict", ["unverified", "none"])
def test_what_is_unverified_is_marked(tmp_path, verdict):
    words = "".join(bundle_sections(matmul_bundle(tmp_path / "u.bundle", verdict=verdict)))
    assert "UNVERIFIED" in words
    if verdict == "unverified":
        assert "no Mac &lt;here&gt;" in words


def test_bench_section_holds_medians_ratios_and_the_floor():
    words = bench_section(report())
    for expected in (
        "20.0 ms",
        "8.00 ms",
        "2.50 × as fast",
        "50 %",
        "90 MB",
        "180 GFLOP/s",
        "no Mac",
        "2 threads",
    ):
        assert expected in words
    assert "PyTorch &lt;eager&gt;" in words
    assert "<eager>" not in words
    assert 'style="width:40.00%"' in words  # 8 of 20 ms


def test_bench_table_holds_the_same(capsys):
    from rich.console import Console

    console = Console(width=160)
    for part in bench_table(report()):
        console.print(part)
    words = capsys.readouterr().out
    for expected in ("20.0", "8.00", "2.50 ×", "50 %", "90 MB", "180 GFLOP/s", "no Mac", "batch=4"):
        assert expected in words


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr("sdk.bench_report.usable_threads", lambda: 2)
    assert report().busy == ""
    assert replace(report(), others=0.2).busy == ""
    busy = replace(report(), others=1.5)
    assert "others took 1.5 of 2 cores" in busy.busy
    assert "others took 1.5 of 2 cores" in bench_section(busy)


def test_others_on_cores_that_we_do_not_use_do_not_disturb(monkeypatch):
    monkeypatch.setattr("sdk.bench_report.usable_threads", lambda: 64)
    assert replace(report(), others=30.0).busy == ""
    assert replace(report(), others=63.0).busy != ""


def test_sides_are_found_by_label_and_the_fastest_is_known():
    assert report().fastest.label == "net.onnx"
    assert report().side("net.onnx").ratio == 2.5
    with pytest.raises(UnknownChoiceError, match=r"net\.onnx"):
        report().side("net.tflite")
    assert report().as_dict()["fastest"] == "net.onnx"


def test_text_is_escaped_everywhere():
    evil = '<script>alert("x")</script>'
    parts = [
        section(evil, intro=evil),
        table([evil], [[text(evil)]]),
        bars([Bar(evil, 1.0, evil, evil)]),
        picture(b"x", "image/png", evil, evil),
    ]
    document = page(evil, evil, parts)
    assert "script" not in {tag for tag, _ in checked(document).seen}


def test_bars_of_nothing_have_no_length():
    assert 'style="width:0.00%"' in bars([Bar("a", 0.0, "0")])


@pytest.mark.parametrize(("share", "part", "words"), [(0.25, "25.0%", "25.0 %"), (1.2, "100.0%", "120.0 %")])
def test_shares_are_drawn_within_their_cell(share, part, words):
    cell = share_cell(share)
    assert f"--part:{part}" in cell
    assert words in cell


def test_an_unknown_share_is_a_dash():
    assert share_cell(None) == "–"


def test_a_page_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        write_page(tmp_path / "file" / "report.html", "t", "s", [])


@pytest.mark.parametrize(
    ("value", "words"), [(0.0123, "0.0123"), (4.5678, "4.57"), (12.0, "12.0"), (1234.4, "1,234")]
)
def test_milliseconds_have_three_digits(value, words):
    assert ms_text(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0 FLOP"), (8192, "8.19 kFLOP"), (771_000_000, "771 MFLOP")]
)
def test_flops_have_a_unit(value, words):
    assert flops_text(value) == words
