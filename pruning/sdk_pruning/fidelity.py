"""Subset fidelity: how much of a layer's output a subset of its inputs can still explain (arXiv 2511.19566).

Components are what single units contribute to one output, A_i = w_i · u_i; Q_ij = E⟨A_i, A_j⟩ is their
similarity, and the fidelity of a subset C is FS(C) = max_δ 1 − E‖Y − Σ_C δ_i A_i‖² / E‖Y‖² (definition 3.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdk_pruning.components import Consumer, Curve, Rows
from sdk_runtimes.errors import ArgumentError

RIDGE = 1e-4
"""Added to the diagonal, relative to its mean (the paper's λ). It is part of what "the second moment" means
here: errors and energies are measured with it, so that they stay consistent, finite and within 0 … 1."""


def regularised(second: Tensor, ridge: float = RIDGE) -> Tensor:
    """S + ridge · mean(diag S) · I, float64 (N, N)."""
    result = second.to(torch.float64).clone()
    diagonal = result.diagonal()
    diagonal += ridge * diagonal.mean()
    return result


def cholesky(second: Tensor) -> Tensor:
    """Lower factor of a moment.

    Of very few samples rounding can outweigh the ridge: where the moment is not positive definite, its
    diagonal grows tenfold until it is.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(second)
    more = RIDGE * float(second.diagonal().abs().mean())
    while int(failed) and more < float("inf"):
        factor, failed = torch.linalg.cholesky_ex(second + more * torch.eye(len(second)).to(second))
        more = more * 10 or 1.0
    return factor


def energy(consumer: Consumer) -> float:
    """E‖y‖² = tr(W S Wᵀ), of the regularised moment; 0 where features or weights are all dead."""
    weight, second = consumer.weight, consumer.second
    ridge = RIDGE * second.diagonal().mean() * weight.square().sum()
    return float(torch.sum(weight @ second * weight) + ridge) if alive(consumer) else 0.0


def alive(consumer: Consumer) -> bool:
    """Whether the layer computes anything from these features."""
    return bool(consumer.second.diagonal().mean() > 0) and bool(consumer.weight.any())


def similarity(weight_row: Tensor, second: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Q of one output (definition 3.2): Q_ij = w_iᵀ S_ij w_j.

    Args:
        weight_row: (N,), the weights of this output.
        second: E[u uᵀ], (N, N).
        blocks: component -> its columns, int64 (n_i,).

    Returns:
        (components, components).
    """
    shares = torch.zeros(len(weight_row), len(blocks), dtype=second.dtype)
    for component, columns in enumerate(blocks):
        shares[columns, component] = weight_row[columns]
    return shares.T @ second @ shares


def component_fidelity(q: Tensor, kept: Sequence[int]) -> float:
    """FS(C) of one output, from its similarity matrix: (Q1)_Cᵀ Q_CC⁺ (Q1)_C / 1ᵀQ1 (proposition 3.8)."""
    index = torch.tensor(list(kept), dtype=torch.int64)
    total = q.sum(1)
    inner = torch.linalg.pinv(q[index][:, index], hermitian=True)
    return float(total[index] @ inner @ total[index] / total.sum())


def singleton_fidelity(q: Tensor) -> Tensor:
    """FS({i}) of every component, (components,): (Q1)_i² / (Q_ii · 1ᵀQ1); 0 for a dead one."""
    own = q.diagonal() * q.sum()
    alive = own > 0
    return torch.where(alive, q.sum(1).square() / own.where(alive, torch.ones_like(own)), 0.0)


def subset_fidelity(consumer: Consumer, kept: Sequence[int]) -> float:
    """The fidelity of the kept units over all outputs at once, with the best linear compensation.

    1 − tr(W_R (S_RR − S_RC S_CC⁻¹ S_CR) W_Rᵀ) / tr(W S Wᵀ), R the columns of the units that go, C all others.
    For one column a unit it is the paper's, aggregated over outputs; for more it is at least the paper's.

    Args:
        consumer: the layer.
        kept: units that stay.

    Returns:
        0 … 1; exactly 1 where nothing is lost.
    """
    staying = frozenset(kept)
    gone = [columns for unit, columns in enumerate(consumer.columns) if unit not in staying]
    removed = torch.cat(gone) if gone else torch.empty(0, dtype=torch.int64)
    total = energy(consumer)
    if not removed.numel() or total <= 0:
        return 1.0
    rest = other_columns(consumer.second.shape[0], removed)
    second = regularised(consumer.second)
    weight = consumer.weight[:, removed]
    lost = torch.sum(weight @ unexplained(second, removed, rest) * weight)
    return max(1.0 - float(lost) / total, 0.0)


def other_columns(count: int, columns: Tensor) -> Tensor:
    """The columns among `count` that are not in `columns`, sorted."""
    rest = torch.ones(count, dtype=torch.bool)
    rest[columns] = False
    return rest.nonzero().flatten()


def unexplained(second: Tensor, columns: Tensor, given: Tensor) -> Tensor:
    """S_RR − S_RC S_CC⁻¹ S_CR, what other columns do not explain of these; `second` is regularised."""
    own = second[columns][:, columns]
    if not given.numel():
        return own
    root = cholesky(second[given][:, given])
    half: Tensor = torch.linalg.solve_triangular(root, second[given][:, columns], upper=False)
    return own - half.T @ half


def round_units(units: int, rows: Rows) -> int:
    """How many units leave in one round.

    Raises:
        ArgumentError: rows of different lengths, or not one row for every unit.
    """
    if rows is None:
        return 1
    counts = [list(rows).count(row) for row in sorted(set(rows))]
    if len(rows) != units or len(set(counts)) > 1:
        raise ArgumentError(
            f"rows of {counts} units for {units} units",
            why="one unit of every row leaves in a round, so all rows need equally many",
            fix="pass one row for every unit, all rows of the same length",
        )
    return len(counts) or 1


def errors_along(consumers: Sequence[Consumer], order: Sequence[int], rows: Rows = None) -> tuple[float, ...]:
    """The exact relative error after every round, when units leave in this order.

    One Cholesky decomposition S = L Lᵀ with the columns in the opposite order holds the whole curve: u = L z
    with white z, a prefix of u spans the same prefix of z, so that what the suffix loses is ‖(W L)_suffix‖².

    Returns:
        rounds + 1 errors, 0 first; the mean over the consumers that have any energy.
    """
    step = round_units(len(order), rows)
    losses = [loss for consumer in consumers if (loss := _losses(consumer, order)) is not None]
    if not losses:
        return (0.0,) * (len(order) // step + 1)
    mean = torch.stack(losses).mean(0).reshape(-1, step).sum(1)
    return (0.0, *mean.cumsum(0).clamp(max=1.0).tolist())


def curve(consumers: Sequence[Consumer], order: Sequence[int], rows: Rows) -> Curve:
    """An order with its exact errors."""
    return Curve(tuple(order), errors_along(consumers, order, rows), round_units(len(order), rows))


def _losses(consumer: Consumer, order: Sequence[int]) -> Tensor | None:
    """What each unit adds to the relative error as it leaves, (units,) in the order; None of a dead layer."""
    if not alive(consumer):
        return None
    leaving = [consumer.columns[unit] for unit in reversed(order)]
    owned = torch.cat(leaving) if leaving else torch.empty(0, dtype=torch.int64)
    arrangement = torch.cat([other_columns(consumer.second.shape[0], owned), owned])
    factor = cholesky(regularised(consumer.second)[arrangement][:, arrangement])
    share = (consumer.weight[:, arrangement] @ factor).square().sum(0)
    owner = torch.repeat_interleave(
        torch.arange(len(order)), torch.tensor([len(columns) for columns in leaving], dtype=torch.int64)
    )
    by_unit = torch.zeros(len(order), dtype=torch.float64)
    by_unit.index_add_(0, owner, share[len(share) - len(owned) :] / share.sum())
    return by_unit.flip(0)
