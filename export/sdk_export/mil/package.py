"""Reads a program from a saved `.mlpackage`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdk_export.mil.dtypes import from_proto
from sdk_export.mil.program import Block, Function, Literal, Name, Operation, Program, Type, Value
from sdk_export.mil.quiet import quiet_coremltools
from sdk_export.mil.weights import Array, from_bytes, open_blob, read_tensor
from sdk_runtimes.errors import IntegrityError, LoweringError


def read_package(package: Path) -> Program:
    """Reads a saved `.mlpackage`, weights mapped and not loaded.

    Args:
        package: the `.mlpackage` folder, or the `Manifest.json` in it.

    Raises:
        IntegrityError: a file is missing or does not fit the program.
        LoweringError: not an ML program, or with a type the evaluator does not know.
        MissingExtraError: coremltools is not installed.
    """
    folder = package.parent if package.name == "Manifest.json" else package
    with quiet_coremltools("reading a Core ML package"):
        from coremltools.proto import Model_pb2
    model_file = _model_file(folder)
    spec = Model_pb2.Model()
    spec.ParseFromString(model_file.read_bytes())
    if spec.WhichOneof("Type") != "mlProgram":
        raise LoweringError(
            f"{folder.name} holds a {spec.WhichOneof('Type')!r}",
            why="only ML programs are evaluated",
            fix="export with target 'coreml'",
        )
    reader = _Reader(model_file.parent)
    functions = {name: reader.function(proto) for name, proto in spec.mlProgram.functions.items()}
    return Program(functions, dict(spec.description.metadata.userDefined))


def _model_file(folder: Path) -> Path:
    """The root item of a package's manifest."""
    try:
        manifest = json.loads((folder / "Manifest.json").read_text(encoding="utf-8"))
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        path = folder / "Data" / str(item["path"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{folder} is not a Core ML package", why=f"its Manifest.json: {error!r}", fix="export again"
        ) from error
    if not path.is_file() or folder.resolve() not in path.resolve().parents:
        raise IntegrityError(
            f"{folder}: {item['path']!r} is not in the package",
            why="the manifest names it",
            fix="export again",
        )
    return path


class _Reader:
    """Turns protobuf messages into our dataclasses. Knows where the weights lie."""

    def __init__(self, model_folder: Path) -> None:
        self._model_folder = model_folder
        self._blobs: dict[str, Array] = {}

    def function(self, proto: Any) -> Function:
        inputs = {item.name: read_type(item.type) for item in proto.inputs}
        return Function(proto.opset, inputs, self.block(proto.block_specializations[proto.opset]))

    def block(self, proto: Any) -> Block:
        operations = tuple(self.operation(item) for item in proto.operations)
        outputs = tuple(proto.outputs)
        names = tuple(item.name for item in proto.inputs)
        return Block(names, operations, outputs, _dying(operations, outputs))

    def operation(self, proto: Any) -> Operation:
        attributes = {name: self.value(value) for name, value in proto.attributes.items()}
        name = str(attributes.pop("name", ""))
        inputs: dict[str, tuple[Name | Literal, ...]] = {
            key: (Literal(value),) for key, value in attributes.items()
        }
        for key, argument in proto.inputs.items():
            inputs[key] = tuple(self._binding(binding) for binding in argument.arguments)
        outputs = tuple((item.name, read_type(item.type)) for item in proto.outputs)
        return Operation(
            proto.type,
            inputs,
            outputs,
            tuple(self.block(item) for item in proto.blocks),
            name or outputs[0][0],
        )

    def _binding(self, binding: Any) -> Name | Literal:
        if binding.WhichOneof("binding") == "name":
            return Name(binding.name)
        return Literal(self.value(binding.value))

    def value(self, proto: Any) -> Value:
        """A constant: an array, a string or a list."""
        declared = read_type(proto.type)
        if proto.WhichOneof("value") == "blobFileValue":
            assert declared.dtype is not None
            shape = tuple(size or 0 for size in declared.shape)
            blob = self._blob(proto.blobFileValue.fileName)
            return read_tensor(blob, proto.blobFileValue.offset, declared.dtype, shape)
        immediate = proto.immediateValue
        kind = immediate.WhichOneof("value")
        if kind == "tensor":
            return _immediate_tensor(immediate.tensor, declared)
        if kind == "list":
            return [self.value(item) for item in immediate.list.values]
        raise LoweringError(
            f"a constant of kind {kind!r}", why="the evaluator reads tensors and lists", fix="report it"
        )

    def _blob(self, name: str) -> Array:
        """A weight file, opened once; `@model_path` stands for the folder of the model file."""
        if name not in self._blobs:
            relative = name.removeprefix("@model_path/")
            path = self._model_folder / relative
            if not path.is_file() or self._model_folder.resolve() not in path.resolve().parents:
                raise IntegrityError(
                    f"{relative!r} is missing", why="the program keeps weights in it", fix="export again"
                )
            self._blobs[name] = open_blob(path)
        return self._blobs[name]


def _dying(operations: tuple[Operation, ...], outputs: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """For each operation, the names defined in this block that nobody reads after it."""
    last = {name: index for index, operation in enumerate(operations) for name, _ in operation.outputs}
    defined = set(last)
    for index, operation in enumerate(operations):
        last.update(dict.fromkeys(defined.intersection(operation.uses()), index))
    dying: list[list[str]] = [[] for _ in operations]
    for name, index in last.items():
        if name not in outputs:
            dying[index].append(name)
    return tuple(tuple(names) for names in dying)


def read_type(proto: Any) -> Type:
    """A declared type."""
    kind = str(proto.WhichOneof("type")).removesuffix("Type")
    if kind == "state":
        wrapped = read_type(proto.stateType.wrappedType)
        return Type("state", wrapped.dtype, wrapped.shape)
    if kind != "tensor":
        return Type(kind)
    tensor = proto.tensorType
    shape = tuple(
        dim.constant.size if dim.WhichOneof("dimension") == "constant" else None for dim in tensor.dimensions
    )
    return Type("tensor", from_proto(tensor.dataType), shape)


def _immediate_tensor(proto: Any, declared: Type) -> Value:
    """A tensor written into the program itself; a string scalar comes back as `str`."""
    assert declared.dtype is not None
    kind = proto.WhichOneof("value")
    shape = tuple(size or 0 for size in declared.shape)
    if kind == "strings":
        return proto.strings.values[0] if shape == () else list(proto.strings.values)
    if kind == "bytes":
        return from_bytes(np.frombuffer(bytearray(proto.bytes.values), np.uint8), declared.dtype, shape)
    values = list(getattr(proto, kind).values) if kind else []
    return np.array(values, dtype=declared.dtype.numpy).reshape(shape)
