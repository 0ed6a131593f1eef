"""The photographs, as EfficientNet-Lite wants to see them. Needs no torch."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sdk_runtimes.feeds import Array

IMAGE_SIZE = 224
# EfficientNet-Lite's own preprocessing (tensorflow/tpu, efficientnet/lite): crop the middle, leaving 32 of
# every 256 pixels out, resize with a bicubic filter, then (x - 127) / 128.
CROP_PADDING = 32
MEAN, SCALE = 127.0, 128.0


@dataclass(frozen=True)
class Picture:
    """A photograph that scikit-learn ships.

    Attributes:
        name: its file name.
        credit: whom its licence asks us to name.
    """

    name: str
    credit: str

    @property
    def path(self) -> Path:
        """Where it lies; found without importing scikit-learn."""
        found = importlib.util.find_spec("sklearn")
        assert found is not None, "`make demo` installs scikit-learn"
        assert found.origin is not None, "a regular package has a file"
        return Path(found.origin).parent / "datasets" / "images" / self.name

    def open(self) -> Image.Image:
        """The photograph in RGB."""
        return Image.open(self.path).convert("RGB")


PICTURES = (
    Picture("china.jpg", "Photograph by danielbuechele, CC BY 2.0"),
    Picture("flower.jpg", "Photograph by vultilion, CC BY 2.0"),
)


def center_crop(picture: Image.Image) -> Image.Image:
    """The square in the middle, 224 x 224."""
    width, height = picture.size
    side = int(IMAGE_SIZE / (IMAGE_SIZE + CROP_PADDING) * min(width, height))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)


def preprocess(picture: Image.Image) -> Array:
    """A picture as the network's input: float32 [1, 3, 224, 224], about -1 to 1."""
    pixels = np.asarray(center_crop(picture), np.float32)
    normal = (pixels - MEAN) / SCALE
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
