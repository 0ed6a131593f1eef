"""A pruning as data: which slices go from which tensors. JSON, so that it can be kept beside the weights."""

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdk_pruning.changes import Change, apply_changes_, read_change
from sdk_pruning.propagation import state_of
from sdk_pruning.removal import Removal
from sdk_pruning.surgery import cut_
from sdk_runtimes.errors import PruningError

PLAN_VERSION = 1
MARK = "pruning_plan"
"""Attribute of a pruned model that holds its plan."""


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one group.

    Attributes:
        role: "channels", "heads", "dims" or "values".
        units: how many it had.
        kept: units that stay, sorted.
        error: expected relative error of the layers that read it, at this width.
    """

    role: str
    units: int
    kept: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class Plan:
    """A pruning.

    Attributes:
        groups: by name.
        slices: tensor -> axis -> indices that go.
        shapes: tensor -> its shape before, of every tensor that is cut.
        grouped: weight of a grouped layer -> its groups before.
        changes: numbers that modules and their code keep, and queries and keys that are multiplied.
        added_biases: layers that get a bias.
        recipe: how it came about: selector, compensation, seed and so on.
        version: of this format.
    """

    groups: Mapping[str, GroupPlan]
    slices: Mapping[str, Mapping[int, tuple[int, ...]]]
    shapes: Mapping[str, tuple[int, ...]]
    grouped: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    added_biases: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    version: int = PLAN_VERSION

    def to_json(self) -> str:
        """JSON text; `Plan.from_json` reads it back to an equal plan."""
        fields = asdict(self)
        lines = [f" {json.dumps(name)}: {_compact(value)}" for name, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what `to_json` wrote.

        Raises:
            PruningError: not a plan, or of another version.
        """
        try:
            data = json.loads(text)
            if data["version"] != PLAN_VERSION:
                raise PruningError(
                    f"pruning plan of version {data['version']!r}",
                    why=f"this edge-sdk reads version {PLAN_VERSION}",
                    fix="prune again, or install the edge-sdk that wrote it",
                )
            return _read(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PruningError(
                f"not a pruning plan: {error}",
                why="a field is missing or malformed",
                fix="result.save(folder)",
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan as JSON."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")


def _compact(value: Any) -> str:
    """One line an entry: indices by the hundred would fill the screen otherwise."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    return (
        "{\n"
        + ",\n".join(f"  {json.dumps(str(key))}: {json.dumps(one)}" for key, one in value.items())
        + "\n }"
    )


def _read(data: Mapping[str, Any]) -> Plan:
    return Plan(
        groups={
            name: GroupPlan(
                str(group["role"]), int(group["units"]), tuple(map(int, group["kept"])), float(group["error"])
            )
            for name, group in data["groups"].items()
        },
        slices={
            tensor: {int(axis): tuple(map(int, gone)) for axis, gone in axes.items()}
            for tensor, axes in data["slices"].items()
        },
        shapes={tensor: tuple(map(int, shape)) for tensor, shape in data["shapes"].items()},
        grouped={tensor: int(count) for tensor, count in data["grouped"].items()},
        changes=tuple(read_change(change) for change in data["changes"]),
        added_biases=tuple(data["added_biases"]),
        recipe=dict(data["recipe"]),
    )


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """Reads a plan from a file.

    Raises:
        PruningError: there is no such file, or it is no plan.
    """
    try:
        return Plan.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PruningError(
            f"no pruning plan at {os.fspath(path)}", why=str(error), fix="result.plan.save(path)"
        ) from error


def apply_plan(model: nn.Module, plan: Plan | str | os.PathLike[str]) -> nn.Module:
    """A copy of a dense model, cut as the plan says. Its weights are the model's own, not compensated.

    Args:
        model: dense, of the same architecture as the one that the plan was made for, with any weights.
        plan: or a path to it.

    Raises:
        PruningError: the plan is for another model, or the model is pruned already.
    """
    smaller = copy.deepcopy(model)
    apply_plan_(smaller, plan)
    return smaller


def apply_plan_(model: nn.Module, plan: Plan | str | os.PathLike[str]) -> None:
    """Cuts a dense model in place as the plan says.

    Raises:
        PruningError: the plan is for another model, or the model is pruned already; it was left as it was.
    """
    found = plan if isinstance(plan, Plan) else load_plan(plan)
    refuse_pruned(model)
    _refuse_other(model, found)
    cut_(model, Removal(found.slices), found.grouped)
    apply_changes_(model, found.changes)
    for name in found.added_biases:
        add_bias_(model, name)
    setattr(model, MARK, found)


def add_bias_(model: nn.Module, name: str) -> None:
    """Gives a layer a bias of zeros, in place."""
    owner = model.get_submodule(name)
    weight = owner.weight
    assert isinstance(weight, Tensor), "a layer has a weight"
    owner.register_parameter("bias", nn.Parameter(torch.zeros(weight.shape[0]).to(weight)))


def refuse_pruned(model: nn.Module) -> None:
    """Raises.

    PruningError: the model was pruned before.
    """
    if getattr(model, MARK, None) is not None:
        raise PruningError(
            "this model has been pruned already",
            why="its plan and its report speak of the dense model, and errors would add up unseen",
            fix="prune the dense model to the final size in one go; del model.pruning_plan to insist",
        )


def _refuse_other(model: nn.Module, plan: Plan) -> None:
    state = state_of(model)
    for tensor, shape in plan.shapes.items():
        found = tuple(state[tensor].shape) if tensor in state else None
        if found != shape:
            raise PruningError(
                f"the plan does not fit this model: {tensor} "
                + (f"has shape {found}, not {shape}" if found else "is missing"),
                why="it was made for another architecture, or the model has been pruned already",
                fix="apply it to the dense model that it was made from",
            )
