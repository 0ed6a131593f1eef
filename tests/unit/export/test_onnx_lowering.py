"""The one lowering to ONNX: every build starts from the same translation and leaves it as it was."""

import onnx_ir as ir
import pytest
import torch
from torch import nn

from sdk_export.capture import capture
from sdk_export.onnx_lowering import build_model, forget_translation, last_values


@pytest.fixture
def captured():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Mish(), nn.Linear(8, 2))
    yield capture(net.eval(), sample_inputs=torch.randn(2, 4))
    forget_translation()


def _described(model: ir.Model) -> list[tuple]:
    return [
        (node.op_type, [v.name for v in node.inputs if v], [(v.name, v.dtype) for v in node.outputs])
        for node in model.graph
    ]


def test_a_build_in_low_precision_leaves_the_next_one_alone(captured):
    first = _described(build_model(captured, "fp32"))
    lowered = _described(build_model(captured, "fp16"))
    assert lowered != first
    assert _described(build_model(captured, "fp32")) == first


def test_a_module_promoted_in_a_second_build_is_cast_on_both_sides(captured):
    from dataclasses import replace

    build_model(captured, "bf16")
    promoted = build_model(replace(captured, keep_fp32=frozenset({"1"})), "bf16")
    (mish,) = (node for node in promoted.graph if node.op_type == "Mish")
    assert mish.inputs[0].producer().op_type == "Cast"
    assert {user.op_type for user, _ in mish.outputs[0].uses()} == {"Cast"}


def test_values_carry_their_modules(captured):
    values = last_values(build_model(captured, "fp32").graph)
    assert set(values) == {"0", "1", "2"}
    assert values["2"] == "output"


def test_nothing_of_this_machine_travels(captured):
    model = build_model(captured, "fp32")
    for node in model.graph:
        assert set(node.metadata_props) <= {"module"}
        assert node.doc_string is None
    assert not model.metadata_props
