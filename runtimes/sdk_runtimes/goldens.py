"""Goldens: inputs and eager outputs, replayed at first load on a device. Safetensors, no pickle."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sdk_runtimes.bundle_files import open_regular
from sdk_runtimes.errors import ArgumentError, UnsafeBundleError
from sdk_runtimes.feeds import Array
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.specs import DTYPES

Case = tuple[dict[str, Array], dict[str, Array]]
_SIDES = ("in", "out")


def write_goldens(path: Path, cases: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> None:
    """Writes cases as `<case>/in/<name>` and `<case>/out/<name>`, numbered from 0.

    Args:
        path: the safetensors file.
        cases: (inputs, outputs) by name; any dtype of `DTYPES`.

    Raises:
        ArgumentError: a dtype that is not one of them.
    """
    from safetensors.numpy import save

    tensors = {
        f"{number}/{side}/{name}": _plain(name, array)
        for number, case in enumerate(cases)
        for side, arrays in zip(_SIDES, case, strict=True)
        for name, array in arrays.items()
    }
    # Through Python's own file: a full disk is then an OSError that `stage_bundle` explains.
    path.write_bytes(save(tensors))


def read_goldens(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> list[Case]:
    """Reads what `write_goldens` wrote.

    Raises:
        UnsafeBundleError: not safetensors, too large, or other keys than `write_goldens` gives.
        IntegrityError: there is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(_read(path, limits))
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise UnsafeBundleError(
            f"{path.name!r} is not a safetensors file we write", why=str(error)
        ) from error
    cases: dict[int, Case] = {}
    for number, side, name, array in _split(path, tensors):
        case = cases.setdefault(number, ({}, {}))
        case[_SIDES.index(side)][name] = array
    if sorted(cases) != list(range(len(cases))):
        raise UnsafeBundleError(
            f"{path.name!r} numbers its cases {sorted(cases)[:8]}", why="they count from 0"
        )
    return [cases[number] for number in range(len(cases))]


def _plain(name: str, array: Array) -> Array:
    if array.dtype.name not in DTYPES:
        raise ArgumentError(
            f"golden {name!r} has dtype {array.dtype}", why=f"the known ones are {', '.join(DTYPES)}"
        )
    # A copy in C order and the machine's byte order, as safetensors takes it; keeps 0-d arrays 0-d.
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _read(path: Path, limits: Limits) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
        if size > limits.golden_bytes or header > limits.header_bytes or header + 8 > size:
            raise UnsafeBundleError(
                f"{path.name!r} has {size} bytes, of which a header of {header}",
                why=f"at most {limits.golden_bytes}, with a header of at most {limits.header_bytes}",
            )
        file.seek(0)
        return file.read()


def _split(path: Path, tensors: Mapping[str, Array]) -> Iterator[tuple[int, str, str, Array]]:
    for key, array in tensors.items():
        number, _, rest = key.partition("/")
        side, _, name = rest.partition("/")
        # Short plain digits only: int() takes "٣", "1_0" and numbers that take minutes to read.
        if not (number.isascii() and number.isdigit() and len(number) < 9) or side not in _SIDES or not name:
            raise UnsafeBundleError(
                f"{path.name!r} holds {key!r}", why="keys are '<case>/in/<name>', '<case>/out/<name>'"
            )
        if array.dtype.name not in DTYPES:
            raise UnsafeBundleError(f"{path.name!r} holds {key!r} of dtype {array.dtype}")
        yield int(number), side, name, array
