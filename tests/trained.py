"""Digits networks that were trained, once a process: pruning random weights says little."""

import functools

from torch import nn

from samples.digits.data import Digits, load_digits
from samples.digits.networks import digits_cnn
from samples.digits.training import RECIPES, train

# Fewer passes than the benchmark's: a few seconds each, and 96 % or more on the test images.
EPOCHS = {"cnn": 6, "vit": 15, "mobile": 8}


@functools.cache
def digits() -> Digits:
    """The data, read once."""
    return load_digits()


@functools.cache
def trained_network(name: str) -> nn.Module:
    """One of `RECIPES`, the CNN half as wide; every caller gets the same object: copy before changing it.

    Args:
        name: "cnn", "vit" or "mobile".
    """
    recipe = RECIPES[name]
    network = digits_cnn() if name == "cnn" else recipe.build(seed=0)
    return train(network, digits(), epochs=EPOCHS[name], peak_rate=recipe.peak_rate)
