import numpy as np
import pytest
import torch

from sdk_pruning.calibration import CHUNK, Calibration, read_calibration
from sdk_pruning.calls import Call, as_call, sample_call
from sdk_runtimes.errors import PruningError, SampleInputsError

LIKE = Call((torch.zeros(2, 3),))


def read(data: object, limit: int = 64, *, any_batch: bool = True) -> Calibration:
    return read_calibration(data, LIKE, limit=limit, any_batch=any_batch)


def samples(found: Calibration) -> torch.Tensor:
    return torch.cat([call.args[0] for call in (*found.fit, *found.judge)])


@pytest.mark.parametrize(
    "data",
    [
        torch.arange(120.0).reshape(40, 3),
        np.arange(120, dtype=np.float32).reshape(40, 3),
        list(torch.arange(120.0).reshape(40, 3).split(8)),
        [(part, torch.zeros(8)) for part in torch.arange(120.0).reshape(40, 3).split(8)],
        (part for part in torch.arange(120.0).reshape(40, 3).split(8)),
        lambda: iter(torch.arange(120.0).reshape(40, 3).split(8)),
    ],
    ids=["tensor", "array", "list", "with labels", "generator", "function"],
)
def test_every_form_of_data_gives_the_same_samples(data: object) -> None:
    found = read(data)
    assert found.samples == 40
    assert torch.equal(samples(found), torch.arange(120.0).reshape(40, 3))


def test_the_last_quarter_judges_and_is_not_fitted_to() -> None:
    found = read(torch.arange(240.0).reshape(80, 3), limit=80)
    judged = torch.cat([call.args[0] for call in found.judge])
    assert found.held_out == 20
    assert torch.equal(judged, torch.arange(240.0).reshape(80, 3)[60:])
    assert all(call.batch_size <= CHUNK for call in (*found.fit, *found.judge))


def test_a_generator_without_end_is_read_up_to_the_limit() -> None:
    def endless():
        while True:
            yield torch.randn(5, 3)

    assert read(endless(), limit=32).samples == 32


def test_a_single_sample_fits_and_judges() -> None:
    found = read(torch.ones(1, 3))
    assert (found.samples, found.held_out) == (1, 0)
    assert len(found.fit) == len(found.judge) == 1


def test_a_network_of_fixed_batch_gets_whole_batches() -> None:
    found = read([torch.ones(2, 3)] * 8, any_batch=False)
    assert {call.batch_size for call in (*found.fit, *found.judge)} == {2}
    assert found.held_out == 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "no samples"),
        (torch.zeros(0, 3), "no samples"),
        ([torch.full((2, 3), float("nan"))], "batch 0 .* NaN"),
        ([torch.ones(2, 3), torch.full((2, 3), float("inf"))], "batch 1 .* NaN or infinity"),
        ([torch.ones(2, 4)], r"shape \(2, 4\)"),
        ([torch.ones(3)], r"shape \(3,\)"),
        (7, "type int"),
    ],
)
def test_unfit_data_are_refused(data: object, says: str) -> None:
    with pytest.raises(PruningError, match=says):
        read(data)


def test_sample_inputs_must_hold_a_tensor() -> None:
    with pytest.raises(SampleInputsError, match="no sample inputs"):
        sample_call(None)
    with pytest.raises(SampleInputsError, match="no tensor"):
        sample_call(("a",))


def test_keyword_batches_keep_the_samples_other_arguments() -> None:
    like = Call(kwargs={"x": torch.zeros(1, 2), "flag": True})
    call = as_call({"x": torch.ones(4, 2)}, like)
    assert call.kwargs["flag"] is True
    assert call.batch_size == 4
