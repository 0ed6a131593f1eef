"""Every network of the suite, exported once for every target: what the tests of this folder look at."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from contract_truth import Shipped, ship
from networks import CASES

TARGETS = ("onnx", "openvino", "coreml", "tensorrt")


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for the suite: the user's is left alone, and no verdict comes from an older run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "EDGE_SDK_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Networks this small lose more to threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shipped]:
    """Name of a case to its bundle with all targets in fp32; exported at the first request."""
    folder, done = tmp_path_factory.mktemp("bundles"), {}

    def get(name: str) -> Shipped:
        if name not in done:
            done[name] = ship(CASES[name], folder / f"{name}.bundle", TARGETS)
        return done[name]

    return get
