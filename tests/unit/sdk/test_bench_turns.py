import pytest

from sdk.other_load import CpuClock, busy_ticks, cores_taken, cpu_clock
from sdk.peak_memory import parse_high_water, peak_rss_bytes
from sdk.turns import by_turns, summarize


def test_sides_go_by_turns_and_the_first_of_a_turn_changes():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "AB"}
    timings = by_turns(calls, runs=7, warmup=1)
    # warm-up; then rounds of 5 and 2 runs, each turn led in by one that is not counted
    assert "".join(order) == "A" + "B" + "A" * 6 + "B" * 6 + "B" * 3 + "A" * 3
    assert {name: timing.runs for name, timing in timings.items()} == {"A": 7, "B": 7}


def test_progress_is_told_every_round():
    told = []
    by_turns({"A": lambda: None}, runs=11, warmup=0, progress=lambda *row: told.append(row))
    assert told == [("timing", 1, 3), ("timing", 2, 3), ("timing", 3, 3)]


def test_summary_of_known_times():
    timing = summarize([0.001 * n for n in range(1, 12)])
    assert timing.runs == 11
    assert timing.median_ms == pytest.approx(6)
    assert timing.best_ms == pytest.approx(1)
    assert timing.p90_ms == pytest.approx(10)
    assert timing.throughput_per_s == pytest.approx(1000 / 6)


def test_high_water_mark_is_read_from_proc():
    assert parse_high_water("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 5 kB\n") == 1234 * 1024
    assert parse_high_water("VmRSS:\t 5 kB\n") is None


def test_peak_memory_sees_a_large_array():
    before = peak_rss_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    block = bytearray(before + (64 << 20))
    assert block[-1] == 0
    block[::4096] = b"\1" * len(block[::4096])
    after = peak_rss_bytes()
    assert after is not None
    assert after >= before + (60 << 20)


def test_busy_ticks_are_those_of_our_cores_without_idle_and_iowait():
    stat = (
        "cpu  30 0 3 900 9 0 0 3 7 0\n"
        "cpu0 10 1 2 300 4 5 6 7 70 80\n"
        "cpu1 20 0 0 600 0 0 0 0 0 0\n"
        "cpu10 99 0 0 0 0 0 0 0 0 0\n"
        "intr 5 5\n"
    )
    assert busy_ticks(stat, {0}) == 10 + 1 + 2 + 5 + 6 + 7
    assert busy_ticks(stat, {0, 1}) == 31 + 20


def test_cores_taken_are_busy_seconds_that_are_not_ours():
    start, end = CpuClock(10.0, 100.0, 5.0), CpuClock(14.0, 107.0, 9.0)
    assert cores_taken(start, end) == pytest.approx((7 - 4) / 4)
    assert cores_taken(start, CpuClock(14.0, 103.0, 9.0)) == 0.0  # ticks are coarse
    assert cores_taken(None, end) is None
    assert cores_taken(start, start) is None


def test_the_clock_sees_our_own_work():
    start = cpu_clock()
    if start is None:
        pytest.skip("this system does not tell")
    while (end := cpu_clock()) is not None and end.own_s - start.own_s < 0.2:
        pass
    assert end is not None
    assert end.busy_s - start.busy_s >= 0.1
