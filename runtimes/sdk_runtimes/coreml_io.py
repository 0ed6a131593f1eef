"""What crosses the border of a Core ML program: names it allows, types it takes.

Both sides need it, the exporter that writes the package and the session that feeds it, so it lives here.

Core ML takes float16, float32 and int32 arrays of rank 1 to 5. What else a network takes or gives is
carried as one of these:

    network     Core ML     note
    float16     float16
    float32     float32
    float64     float32     computed in float32 or float16 anyway
    bool        int32       0 and 1
    int8        int32
    int16       int32
    int32       int32
    int64       int32       a value that int32 does not hold is refused
    uint8       int32
    uint16      int32
    rank 0      shape [1]
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from sdk_runtimes.errors import FeedError, LoweringError
from sdk_runtimes.feeds import Array
from sdk_runtimes.specs import DTYPES, TensorSpec

CARRIED: Mapping[str, str] = MappingProxyType(
    {
        "float16": "float16",
        "float32": "float32",
        "float64": "float32",
        "bool": "int32",
        "int8": "int32",
        "int16": "int32",
        "int32": "int32",
        "int64": "int32",
        "uint8": "int32",
        "uint16": "int32",
    }
)

# Words of the MIL text format.
_RESERVED = frozenset(
    {"any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string", "state"}
    | {
        "bf16",
        "fp16",
        "fp32",
        "fp64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    }
)
_ESCAPE = re.compile(r"_x([0-9a-f]+)_")
_ALSO_AN_INPUT = "\0"


def coreml_name(name: str) -> str:
    """A name that Core ML allows (`[A-Za-z_][A-Za-z0-9_]*`), different for every `name`.

    Legal names stay as they are. Any other character becomes `_x` + its code point in hex + `_`; so does the
    first character of a reserved word or of a name that starts with a digit, and an underscore that would
    make the result look escaped. `source_name` undoes it.
    """
    escaped = re.sub(r"[^A-Za-z0-9_]|_(?=x[0-9a-f])", lambda found: _escaped(found[0]), name)
    return _escaped(name[0]) + escaped[1:] if name in _RESERVED or name[0].isdigit() else escaped


def source_name(coreml: str) -> str:
    """The name that `coreml_name` was given."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), coreml).removesuffix(_ALSO_AN_INPUT)


def output_names(inputs: Iterable[str], outputs: Iterable[str]) -> tuple[str, ...]:
    """Core ML names of outputs; one that is also an input's name is told apart, as Core ML demands."""
    taken = frozenset(inputs)
    return tuple(coreml_name(name + _ALSO_AN_INPUT if name in taken else name) for name in outputs)


def _escaped(character: str) -> str:
    return f"_x{ord(character):x}_"


def carried_dtype(spec: TensorSpec) -> str:
    """How Core ML carries a tensor.

    Raises:
        LoweringError: it cannot.
    """
    if spec.dtype not in CARRIED:
        raise LoweringError(
            f"Core ML cannot carry {spec}",
            why=f"it carries {', '.join(CARRIED)}",
            fix=f"cast {spec.name!r} to int64 or float32 at the border of the model",
        )
    return CARRIED[spec.dtype]


def carry(array: Array, spec: TensorSpec) -> Array:
    """A feed as Core ML takes it.

    Raises:
        FeedError: an integer that int32 does not hold.
    """
    target = DTYPES[carried_dtype(spec)]
    if array.dtype.kind in "iu" and array.size:
        low, high = int(array.min()), int(array.max())
        limits = np.iinfo(target)
        if low < limits.min or high > limits.max:
            raise FeedError(
                f"feed {spec.name!r} holds {low if low < limits.min else high}",
                why="Core ML carries integers as int32",
                fix="keep them within 32 bits",
            )
    return array.astype(target, copy=False).reshape(array.shape or (1,))


def restore(array: Array, spec: TensorSpec) -> Array:
    """A Core ML result as the network gives it."""
    return array.astype(DTYPES[spec.dtype], copy=False).reshape(array.shape if spec.shape else ())
