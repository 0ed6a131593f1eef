import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samples.classify.answers import Guess, class_name, top_guesses
from samples.classify.pictures import IMAGE_SIZE, PICTURES, center_crop, preprocess
from samples.classify.results import probability_of, read_guesses

HOME = Path(__file__).resolve().parents[2]


def test_pictures_become_inputs_of_the_right_range():
    for picture in PICTURES:
        pixels = preprocess(picture.open())
        assert pixels.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
        assert pixels.dtype == np.float32
        assert -127 / 128 <= pixels.min() < -0.5  # black is -127 / 128, white is 1
        assert 0.5 < pixels.max() <= 1.0


def test_the_crop_is_the_middle_of_the_picture():
    from PIL import Image

    picture = Image.new("RGB", (640, 427), "red")
    picture.paste("blue", (320 - 186, 213 - 186, 320 + 187, 213 + 187))
    assert center_crop(picture).getcolors() == [(IMAGE_SIZE**2, (0, 0, 255))]


def test_guesses_are_the_softmax_of_the_logits():
    logits = np.zeros((1, 1000), np.float32)
    logits[0, [3, 7]] = 9.0, 11.0
    best = top_guesses(logits)
    assert [guess.index for guess in best[:2]] == [7, 3]
    assert best[0].probability == pytest.approx(np.exp(11) / (np.exp(11) + np.exp(9) + 998))
    assert best[0].name == class_name(7)


def test_class_names_are_those_of_imagenet():
    names = [class_name(index) for index in range(1000)]
    assert None not in names
    assert (names[0], names[985]) == ("tench", "daisy")


def test_a_class_that_an_engine_does_not_name_has_no_probability():
    guesses = read_guesses({"a.jpg": [{"index": 4, "name": "x", "probability": 0.5}]})["a.jpg"]
    assert guesses == (Guess(4, "x", 0.5),)
    assert probability_of(guesses, 4) == 0.5
    assert probability_of(guesses, 5) is None


def test_the_sample_without_torch_brings_none_in():
    code = "import sys, samples.classify.bundle_side; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=HOME, check=True)


@pytest.mark.slow
def test_the_demo_runs_and_every_engine_sees_what_pytorch_sees(tmp_path, monkeypatch, capsys):
    from samples.classify import __main__ as demo

    monkeypatch.setattr(demo, "OUT", tmp_path / "demo")
    monkeypatch.setattr(demo, "RUNS", 3)
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))
    assert demo.main() == 0
    told = capsys.readouterr().out
    for expected in ("PyTorch eager", "onnxruntime:cpu", "openvino:cpu", "palace", "daisy", "report"):
        assert expected in told
    manifest = json.loads((tmp_path / "demo/efficientnet-lite0.bundle/manifest.json").read_text())
    assert {record["verdict"] for record in manifest["quality"]} == {"passed"}
    report = (tmp_path / "demo/report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == len(PICTURES)
    for expected in ("palace", "daisy", "passed", "CC BY 2.0", "Apache-2.0"):
        assert expected in report
    assert "://" not in report
