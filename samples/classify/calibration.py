"""Unlabelled photographs for EfficientNet-Lite0, from files that installed packages bring along.

Two sets that share no photograph: one to calibrate on, one to judge by. Each picture is cut and mirrored at
random. A dozen photographs are few for a network that knows a thousand classes, so every other calibration
image is a collage of pieces of them (`collages.py`; whether that helps is not settled: decision 0022). What
is judged by is photographs only; a claim about "all images" would need more of them. The files are read from
where pip put them; scikit-image itself, whose loader can download, is not imported.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samples.classify.collages import collage
from samples.classify.pictures import IMAGE_SIZE, MEAN, PICTURES, SCALE
from sdk_runtimes.feeds import Array

# Random resized crops as in training for ImageNet (Szegedy et al. 2015, section 6): area and aspect ratio.
AREA = (0.2, 1.0)
ASPECT = (3 / 4, 4 / 3)
_TRIES = 10

_PUBLIC = "public domain"
_UNRESTRICTED = "no known copyright restrictions"


@dataclass(frozen=True)
class Photograph:
    """A photograph that a package ships.

    Attributes:
        package: scikit-learn's "sklearn" or scikit-image's "skimage".
        file: where it lies in the package.
        credit: who made it, and its licence as the package states it.
    """

    package: str
    file: str
    credit: str

    def open(self) -> Image.Image:
        """The photograph in RGB; grey ones have three equal channels."""
        found = importlib.util.find_spec(self.package)
        assert found is not None, "the extra `samples` installs it"
        assert found.origin is not None, "a regular package has a file"
        return Image.open(Path(found.origin).parent / self.file).convert("RGB")


def _sklearn(number: int) -> Photograph:
    picture = PICTURES[number]
    return Photograph("sklearn", f"datasets/images/{picture.name}", picture.credit)


def _skimage(name: str, credit: str) -> Photograph:
    return Photograph("skimage", f"data/{name}", credit)


CALIBRATION = (
    _sklearn(0),
    _skimage("astronaut.png", f"NASA, {_PUBLIC}"),
    _skimage("chelsea.png", "Photograph by Stéfan van der Walt, CC0"),
    _skimage("camera.png", "Photograph by Lav Varshney, CC0"),
    _skimage("brick.png", "CC0Textures, CC0"),
    _skimage("gravel.png", "CC0Textures, CC0"),
    _skimage("coins.png", f"Brooklyn Museum, {_UNRESTRICTED}"),
    _skimage("retina.jpg", "Mikael Häggström, CC0"),
    _skimage("hubble_deep_field.jpg", f"NASA, {_PUBLIC}"),
    _skimage("ihc.png", f"Center for Microscopy and Molecular Imaging, {_UNRESTRICTED}"),
    _skimage("clock_motion.png", f"Photograph by Stéfan van der Walt, {_PUBLIC}"),
    _skimage("text.png", f"Photograph of handwriting, {_PUBLIC}"),
)
"""What is calibrated on."""

HELD_OUT = (
    _sklearn(1),
    _skimage("coffee.png", "Photograph by Rachel Michetti, CC0"),
    _skimage("rocket.jpg", f"Photograph by SpaceX, {_PUBLIC}"),
    _skimage("grass.png", "CC0Textures, CC0"),
)
"""What is judged by."""


def calibration_images(count: int, seed: int = 0) -> Array:
    """By turns a random view of a photograph to calibrate on, and a collage of pieces of such photographs.

    Args:
        count: how many; views come from every photograph as often as from the others.
        seed: of all that is random.

    Returns:
        float32 [count, 3, 224, 224], about -1 to 1: views at even places, collages at odd ones.
    """
    opened = [photograph.open() for photograph in CALIBRATION]
    views, pasted = (np.random.default_rng((seed, kind)) for kind in range(2))
    return _inputs(
        count,
        lambda place: (
            collage(opened, pasted) if place % 2 else random_view(opened[place // 2 % len(opened)], views)
        ),
    )


def held_out_images(count: int, seed: int = 0) -> Array:
    """Random views of photographs that nothing was calibrated on.

    Args:
        count: how many; every photograph as often as the others.
        seed: of cuts and mirrors.

    Returns:
        float32 [count, 3, 224, 224], about -1 to 1.
    """
    opened = [photograph.open() for photograph in HELD_OUT]
    drawn = np.random.default_rng(seed)
    return _inputs(count, lambda place: random_view(opened[place % len(opened)], drawn))


def _inputs(count: int, picture: Callable[[int], Image.Image]) -> Array:
    """[count, 3, 224, 224], as the network wants pictures; `picture` gives that of a place."""
    inputs = np.empty((count, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for place in range(count):
        inputs[place] = (np.asarray(picture(place), np.float32).transpose(2, 0, 1) - MEAN) / SCALE
    return inputs


def random_view(picture: Image.Image, drawn: np.random.Generator) -> Image.Image:
    """A random part of the picture, 224 x 224, every other time mirrored.

    Args:
        picture: RGB.
        drawn: where chance comes from.
    """
    box = _random_box(*picture.size, drawn)
    view = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn.random() < 0.5 else view


def _random_box(width: int, height: int, drawn: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(_TRIES):
        area = width * height * drawn.uniform(*AREA)
        aspect = np.exp(drawn.uniform(*np.log(ASPECT)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if w <= width and h <= height:
            left, top = (int(drawn.integers(room + 1)) for room in (width - w, height - h))
            return left, top, left + w, top + h
    side = min(width, height)  # a very long picture: the middle
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
