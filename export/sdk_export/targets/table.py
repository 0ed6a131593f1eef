"""The targets: one row a format. A new target is one file in this folder and one row here."""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sdk_export.captured import Source, Write
from sdk_export.evaluations import (
    Evaluation,
    evaluate_coreml,
    evaluate_onnx,
    evaluate_openvino,
    evaluate_tensorrt,
)
from sdk_runtimes.errors import UnknownChoiceError
from sdk_runtimes.specs import ProgramSpec


@dataclass(frozen=True)
class Target:
    """A format that a program is lowered to.

    Attributes:
        name: what users write.
        module: where `write` is, and `profile_options` and `module_values` if the target has them;
            imported when it is needed, since it brings heavy packages.
        precisions: what it can compute in.
        evaluate: opens the written files for the gate.
        needs: the import that `write` cannot do without, a key of `sdk_runtimes.require.EXTRAS`.
        takes_onnx: whether a foreign ONNX file can be lowered to it.
        keeps_modules: whether single modules can stay in fp32.
        unverified: what the gate cannot show on this machine; empty when the real runtime runs here.
    """

    name: str
    module: str
    precisions: tuple[str, ...]
    evaluate: Callable[[ProgramSpec, Path], AbstractContextManager[Evaluation]]
    needs: str
    takes_onnx: bool = True
    keeps_modules: bool = True
    unverified: str = ""

    @property
    def write(self) -> Write:
        """Lowers and writes."""
        write: Write = importlib.import_module(self.module).write
        return write

    def options(self, source: Source) -> Mapping[str, str]:
        """What the backend must be told beyond the files."""
        function = getattr(importlib.import_module(self.module), "profile_options", None)
        return function(source) if function else {}

    def module_values(self, source: Source, precision: str) -> Mapping[str, str]:
        """Module path -> name of its last value in the file."""
        values: Mapping[str, str] = importlib.import_module(self.module).module_values(source, precision)
        return values


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        row.name: row
        for row in (
            Target("onnx", "sdk_export.targets.onnx", ("fp32", "fp16"), evaluate_onnx, needs="onnxscript"),
            Target(
                "openvino",
                "sdk_export.targets.openvino",
                ("fp32", "fp16", "bf16"),
                evaluate_openvino,
                needs="openvino",
                keeps_modules=False,
            ),
            Target(
                "coreml",
                "sdk_export.targets.coreml",
                ("fp32", "fp16"),
                evaluate_coreml,
                needs="coremltools",
                takes_onnx=False,
                keeps_modules=False,
                unverified="right in our MIL evaluator; Core ML itself has not run it "
                "(sdk.load on a Mac replays)",
            ),
            Target(
                "tensorrt",
                "sdk_export.targets.tensorrt",
                ("fp32", "fp16", "bf16"),
                evaluate_tensorrt,
                needs="onnxscript",
                unverified="its graph is right on a CPU engine; no TensorRT engine was built here "
                "(sdk.load on the GPU builds and replays)",
            ),
        )
    }
)


def find_target(name: str, precision: str) -> Target:
    """A row of the table that has the precision.

    Raises:
        UnknownChoiceError: no such target, or the target lacks the precision; lists those there are.
    """
    if name not in TARGETS:
        raise UnknownChoiceError("target", name, TARGETS)
    target = TARGETS[name]
    every = dict.fromkeys(p for row in TARGETS.values() for p in row.precisions)
    if precision not in every:
        raise UnknownChoiceError("precision", precision, every)
    if precision not in target.precisions:
        raise UnknownChoiceError(f"precision of target {name!r}", precision, target.precisions)
    return target
