"""A Core ML program: functions, blocks, operations, constants."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdk_export.mil.dtypes import Dtype
from sdk_runtimes.errors import UnknownChoiceError

# A tensor, a string, or a list of either.
Value = Any


@dataclass(frozen=True)
class Type:
    """What a value is declared to be.

    Attributes:
        kind: "tensor", "list", "state", "dictionary" or "tuple".
        dtype: element type of a tensor or of the tensor in a state.
        shape: one size an axis, None where it is flexible.
    """

    kind: str
    dtype: Dtype | None = None
    shape: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Name:
    """A use of a value by its name."""

    name: str


@dataclass(frozen=True, eq=False)
class Literal:
    """A value that stands where it is used."""

    value: Value


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation.

    Attributes:
        type: "conv", "add", …
        inputs: arguments by parameter; most parameters take one, some several.
        outputs: names with their declared types.
        blocks: the nested blocks of `cond` and `while_loop`.
        name: its own name, for messages.
    """

    type: str
    inputs: Mapping[str, tuple[Name | Literal, ...]]
    outputs: tuple[tuple[str, Type], ...]
    blocks: tuple["Block", ...]
    name: str

    def uses(self) -> Iterator[str]:
        """Every name this operation reads, nested blocks included."""
        for arguments in self.inputs.values():
            yield from (argument.name for argument in arguments if isinstance(argument, Name))
        for block in self.blocks:
            for operation in block.operations:
                yield from operation.uses()
            yield from block.outputs


@dataclass(frozen=True, eq=False)
class Block:
    """Operations in the order they run.

    Attributes:
        inputs: the names it binds.
        operations: in order.
        outputs: the names it gives back.
        dying: for each operation, the names nobody reads after it.
    """

    inputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    dying: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Function:
    """An entry point of a program.

    Attributes:
        opset: "CoreML8" for iOS 18.
        inputs: names with their types; states are inputs too.
        block: the body.
    """

    opset: str
    inputs: Mapping[str, Type]
    block: Block


@dataclass(frozen=True, eq=False)
class Program:
    """A saved program.

    Attributes:
        functions: by name; a single-function package has "main".
        metadata: the user-defined strings of the package.
    """

    functions: Mapping[str, Function]
    metadata: Mapping[str, str]

    def function(self, name: str) -> Function:
        """One function.

        Raises:
            UnknownChoiceError: there is none of that name.
        """
        if name not in self.functions:
            raise UnknownChoiceError("function", name, sorted(self.functions))
        return self.functions[name]


def operations(block: Block) -> Iterator[Operation]:
    """Every operation of a block and of the blocks in it."""
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from operations(nested)
