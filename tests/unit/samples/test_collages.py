"""Collages, and where calibration images come from."""

import numpy as np
import pytest
from PIL import Image

from samples.classify import calibration
from samples.classify.calibration import (
    CALIBRATION,
    HELD_OUT,
    Photograph,
    calibration_images,
    held_out_images,
)
from samples.classify.collages import collage, piece, recoloured, texture

RED = Image.new("RGB", (300, 200), (200, 30, 40))


def _noise(width=300, height=200):
    drawn = np.random.default_rng(7)
    return Image.fromarray(drawn.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        lambda drawn: collage([RED, _noise()], drawn),
        lambda drawn: piece(_noise(), drawn),
        lambda drawn: recoloured(_noise(224, 224), drawn),
        texture,
    ],
    ids=["collage", "piece", "recoloured", "texture"],
)
def test_a_seed_gives_the_same_pixels_and_another_seed_others(make):
    first = make(np.random.default_rng(3))
    assert (first.mode, first.size) == ("RGB", (224, 224))
    assert first.tobytes() == make(np.random.default_rng(3)).tobytes()
    assert first.tobytes() != make(np.random.default_rng(4)).tobytes()


@pytest.mark.parametrize("size", [(10, 40), (24, 24), (25, 300)])
def test_a_piece_of_a_picture_that_is_hardly_larger_than_a_piece_lies_within_it(size):
    white = Image.new("RGB", size, (255, 255, 255))
    for seed in range(20):
        pixels = np.asarray(piece(white, np.random.default_rng(seed)))
        assert pixels[112, 112].min() == 255  # black would be what lies outside; corners may be, once rotated


def test_recolouring_keeps_a_grey_picture_flat_and_varies_it_over_seeds():
    grey = Image.new("RGB", (224, 224), (90, 90, 90))
    colours = set()
    for seed in range(8):
        pixels = np.asarray(recoloured(grey, np.random.default_rng(seed)))
        assert (pixels == pixels[0, 0]).all()
        colours.add(tuple(pixels[0, 0]))
    assert len(colours) == 8


def test_textures_hold_more_of_low_frequencies_than_of_high_ones():
    for seed in range(4):
        grey = np.asarray(texture(np.random.default_rng(seed)), np.float64).mean(2)
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        low, high = power[1:9, 1:9].mean(), power[80:112, 80:112].mean()
        assert low > 10 * high


def test_collages_differ_from_each_other_in_what_they_show():
    drawn = np.random.default_rng(0)
    shown = [np.asarray(collage([RED, _noise()], drawn), np.float64) for _ in range(6)]
    assert len({picture.tobytes() for picture in shown}) == 6
    assert np.std([picture.mean((0, 1)) for picture in shown], axis=0).min() > 5


def test_every_other_calibration_image_is_a_collage(monkeypatch):
    monkeypatch.setattr(calibration, "collage", lambda photographs, drawn: Image.new("RGB", (224, 224)))
    black = (calibration_images(9) == -127 / 128).all(axis=(1, 2, 3))
    assert black.tolist() == [bool(place % 2) for place in range(9)]


def test_views_come_from_every_photograph_equally_often(monkeypatch):
    seen = []
    monkeypatch.setattr(
        calibration, "random_view", lambda picture, drawn: seen.append(picture.tobytes()) or RED_224
    )
    calibration_images(4 * len(CALIBRATION))
    assert sorted(map(seen.count, set(seen))) == [2] * len(CALIBRATION)


RED_224 = RED.resize((224, 224))


@pytest.mark.parametrize(
    ("images", "allowed"), [(calibration_images, CALIBRATION), (held_out_images, HELD_OUT)]
)
def test_neither_set_opens_a_photograph_of_the_other(monkeypatch, images, allowed):
    opened = set()
    whole = Photograph.open
    monkeypatch.setattr(Photograph, "open", lambda self: opened.add(self) or whole(self))
    images(4)
    assert opened == set(allowed)


def test_held_out_images_are_views_of_photographs_only(monkeypatch):
    monkeypatch.setattr(calibration, "collage", lambda photographs, drawn: pytest.fail("a collage"))
    assert held_out_images(8).shape == (8, 3, 224, 224)


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    np.testing.assert_array_equal(calibration_images(4, seed=2), calibration_images(8, seed=2)[:4])
