"""Handwritten digits that scikit-learn ships (Alpaydin, Kaynak 1998, UCI; CC BY 4.0): 1797 images, 8 x 8."""

from dataclasses import dataclass

import torch
from torch import Tensor

TRAIN_COUNT = 1200  # the other 597 are the test set, as in the research note
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Digits:
    """The digits, split once and for all.

    Attributes:
        train_images: float32 [1200, 1, 8, 8], -1 to 1.
        train_labels: int64 [1200].
        test_images: float32 [597, 1, 8, 8].
        test_labels: int64 [597].
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """Reads them from scikit-learn's own files. Every call gives the same split."""
    from sklearn import datasets

    raw = datasets.load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1  # 0 … 16 to -1 … 1
    labels = torch.tensor(raw.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    train, test = order[:TRAIN_COUNT], order[TRAIN_COUNT:]
    return Digits(images[train], labels[train], images[test], labels[test])


def calibration_images(digits: Digits, count: int, seed: int = 0) -> Tensor:
    """Some training images without their labels: what pruning and quantization are given.

    Args:
        digits: the data.
        count: at most 1200.
        seed: which.

    Returns:
        float32 [count, 1, 8, 8].
    """
    order = torch.randperm(len(digits.train_images), generator=torch.Generator().manual_seed(seed))
    return digits.train_images[order[:count]]
