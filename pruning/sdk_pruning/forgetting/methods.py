"""The methods by name: what strength they take, which layers they edit by default, and the edit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from sdk_pruning.forgetting import fidelity_suppression as fidelity
from sdk_pruning.forgetting import ridge
from sdk_pruning.forgetting.editable_layers import EditableLayer, is_layer_normed
from sdk_pruning.forgetting.labelled import Labelled
from sdk_pruning.forgetting.stages import Progress
from sdk_runtimes.errors import ArgumentError, UnknownChoiceError

Layers = Sequence[EditableLayer]


@dataclass(frozen=True)
class Done:
    """What a method did.

    Attributes:
        strength: as given, or as chosen.
        edit: "ridge", "zeroed" or "negated".
    """

    strength: float
    edit: str


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        is_strength: whether a number is one.
        range: of the strength, in words.
        default: the layers to edit, of those that ran.
        apply: (model, layers, forget, retain, strength or None, progress): edits the model.
    """

    is_strength: Callable[[float], bool]
    range: str
    default: Callable[[Layers], Layers]
    apply: Callable[[nn.Module, Layers, Labelled, Labelled, float | None, Progress], Done]

    def check_strength(self, strength: float | None) -> None:
        """Refuses what is out of range.

        Raises:
            ArgumentError: it is.
        """
        if strength is not None and not self.is_strength(strength):
            raise ArgumentError(f"strength={strength}", why=f"it is {self.range}", fix="leave it out")


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        UnknownChoiceError: there is none; lists those there are.
    """
    if name not in METHODS:
        raise UnknownChoiceError("method", name, METHODS)
    return METHODS[name]


def _last_layers(ran: Layers) -> Layers:
    return ran[-ridge.LAST_LAYERS :]


def _before_the_classifier(ran: Layers) -> Layers:
    return ran[:-1][-fidelity.LAST_LAYERS :] or ran


def _ridge(
    model: nn.Module,
    layers: Layers,
    forget: Labelled,
    retain: Labelled,
    strength: float | None,
    progress: Progress,
) -> Done:
    used = ridge.STRENGTH if strength is None else strength
    ridge.ridge_suppress_(model, layers, forget, retain, used, progress)
    return Done(used, "ridge")


def _fidelity(
    model: nn.Module,
    layers: Layers,
    forget: Labelled,
    retain: Labelled,
    strength: float | None,
    progress: Progress,
) -> Done:
    # A zeroed kernel adds nothing to a residual stream, where the class lives on; a negated one opposes it.
    factor, edit = (fidelity.NEGATED, "negated") if is_layer_normed(model) else (fidelity.ZEROED, "zeroed")
    used = fidelity.fidelity_suppress_(model, layers, forget, retain, strength, factor, progress)
    return Done(used, edit)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ridge": Method(
            lambda strength: 0 <= strength < math.inf,
            "λ, the weight of forgotten samples: 0 or more, 1 by default",
            _last_layers,
            _ridge,
        ),
        "fidelity": Method(
            lambda strength: 0 < strength <= 1,
            "the share of kernels that go: above 0, at most 1; chosen by trial by default",
            _before_the_classifier,
            _fidelity,
        ),
    }
)
