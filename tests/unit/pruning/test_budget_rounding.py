import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk_pruning.budget.menus import legal_widths
from sdk_pruning.budget.rounding import (
    LEAST_CHOICES,
    SMALLEST_STEP,
    resolve_round_to,
    unit_step,
    vector_width,
)
from sdk_runtimes.errors import ArgumentError, UnknownChoiceError


@pytest.mark.parametrize(("capability", "lanes"), [("AVX512", 16), ("AVX2", 8), ("DEFAULT", 4), ("new", 4)])
def test_auto_is_the_vector_width_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capability: str, lanes: int
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert resolve_round_to("auto", "openvino:cpu") == resolve_round_to("auto") == lanes


def test_a_gpu_has_its_own_width_and_an_unknown_device_is_refused() -> None:
    assert vector_width("onnxruntime:cuda:1") == vector_width("gpu") == 8
    with pytest.raises(UnknownChoiceError, match="round_to=16"):
        vector_width("coreml:npu")


@pytest.mark.parametrize("bad", [0, -8, 2.0, True, "8", None])
def test_a_round_to_that_is_no_positive_number_is_refused(bad: object) -> None:
    with pytest.raises(ArgumentError, match="round_to is"):
        resolve_round_to(bad)  # type: ignore[arg-type]  # what a user may pass


def test_a_number_is_taken_as_it_is() -> None:
    assert [resolve_round_to(each) for each in (1, 3, 8)] == [1, 3, 8]


@pytest.mark.parametrize(
    ("units", "step"),
    [
        (1280, 16),
        (96, 16),
        (80, 8),
        (64, 8),
        (40, 4),
        (24, 4),
        (16, 4),
        (8, 4),
        (6, 2),
        (4, 2),
        (3, 1),
        (1, 1),
    ],
)
def test_small_groups_take_a_smaller_step(units: int, step: int) -> None:
    assert unit_step(units, 16) == step


def test_heads_that_fill_vectors_are_not_rounded() -> None:
    assert unit_step(12, 16, channels=64) == 1
    assert unit_step(48, 16, channels=4) == 4


def test_rows_keep_equally_many() -> None:
    assert unit_step(6 * 64, 16, rows=6) == 48  # 8 of every row's 64


@settings(deadline=None, max_examples=200)
@given(units=st.integers(1, 3000), round_to=st.integers(1, 64), channels=st.integers(1, 64))
def test_a_group_that_could_be_pruned_still_can(units: int, round_to: int, channels: int) -> None:
    step = unit_step(units, round_to, channels=channels)
    widths = legal_widths(units, step)
    assert widths == tuple(sorted(set(widths)))
    assert widths[-1] == units
    assert all(width % step == 0 for width in widths[:-1])
    assert len(widths) >= 2 or units == 1
    exact = round_to // math.gcd(round_to, channels)
    assert step <= exact
    # Without need the step is not made smaller than a vector.
    assert step == exact or units // exact < LEAST_CHOICES


@settings(deadline=None, max_examples=100)
@given(units=st.integers(2 * SMALLEST_STEP, 3000))
def test_the_blocked_layout_is_not_left_for_the_sake_of_choice(units: int) -> None:
    assert unit_step(units, 16) % SMALLEST_STEP == 0
