"""Einsum as matrix products, so that a traced graph holds nothing but operations that every rule knows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class EinsumAsProducts(TorchFunctionMode):
    """While it is entered, `torch.einsum` runs as permutations, reshapes and `matmul`."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of every function."""
        if function is torch.einsum and isinstance(args[0], str) and not kwargs:
            operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
            found = as_products(args[0], list(operands))
            if found is not None:
                return found
        return function(*args, **(kwargs or {}))


def as_products(equation: str, operands: list[Tensor]) -> Tensor | None:
    """The result of an einsum, or None where it is no chain of products.

    That is: a letter stands twice in one operand, or operands broadcast.
    """
    parsed = _parsed(equation, [operand.ndim for operand in operands])
    if parsed is None:
        return None
    terms, output = parsed
    if any(len(set(term)) < len(term) for term in terms) or _broadcasts(terms, operands):
        return None
    letters, value = terms[0], operands[0]
    for number in range(1, len(terms)):
        wanted = set(output).union(*terms[number + 1 :])
        letters, value = _pair((letters, value), (terms[number], operands[number]), wanted)
    letters, value = _summed(letters, value, set(output))
    return _ordered(letters, value, output)


def _parsed(equation: str, ranks: list[int]) -> tuple[list[str], str] | None:
    """Letters of each operand and of the output, an ellipsis spelled in capital letters."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    if "..." in equation:
        counts = {rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term}
        if len(counts) != 1 or any(letter.isupper() for letter in equation) or not arrow:
            return None
        spelled = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: counts.pop()]
        terms, output = [term.replace("...", spelled) for term in terms], output.replace("...", spelled)
    if not arrow:
        output = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    return terms, output


def _broadcasts(terms: list[str], operands: list[Tensor]) -> bool:
    sizes: dict[str, Any] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, size in zip(term, operand.shape, strict=True):
            known = sizes.setdefault(letter, size)
            if isinstance(size, int) and isinstance(known, int) and size != known:
                return True
    return False


def _summed(letters: str, value: Tensor, wanted: set[str]) -> tuple[str, Tensor]:
    """Without the letters that nothing else needs."""
    gone = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    if not gone:
        return letters, value
    return "".join(letter for letter in letters if letter in wanted), value.sum(gone)


def _ordered(letters: str, value: Tensor, order: str) -> Tensor:
    if letters == order:
        return value
    if len(letters) == 2:
        return value.transpose(0, 1)
    return value.permute([letters.index(letter) for letter in order])


def _pair(one: tuple[str, Tensor], other: tuple[str, Tensor], wanted: set[str]) -> tuple[str, Tensor]:
    """The product of two operands, summed over the letters that only they have."""
    if isinstance(one[1], nn.Parameter) and not isinstance(other[1], nn.Parameter):
        one, other = other, one  # weights stand on the right
    letters, left = _summed(*one, wanted | set(other[0]))
    others, right = _summed(*other, wanted | set(one[0]))
    shared = [letter for letter in letters if letter in others]
    batch = "".join(letter for letter in shared if letter in wanted)
    inner = "".join(letter for letter in shared if letter not in wanted)
    rows = "".join(letter for letter in letters if letter not in others)
    columns = "".join(letter for letter in others if letter not in letters)
    left = _ordered(letters, left, batch + rows + inner)
    if not inner:
        right = _ordered(others, right, batch + columns)
        right = right.reshape((*right.shape[: len(batch)], *(1,) * len(rows), *right.shape[len(batch) :]))
        return batch + rows + columns, left.reshape((*left.shape, *(1,) * len(columns))) * right
    right = _ordered(others, right, batch + inner + columns)
    return batch + rows + columns, _product(left, right, len(batch), len(inner))


def _product(left: Tensor, right: Tensor, batch: int, inner: int) -> Tensor:
    """(batch…, rows…, inner…) by (batch…, inner…, columns…)."""
    rows, columns = left.shape[batch : left.ndim - inner], right.shape[batch + inner :]
    if inner > 1:
        left, right = left.flatten(-inner), right.flatten(batch, batch + inner - 1)
    left = _one_axis(left, batch, len(rows)) if batch or not rows else left
    right = _one_axis(right, batch + 1, len(columns))
    result = left @ right
    if len(columns) != 1:
        result = result.reshape((*result.shape[:-1], *columns))
    if batch or not rows:
        at = result.ndim - len(columns) - 1
        result = result.reshape((*result.shape[:at], *rows, *result.shape[at + 1 :]))
    return result


def _one_axis(value: Tensor, start: int, count: int) -> Tensor:
    """With `count` axes from `start` on merged into one."""
    if count == 1:
        return value
    return value.flatten(start, start + count - 1) if count else value.unsqueeze(start)
