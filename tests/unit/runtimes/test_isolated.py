import sys
from pathlib import Path

import numpy as np
import pytest

from sdk_runtimes.errors import SessionError
from sdk_runtimes.isolated import IsolatedProgram
from tiny_programs import affine, random_feeds


@pytest.fixture
def program(tmp_path):
    tiny = affine()
    with IsolatedProgram(tiny.write(tmp_path), tmp_path, "onnxruntime:cpu") as isolated:
        yield tiny, isolated


def test_computes_what_the_program_computes_run_after_run(program):
    tiny, isolated = program
    for seed in range(3):
        feeds = random_feeds(tiny.spec, seed=seed)
        got = isolated.run(feeds)
        assert list(got) == ["y", "z"]
        for name, wanted in tiny.truth(feeds).items():
            np.testing.assert_allclose(got[name], wanted, rtol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_holds_the_engine_and_no_torch(program):
    _, isolated = program
    maps = Path(f"/proc/{isolated._child.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


def test_wrong_feeds_are_told_and_the_child_lives_on(program):
    tiny, isolated = program
    with pytest.raises(SessionError, match="FeedError"):
        isolated.run({"x": np.zeros((2, 9), np.float32)})
    assert isolated.run(random_feeds(tiny.spec))["y"].shape == (2, 4)


def test_a_program_that_does_not_load_is_an_error_of_ours(tmp_path):
    tiny = affine()
    spec = tiny.write(tmp_path)
    (tmp_path / spec.entry).write_bytes(b"not a model")
    with pytest.raises(SessionError, match="failed in its own process"):
        IsolatedProgram(spec, tmp_path, "onnxruntime:cpu")


def test_a_crash_of_the_engine_takes_down_the_child_only(program):
    tiny, isolated = program
    isolated._child.kill()
    with pytest.raises(SessionError, match="died with status"):
        isolated.run(random_feeds(tiny.spec))
