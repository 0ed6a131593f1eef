"""Lower precisions pass the gate's default tolerances on every target that has them, or are refused."""

from pathlib import Path

import pytest

import sdk
from contract_truth import ship
from networks import CASES

TARGETS = {"fp16": ("onnx", "openvino", "coreml", "tensorrt"), "bf16": ("openvino", "tensorrt")}

# bf16 keeps 8 bits: no op is at fault, but these add up to more than 2e-2 on some draw (2.05e-2 to 3.5e-2).
BEYOND = {
    ("dit", "bf16"): "time embedding: sines of large arguments, and adaLN scales multiply its error",
    ("kv_cache", "bf16"): "keys of inputs at the end of their range: a LayerNorm of almost constant rows",
    ("lstm", "bf16"): "the same in front of a recurrence",
}

FAST = ("mlp_tied", "nested_inputs", "integers_and_bools")


def _rows() -> list:
    return [
        pytest.param(name, precision, marks=() if name in FAST else pytest.mark.slow)
        for name in sorted(CASES)
        for precision in TARGETS
        if (name, precision) not in BEYOND
    ]


@pytest.mark.parametrize(("name", "precision"), _rows())
def test_passes_within_the_default_tolerance(name: str, precision: str, tmp_path: Path) -> None:
    bundle = ship(CASES[name], tmp_path / "out.bundle", TARGETS[precision], precision).bundle
    for program in bundle.manifest.programs:
        record = bundle.quality(program)
        assert record is not None
        assert program.precision == precision
        assert record.repaired == ()
        assert record.tolerance.rel_rmse == 2e-2
        assert 0 < max(item.rel_rmse for item in record.outputs) <= 2e-2, "nothing was rounded, or too much"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS["bf16"])
@pytest.mark.parametrize(("name", "precision"), sorted(BEYOND))
def test_what_goes_beyond_is_refused_and_fits_a_wider_tolerance(
    name: str, precision: str, target: str, tmp_path: Path
) -> None:
    case = CASES[name]
    given = {
        "sample_inputs": case.sample_inputs,
        "sample_kwargs": case.sample_kwargs,
        "dynamic_shapes": case.dynamic_shapes,
        "precision": precision,
        "target": target,
    }
    with pytest.raises(sdk.errors.QualityError):
        sdk.export(case.build(), tmp_path / "out.bundle", **given)
    gate = sdk.Gate(tolerance=sdk.Tolerance(5e-2))
    sdk.export(case.build(), tmp_path / "out.bundle", gate=gate, **given)


def test_the_list_of_limits_names_cases_that_exist() -> None:
    assert {name for name, _ in BEYOND} | set(FAST) <= set(CASES)
