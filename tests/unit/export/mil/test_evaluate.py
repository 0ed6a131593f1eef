"""Programs built with coremltools, saved, and evaluated from the saved bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sdk_export.mil.dtypes import DTYPES
from sdk_export.mil.evaluate import evaluate
from sdk_export.mil.package import read_package
from sdk_export.mil.program import operations
from sdk_export.mil.quiet import quiet_coremltools
from sdk_export.mil.weights import open_blob, read_tensor
from sdk_export.targets import coreml
from sdk_runtimes.errors import FeedError, IntegrityError, LoweringError, SessionError, UnknownChoiceError
from sdk_runtimes.specs import ProgramSpec
from unit.export.captures import capture

torch.set_num_threads(1)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def built(folder: Path, body: Callable[[Any, Any], Any], *, name: str = "m") -> Path:
    """Saves a program of one fp32 input `x` of shape (2, 3), written with coremltools' own builder."""
    package = folder / f"{name}.mlpackage"
    with quiet_coremltools() as coremltools:
        from coremltools.converters.mil.mil import Builder

        target = coremltools.target.iOS18

        @Builder.program(input_specs=[Builder.TensorSpec(shape=(2, 3))], opset_version=target)
        def program(x):
            return body(Builder, x)

        model = coremltools.convert(
            program,
            minimum_deployment_target=target,
            compute_precision=coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        model.save(str(package))
    return package


def only_output(package: Path, **options: Any) -> np.ndarray:
    program = read_package(package)
    (feed,) = program.function("main").inputs
    (name,) = program.function("main").block.outputs
    return evaluate(program, {feed: X}, **options)[name]


def test_cond_takes_the_branch_that_the_data_says(tmp_path):
    def body(mb, x):
        above = mb.greater(x=mb.reduce_sum(x=x), y=100.0)
        return mb.cond(pred=above, _true_fn=lambda: mb.add(x=x, y=1.0), _false_fn=lambda: mb.mul(x=x, y=2.0))

    np.testing.assert_array_equal(only_output(built(tmp_path, body)), X * 2)


def test_while_loop_runs_until_its_condition_fails(tmp_path):
    def body(mb, x):
        _, grown = mb.while_loop(
            _cond=lambda i, _: mb.less(x=i, y=5),
            _body=lambda i, value: (mb.add(x=i, y=1), mb.add(x=value, y=x)),
            loop_vars=(0, x),
        )
        return grown

    np.testing.assert_array_equal(only_output(built(tmp_path, body)), X * 6)


def test_unknown_operations_are_refused_by_type_name_and_count(tmp_path):
    def body(mb, x):
        drawn = mb.random_uniform(shape=[2, 3], low=0.0, high=1.0, name="first")
        again = mb.random_uniform(shape=[2, 3], low=0.0, high=1.0, name="second")
        return mb.add(x=mb.add(x=x, y=drawn), y=again)

    with pytest.raises(
        LoweringError, match=r"2 operations of 1 types[\s\S]*'random_uniform' ×2 \(first: 'first'\)"
    ):
        only_output(built(tmp_path, body))


def test_taps_show_what_lies_between(tmp_path):
    package = built(tmp_path, lambda mb, x: mb.mul(x=mb.add(x=x, y=1.0, name="middle"), y=3.0))
    (feed,) = read_package(package).function("main").inputs
    result = evaluate(package, {feed: X}, taps=["middle", feed])
    np.testing.assert_array_equal(result["middle"], X + 1)
    np.testing.assert_array_equal(result[feed], X)
    with pytest.raises(FeedError, match="nowhere"):
        evaluate(package, {feed: X}, taps=["nowhere"])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "takes"),
        ({"y": X}, "takes"),
        ({"x": X.astype(np.float64)}, "float64"),
        ({"x": X[0]}, r"float32\[3\]"),
        ({"x": X.T.copy()}, r"\[2, 3\]"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feeds, message, tmp_path):
    package = built(tmp_path, lambda mb, x: mb.relu(x=x))
    assert list(read_package(package).function("main").inputs) == ["x"]
    with pytest.raises(FeedError, match=message):
        evaluate(package, feeds)


def test_an_operation_that_cannot_run_is_named(tmp_path):
    package = built(tmp_path, lambda mb, x: mb.gather(x=x, indices=mb.cast(x=x, dtype="int32"), name="look"))
    with pytest.raises(SessionError, match=r"'look' \(gather\)[\s\S]*the axis has 2"):
        only_output(package)


def test_functions_share_one_package(tmp_path):
    with quiet_coremltools() as coremltools:
        parts = coremltools.utils.MultiFunctionDescriptor()
        for name, factor in (("double", 2.0), ("triple", 3.0)):
            package = built(
                tmp_path, lambda mb, x, factor=factor: mb.mul(x=x, y=factor, name="out"), name=name
            )
            parts.add_function(str(package), src_function_name="main", target_function_name=name)
        parts.default_function_name = "double"
        coremltools.utils.save_multifunction(parts, str(tmp_path / "both.mlpackage"))
    both = read_package(tmp_path / "both.mlpackage")
    np.testing.assert_array_equal(evaluate(both, {"x": X}, function="double")["out"], X * 2)
    np.testing.assert_array_equal(evaluate(both, {"x": X}, function="triple")["out"], X * 3)
    with pytest.raises(UnknownChoiceError, match="double"):
        evaluate(both, {"x": X}, function="main")


@pytest.mark.parametrize("damage", ["truncated", "sentinel", "missing", "manifest"])
def test_a_damaged_package_is_refused(damage, tmp_path):
    package = built(tmp_path, lambda mb, x: mb.matmul(x=x, y=np.ones((3, 64), np.float32)))
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    raw = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(raw[:200])
    elif damage == "sentinel":
        weights.write_bytes(raw[:64] + b"\0" + raw[65:])
    elif damage == "missing":
        weights.unlink()
    else:
        (package / "Manifest.json").write_text('{"rootModelIdentifier": "x", "itemInfoEntries": {}}')
    with pytest.raises(IntegrityError):
        read_package(package)


def test_weights_outside_the_package_are_refused(tmp_path):
    package = built(tmp_path, lambda mb, x: mb.matmul(x=x, y=np.ones((3, 64), np.float32)))
    model = package / "Data/com.apple.CoreML/model.mlmodel"
    inside = b"@model_path/weights/weight.bin"
    (tmp_path / "weight.bin").write_bytes((package / "Data/com.apple.CoreML/weights/weight.bin").read_bytes())
    model.write_bytes(model.read_bytes().replace(inside, b"@model_path/../../..//weight.bin"[: len(inside)]))
    with pytest.raises(IntegrityError):
        read_package(package)


@pytest.mark.parametrize(
    "name", ["int4", "uint1", "uint2", "uint3", "uint4", "uint6", "int8", "uint8", "fp16"]
)
def test_weights_read_as_coremltools_reads_them(name, tmp_path):
    with quiet_coremltools():
        from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter

    dtype = next(item for item in DTYPES if item.name == name)
    low = -8 if name == "int4" else 0
    values = np.random.default_rng(0).integers(low, low + min(2**dtype.bits, 100), 37).astype(dtype.numpy)
    raw = values.view(np.uint16) if name == "fp16" else values
    path = str(tmp_path / "weight.bin")
    writer = _BlobStorageWriter(path)
    getattr(writer, f"write_{name}_data")(raw[::-1].copy())
    offset = getattr(writer, f"write_{name}_data")(raw)
    del writer
    got = read_tensor(open_blob(Path(path)), offset, dtype, (37,))
    np.testing.assert_array_equal(got, values)
    theirs = np.asarray(getattr(_BlobStorageReader(path), f"read_{name}_data")(offset))
    np.testing.assert_array_equal(got.view(theirs.dtype), theirs)


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x):
        return self.second(self.first(x).relu())


def sqnr_db(got: np.ndarray, truth: np.ndarray) -> float:
    noise = np.mean(np.square(got - truth, dtype=np.float64))
    return float(10 * np.log10(np.mean(np.square(truth, dtype=np.float64)) / noise))


def compress(optimize: Any, scheme: str, model: Any) -> Any:
    def quantized(**options: Any) -> Any:
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64, **options)
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))

    if scheme == "int8":
        return quantized(dtype="int8")
    if scheme == "int4 blocks":
        return quantized(dtype="int4", granularity="per_block", block_size=32)
    if scheme == "palette":
        config = optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=64)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))
    config = optimize.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=64)
    return optimize.prune_weights(model, optimize.OptimizationConfig(global_config=config))


# What one expects of uniform noise at that many levels over a uniform weight's range, less 3 dB.
@pytest.mark.parametrize(
    ("scheme", "least", "most", "kind"),
    [
        ("int8", 40, 60, "constexpr_blockwise_shift_scale"),
        ("int4 blocks", 17, 35, "constexpr_blockwise_shift_scale"),
        ("palette", 15, 35, "constexpr_lut_to_dense"),
        ("sparse", 2, 20, "constexpr_sparse_to_dense"),
    ],
)
@pytest.mark.parametrize("minimum", ["iOS16", "iOS18"])
def test_compressed_weights_are_evaluated(scheme, least, most, kind, minimum, tmp_path):
    if (scheme, minimum) == ("int4 blocks", "iOS16"):
        pytest.skip("blocks came with iOS 18")
    torch.manual_seed(0)
    captured = capture(Wide().eval(), (torch.randn(8, 64),))
    files = coreml.write(captured, "fp32", tmp_path, minimum_target=minimum)
    spec = ProgramSpec("net", "coreml", "fp32", captured.inputs, captured.outputs, files)
    with quiet_coremltools() as coremltools:
        import coremltools.optimize.coreml as optimize

        model = coremltools.models.MLModel(str(tmp_path / "net.mlpackage"), skip_model_load=True)
        compress(optimize, scheme, model).save(str(tmp_path / "small.mlpackage"))
    small = tmp_path / "small.mlpackage"
    kinds = {item.type for item in operations(read_package(small).function("main").block)}
    assert {kind, "constexpr_affine_dequantize"} & kinds
    got = coreml.replay(small, spec, captured.samples)["output"]
    assert least <= sqnr_db(got, captured.reference(captured.samples)["output"]) <= most


def test_rounding_can_be_told_from_conversion(tmp_path):
    captured = capture(Wide().eval(), (torch.randn(8, 64),))
    files = coreml.write(captured, "fp16", tmp_path)
    spec = ProgramSpec("net", "coreml", "fp16", captured.inputs, captured.outputs, files)
    truth = captured.reference(captured.samples)["output"]
    rounded, exact = (
        sqnr_db(coreml.replay(tmp_path / files[0], spec, captured.samples, round_fp16=each)["output"], truth)
        for each in (True, False)
    )
    assert exact > rounded + 3  # what is left are the weights, rounded when they were written
