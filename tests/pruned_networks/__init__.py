"""Networks for tests of pruning, spelled as the real ones are, and what can be pruned from them."""

import functools

from pruned_networks import attention, convolutional, dense, unusual
from pruned_networks.case import Case, Studied, studied

__all__ = ["ATTENTION", "CASES", "CONVOLUTIONAL", "DENSE", "UNUSUAL", "Case", "study_of"]

CONVOLUTIONAL = {case.name: case for case in convolutional.CASES}
DENSE = {case.name: case for case in dense.CASES}
ATTENTION = {case.name: case for case in attention.CASES}
UNUSUAL = {case.name: case for case in unusual.CASES}
CASES = CONVOLUTIONAL | DENSE | ATTENTION | UNUSUAL


@functools.cache
def study_of(name: str, attention: str = "heads") -> Studied:
    """A network by its name, studied once for all tests; its weights must not be changed."""
    return studied(CASES[name].build(), CASES[name].inputs, attention=attention)
