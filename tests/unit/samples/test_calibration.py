"""The photographs that EfficientNet-Lite0 is calibrated on and judged by."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samples.classify.calibration import CALIBRATION, HELD_OUT, calibration_images, held_out_images
from samples.classify.pictures import PICTURES

HOME = Path(__file__).resolve().parents[3]


def test_no_photograph_is_in_both_sets_or_there_twice():
    photographs = [*CALIBRATION, *HELD_OUT]
    pixels = {hashlib.sha256(photograph.open().tobytes()).hexdigest() for photograph in photographs}
    assert len(pixels) == len(photographs) == 16


@pytest.mark.parametrize("photograph", [*CALIBRATION, *HELD_OUT], ids=lambda photograph: photograph.file)
def test_every_photograph_is_there_has_content_and_a_licence(photograph):
    picture = photograph.open()
    assert picture.mode == "RGB"
    assert min(picture.size) >= 150
    assert np.asarray(picture).std() > 5
    licences = ("CC0", "CC BY 2.0", "public domain", "no known copyright restrictions")
    assert photograph.credit.endswith(licences)


def test_the_demo_photographs_are_one_in_each_set():
    assert [CALIBRATION[0].file, HELD_OUT[0].file] == [f"datasets/images/{one.name}" for one in PICTURES]


@pytest.mark.parametrize("images", [calibration_images, held_out_images])
def test_a_seed_gives_the_same_images_and_another_seed_others(images):
    first = images(20, seed=3)
    assert first.shape == (20, 3, 224, 224)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, images(20, seed=3))
    assert (first != images(20, seed=4)).any(axis=(1, 2, 3)).all()


def test_views_of_one_photograph_differ():
    count = 2 * len(HELD_OUT)
    first = held_out_images(count)
    assert (first[: len(HELD_OUT)] != first[len(HELD_OUT) :]).any(axis=(1, 2, 3)).all()


def test_scikit_image_whose_loader_can_download_is_not_imported():
    code = (
        "import sys; from samples.classify.calibration import *; calibration_images(12); held_out_images(4); "
    )
    code += "assert not {'skimage', 'sklearn', 'pooch', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=HOME, check=True)
