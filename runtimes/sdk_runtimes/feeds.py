"""Checks feeds against specs before an engine sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdk_runtimes.errors import FeedError
from sdk_runtimes.specs import DTYPES, SymbolRange, TensorSpec

Array = np.ndarray[Any, Any]


class FeedCheck:
    """Orders feeds by spec and refuses what does not fit. Built once per session: `run` is hot.

    Args:
        specs: the program's inputs.
        symbols: the range of every symbol in `specs`.
    """

    def __init__(self, specs: Sequence[TensorSpec], symbols: Sequence[SymbolRange]) -> None:
        self._specs = tuple(specs)
        self._ranges = {item.symbol: item for item in symbols}
        # (name, dtype, shape or None when symbolic) an input: what the fast path compares with
        self._rows = tuple(
            (spec.name, DTYPES[spec.dtype], spec.shape if spec.is_static else None) for spec in specs
        )
        self._has_symbols = any(shape is None for _, _, shape in self._rows)

    def ordered(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The arrays in the order of the specs.

        Raises:
            FeedError: a name, dtype or shape that does not fit; says what was expected and given.
        """
        if not isinstance(feeds, Mapping):
            raise FeedError(
                f"feeds is a {type(feeds).__name__}",
                why="inputs go by name",
                fix=f"pass {{{', '.join(f'{name!r}: array' for name, _, _ in self._rows)}}}",
            )
        arrays = []
        try:
            for name, dtype, shape in self._rows:
                array = feeds[name]
                if array.dtype != dtype or (shape is not None and array.shape != shape):
                    self._refuse(name, array)
                arrays.append(array)
        except (KeyError, AttributeError):
            self._refuse_names_and_types(feeds)
        if len(arrays) != len(feeds):
            self._refuse_names_and_types(feeds)
        if self._has_symbols:
            self._check_symbols(arrays)
        return arrays

    def _check_symbols(self, arrays: Sequence[Array]) -> None:
        sizes: dict[str, tuple[int, str]] = {}  # symbol -> (size, where it was first seen)
        for spec, array in zip(self._specs, arrays, strict=True):
            if array.ndim != len(spec.shape):
                self._refuse(spec.name, array)
            for dim, size in zip(spec.shape, array.shape, strict=True):
                if isinstance(dim, int):
                    if dim != size:
                        self._refuse(spec.name, array)
                    continue
                known = sizes.setdefault(dim, (size, spec.name))
                if known[0] != size:
                    self._refuse(spec.name, array, f"{dim!r} is {known[0]} in {known[1]!r}")
                bounds = self._ranges.get(dim)
                if bounds and not _is_within(size, bounds):
                    steps = "" if bounds.step == 1 else f" in steps of {bounds.step}"
                    reason = f"{dim!r} may be {bounds.minimum} to {bounds.maximum}{steps}"
                    self._refuse(spec.name, array, reason)

    def _refuse(self, name: str, array: Array, reason: str = "") -> None:
        spec = next(item for item in self._specs if item.name == name)
        given = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
        wrong_dtype = array.dtype != DTYPES[spec.dtype]
        raise FeedError(
            f"input {name!r} is {given}, expected {spec.dtype}[{', '.join(map(str, spec.shape))}]",
            why=reason or ("the dtype differs" if wrong_dtype else "the shape differs"),
            fix=f"pass array.astype(np.{spec.dtype})" if wrong_dtype else f"pass an array of {spec}",
        )

    def _refuse_names_and_types(self, feeds: Mapping[str, Array]) -> None:
        expected = [name for name, _, _ in self._rows]
        missing = [name for name in expected if name not in feeds]
        unknown = [name for name in feeds if name not in expected]
        if missing or unknown:
            raise FeedError(
                f"feeds have the names {sorted(map(str, feeds))}, expected {expected}",
                why="; ".join(
                    part
                    for part in (
                        f"missing {missing}" if missing else "",
                        f"unknown {unknown}" if unknown else "",
                    )
                    if part
                ),
                fix=f"pass {{{', '.join(f'{name!r}: array' for name in expected)}}}",
            )
        for name in expected:
            if not isinstance(feeds[name], np.ndarray):
                raise FeedError(
                    f"input {name!r} is a {type(feeds[name]).__name__}, expected a numpy array",
                    why="the runtime moves numpy arrays only",
                    fix="pass np.asarray(value), or tensor.numpy()",
                )


def _is_within(size: int, bounds: SymbolRange) -> bool:
    return bounds.minimum <= size <= bounds.maximum and not (size - bounds.minimum) % bounds.step
