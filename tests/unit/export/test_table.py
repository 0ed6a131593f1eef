"""The table of targets agrees with the modules it names and with the runtimes."""

import importlib
import itertools

import pytest

from sdk_export.targets.table import TARGETS, find_target
from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.program_files import CHECKS
from sdk_runtimes.require import EXTRAS


@pytest.mark.parametrize("name", TARGETS)
def test_a_row_agrees_with_its_module(name):
    row = TARGETS[name]
    module = importlib.import_module(row.module)
    assert module.__name__.rpartition(".")[2] == row.name == name
    assert row.precisions == module.PRECISIONS
    assert callable(row.write)
    assert callable(module.module_values)
    assert row.needs in EXTRAS


def test_every_target_is_checked_before_its_engine_reads_it():
    assert set(CHECKS) == set(TARGETS)


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, p) for name, row in TARGETS.items() for p in row.precisions],
)
def test_what_is_in_the_table_is_found(name, precision):
    assert find_target(name, precision).name == name


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(UnknownChoiceError, match="unknown target 'tflite'") as caught:
        find_target("tflite", "fp32")
    assert caught.value.known == tuple(TARGETS)
    assert all(f"'{name}'" in str(caught.value) for name in TARGETS)


@pytest.mark.parametrize("precision", ["int4", "FP32", "float16", ""])
def test_an_unknown_precision_lists_the_known_ones(precision):
    with pytest.raises(UnknownChoiceError, match=f"unknown precision '{precision}'") as caught:
        find_target("onnx", precision)
    assert set(caught.value.known) == set(itertools.chain(*(row.precisions for row in TARGETS.values())))


@pytest.mark.parametrize("name", ["onnx", "coreml"])
def test_a_precision_that_the_target_lacks_lists_those_it_has(name):
    with pytest.raises(UnknownChoiceError, match=f"precision of target '{name}' 'bf16'") as caught:
        find_target(name, "bf16")
    assert caught.value.known == ("fp32", "fp16")
