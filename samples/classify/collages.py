"""Collages: many different pictures from few photographs, to calibrate on.

Pieces of photographs, changed in colour, scale and rotation, are pasted in random shapes onto each other,
with a plain colour or a texture here and there. They look like nothing in particular, and show a network far
more combinations of colours, edges and frequencies than a dozen photographs do. Everything is drawn from one
generator: the same seed gives the same pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from samples.classify.pictures import IMAGE_SIZE

PATCHES = (1, 8)
"""Fewest and most that lie on the background."""
RADIUS = (20.0, 120.0)
"""Of a patch, in pixels; every scale is as likely as the others."""
CROP = (0.12, 1.0)
"""Side of the square that a piece is cut from, as a share of the photograph's shorter side."""
SMALLEST_CROP = 24
"""Pixels; a smaller square has nothing left to show at 224 x 224."""
MOST_BLUR = 4.0
"""Of the edge of a patch, in pixels."""
EXPONENT = (0.8, 2.2)
"""Amplitudes of textures fall with frequency to this power; in photographs it is about 1 (Field, 1987)."""

# How often something is so, of what could be otherwise.
_ROTATED, _MIRRORED = 0.3, 0.5
_RECOLOURED, _SWAPPED = 0.7, 0.25
_PHOTOGRAPH = 0.8  # not a texture
_PIECE = 0.75  # not a plain colour
_SOFT, _ELLIPSE = 0.5, 1 / 3

Picture = Image.Image
_MIDDLE = 128.0


def collage(photographs: Sequence[Picture], drawn: Generator) -> Picture:
    """A background and some patches, each a piece of a photograph, a texture or a plain colour.

    Args:
        photographs: RGB; each piece comes from any of them.
        drawn: where chance comes from.

    Returns:
        RGB, 224 x 224.
    """
    picture = _surface(photographs, drawn)
    for _ in range(drawn.integers(PATCHES[0], PATCHES[1] + 1)):
        shape = _shape(drawn)
        patch = _surface(photographs, drawn) if drawn.random() < _PIECE else _plain(drawn)
        picture.paste(patch, (0, 0), shape)
    return picture


def piece(photograph: Picture, drawn: Generator) -> Picture:
    """A random square, 224 x 224, perhaps rotated (with black corners) and mirrored.

    Args:
        photograph: RGB.
        drawn: where chance comes from.
    """
    shorter = min(photograph.size)
    side = min(shorter, max(SMALLEST_CROP, int(_any_scale(CROP, drawn) * shorter)))
    left, top = (int(drawn.integers(length - side + 1)) for length in photograph.size)
    box = (left, top, left + side, top + side)
    cut = photograph.crop(box).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    if drawn.random() < _ROTATED:
        cut = cut.rotate(drawn.uniform(-180, 180), resample=Image.Resampling.BICUBIC)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn.random() < _MIRRORED else cut


def recoloured(picture: Picture, drawn: Generator) -> Picture:
    """Other contrast, brightness and cast; often paler, at times with its channels swapped.

    Args:
        picture: RGB.
        drawn: where chance comes from.
    """
    mixing = np.eye(3)
    if drawn.random() < _RECOLOURED:
        gain, faded = drawn.uniform(0.6, 1.3), 1 - drawn.uniform(0.3, 1)
        mixing = gain * np.eye(3) + faded * (np.full((3, 3), 1 / 3) - np.eye(3))
    if drawn.random() < _SWAPPED:
        mixing = mixing[drawn.permutation(3)]
    contrast, cast = drawn.uniform(0.6, 1.5), drawn.uniform(-35, 35, 3)
    pixels = np.asarray(picture, np.float32) - _MIDDLE  # (224, 224, 3)
    mixed = pixels @ (mixing.T * contrast).astype(np.float32)
    return _picture(mixed + _MIDDLE + cast)


def texture(drawn: Generator) -> Picture:
    """Noise whose amplitude falls with frequency, in random, related colours.

    Args:
        drawn: where chance comes from.

    Returns:
        RGB, 224 x 224; its edges wrap around.
    """
    frequencies = np.fft.fftfreq(IMAGE_SIZE)
    radius = np.hypot(frequencies[:, None], frequencies)  # (224, 224)
    radius[0, 0] = 1.0  # the mean is taken out below
    noise = np.fft.fft2(drawn.standard_normal((3, IMAGE_SIZE, IMAGE_SIZE)))
    planes = np.fft.ifft2(noise / radius ** drawn.uniform(*EXPONENT)).real
    planes -= planes.mean((1, 2), keepdims=True)
    planes /= planes.std((1, 2), keepdims=True)
    mixing = 0.3 * np.eye(3) + 0.6 * drawn.standard_normal((3, 3))
    contrast, cast = drawn.uniform(25, 60), drawn.uniform(-50, 50, 3)
    return _picture(_MIDDLE + contrast * (planes.transpose(1, 2, 0) @ mixing) + cast)


def _surface(photographs: Sequence[Picture], drawn: Generator) -> Picture:
    if drawn.random() >= _PHOTOGRAPH:
        return texture(drawn)
    return recoloured(piece(photographs[int(drawn.integers(len(photographs)))], drawn), drawn)


def _plain(drawn: Generator) -> Picture:
    red, green, blue = (int(value) for value in drawn.integers(0, 256, 3))
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (red, green, blue))


def _shape(drawn: Generator) -> Picture:
    """Where a patch lies: an ellipse or a polygon, white on black, its edge perhaps soft."""
    mask = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE), 0)
    pencil = ImageDraw.Draw(mask)
    x, y = drawn.uniform(0, IMAGE_SIZE, 2)
    radius = _any_scale(RADIUS, drawn)
    if drawn.random() < _ELLIPSE:
        height = radius * drawn.uniform(0.4, 1)
        pencil.ellipse((x - radius, y - height, x + radius, y + height), fill=255)
    else:
        pencil.polygon(_corners(x, y, radius, drawn), fill=255)
    if drawn.random() < _SOFT:
        mask = mask.filter(ImageFilter.GaussianBlur(drawn.uniform(0, MOST_BLUR)))
    return mask


def _corners(x: float, y: float, radius: float, drawn: Generator) -> list[tuple[float, float]]:
    """3 to 8, in order around the centre, at most `radius` away from it."""
    count = drawn.integers(3, 9)
    angles = np.sort(drawn.uniform(0, 2 * np.pi, count))
    reach = radius * drawn.uniform(0.5, 1, count)
    across, down = x + reach * np.cos(angles), y + reach * np.sin(angles)
    return [(float(a), float(b)) for a, b in zip(across, down, strict=True)]


def _any_scale(bounds: tuple[float, float], drawn: Generator) -> float:
    return float(np.exp(drawn.uniform(*np.log(bounds))))


def _picture(pixels: NDArray[np.floating]) -> Picture:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
