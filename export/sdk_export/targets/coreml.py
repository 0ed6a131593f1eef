"""Core ML: an ML program in an `.mlpackage`, converted with coremltools on any machine.

Core ML itself runs on Apple's systems only. What the package says is evaluated by `sdk_export.mil`
everywhere; what Core ML makes of it is replayed on the Mac or phone.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sdk_export.captured import Captured
from sdk_export.mil.quiet import quiet_coremltools
from sdk_runtimes.coreml_io import carried_dtype, carry, coreml_name, output_names, restore
from sdk_runtimes.errors import LoweringError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.specs import DTYPES, ProgramSpec, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PRECISIONS = ("fp32", "fp16")
MINIMUM_TARGETS = ("iOS16", "iOS17", "iOS18")

# coremltools' name of what we call a precision
_COMPUTE = MappingProxyType({"fp32": "FLOAT32", "fp16": "FLOAT16"})


def write(
    captured: Captured, precision: str, folder: Path, *, minimum_target: str = "iOS18"
) -> tuple[str, ...]:
    """Converts a network and writes `<name>.mlpackage` into `folder`.

    Inputs and outputs keep the dtypes of the network in every precision, as far as Core ML can carry them
    (`sdk_runtimes.coreml_io`); their names are `coreml_name` of the network's. The same network gives
    the same bytes.

    Args:
        captured: the traced network.
        precision: one of `PRECISIONS`; what the operations compute in.
        folder: where the package goes.
        minimum_target: the oldest system that must run it, one of `MINIMUM_TARGETS`; macOS of the same year
            is meant as well.

    Returns:
        Paths relative to `folder`, `<name>.mlpackage/Manifest.json` first; the package is its parent.

    Raises:
        LoweringError: an operation, dtype or state that Core ML cannot express.
        MissingExtraError: coremltools is not installed.
        UnknownChoiceError: no such precision or minimum target.
    """
    for kind, given, known in (
        ("precision", precision, PRECISIONS),
        ("minimum target", minimum_target, MINIMUM_TARGETS),
    ):
        if given not in known:
            raise UnknownChoiceError(kind, given, known)
    with quiet_coremltools("target 'coreml'") as coremltools:
        from sdk_export.targets.coreml_fixes import INEXACT_PASSES
        from sdk_export.targets.coreml_lowering import lowered, naming_the_operation
        from sdk_export.targets.coreml_package import settle_package

        exported = lowered(captured.exported)
        _refuse_states(exported, precision)
        folder.mkdir(parents=True, exist_ok=True)
        package = folder / f"{captured.name}.mlpackage"
        pipeline = coremltools.PassPipeline()
        if precision == "fp32":
            pipeline.remove_passes(INEXACT_PASSES)
        with naming_the_operation(exported):
            coremltools.convert(
                exported,
                inputs=_input_types(coremltools, captured),
                outputs=_output_types(coremltools, captured),
                compute_precision=coremltools.precision[_COMPUTE[precision]],
                minimum_deployment_target=coremltools.target[minimum_target],
                package_dir=str(package),
                pass_pipeline=pipeline,
                skip_model_load=True,
            )
        return settle_package(package, _metadata(captured))


def replay(entry: Path, spec: ProgramSpec, feeds: Mapping[str, Array], **options: Any) -> dict[str, Array]:
    """Evaluates a written package with feeds and results as the network has them.

    Args:
        entry: the package's `Manifest.json`.
        spec: names and dtypes on the outside.
        feeds: arrays by input name.
        options: passed on to `sdk_export.mil.evaluate.evaluate`.

    Returns:
        Arrays by output name; taps and states under their own names.

    Raises:
        LoweringError, FeedError, SessionError: as `evaluate`.
    """
    from sdk_export.mil.evaluate import evaluate

    carried = {coreml_name(item.name): carry(feeds[item.name], item) for item in spec.inputs}
    results = evaluate(entry, carried, **options)
    names = output_names([item.name for item in spec.inputs], [item.name for item in spec.outputs])
    outputs = {
        item.name: restore(results.pop(name), item) for item, name in zip(spec.outputs, names, strict=True)
    }
    return {**outputs, **results}


def _input_types(coremltools: Any, captured: Captured) -> list[Any]:
    """Inputs as coremltools wants them; a symbol is one range wherever it occurs."""
    ranges = {item.symbol: item for item in captured.symbols}
    dims: dict[str, Any] = {}
    for spec in captured.inputs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim not in dims:
                bounds, size = ranges[dim], captured.samples[spec.name].shape[axis]
                dims[dim] = coremltools.RangeDim(bounds.minimum, bounds.maximum, default=size)
    return [
        coremltools.TensorType(
            name=coreml_name(spec.name),
            shape=tuple(dims[dim] if isinstance(dim, str) else dim for dim in spec.shape) or (1,),
            dtype=DTYPES[carried_dtype(spec)].type,
        )
        for spec in captured.inputs
    ]


def _output_types(coremltools: Any, captured: Captured) -> list[Any]:
    """Outputs as coremltools wants them; their shapes follow from the graph."""
    names = output_names(_names(captured.inputs), _names(captured.outputs))
    return [
        coremltools.TensorType(name=name, dtype=DTYPES[carried_dtype(spec)].type)
        for name, spec in zip(names, captured.outputs, strict=True)
    ]


def _names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def _metadata(captured: Captured) -> dict[str, str]:
    """What a person sees in Xcode about names that Core ML does not allow."""
    legal = [coreml_name(name) for name in _names(captured.inputs)]
    legal += output_names(_names(captured.inputs), _names(captured.outputs))
    return dict(zip(legal, _names(captured.inputs) + _names(captured.outputs), strict=True))


def _refuse_states(exported: "ExportedProgram", precision: str) -> None:
    """Core ML's states are fp16, so a network that keeps state cannot be fp32 there."""
    mutated = list(exported.graph_signature.buffers_to_mutate.values())
    if mutated and precision != "fp16":
        raise LoweringError(
            f"Core ML cannot keep the state {mutated[0]!r} in {precision}",
            why="its states are fp16, and rounding them behind your back would not be fp32",
            fix="export with precision='fp16', or pass the state in and out of `forward`",
        )


def module_values(captured: Captured, _precision: str) -> dict[str, str]:
    """Module path -> name of its last value in the package, which keeps the names of the traced graph.

    But for the outputs, which are called as the network's.
    """
    with quiet_coremltools("target 'coreml'"):
        from sdk_export.targets.coreml_lowering import lowered

        graph = lowered(captured.exported).graph
    names = output_names(_names(captured.inputs), _names(captured.outputs))
    given = [node for node in graph.output_node().args[0] if getattr(node, "op", "") == "call_function"]
    renamed = dict(zip(given, names, strict=True)) if len(given) == len(names) else {}
    values: dict[str, str] = {}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") if node.op == "call_function" else None
        for path, _ in (stack or {}).values():
            values[path] = renamed.get(node, node.name)
    return values
