from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import tiny_programs as tiny
from sdk_runtimes.errors import FeedError, SessionError
from sdk_runtimes.sessions.eager import EagerSession, eager_session


@dataclass
class Both:
    y: torch.Tensor
    z: torch.Tensor


class Affine(nn.Module):
    """`tiny.affine` as a module; notes whether it was asked for gradients."""

    def __init__(self) -> None:
        super().__init__()
        weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
        self.weight = nn.Parameter(torch.from_numpy(weight))
        self.inference: list[bool] = []
        self.threads: list[int] = []

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.inference.append(torch.is_inference_mode_enabled())
        self.threads.append(torch.get_num_threads())
        y = x @ self.weight + 1
        return {"y": y, "z": y.sum()}


def test_a_module_runs_by_name_without_gradients() -> None:
    program, module = tiny.affine("rows"), Affine()
    with eager_session(module, program.spec) as session:
        feeds = tiny.random_feeds(program.spec, rows=3)
        got = session.run(feeds)
        for name, wanted in program.truth(feeds).items():
            np.testing.assert_allclose(got[name], wanted, rtol=1e-5, atol=1e-5)
        assert all(module.inference)
        assert session.device == "eager:cpu"


def test_a_function_on_arrays_runs_as_well() -> None:
    program = tiny.affine()
    feeds = tiny.random_feeds(program.spec)
    wanted = program.truth(feeds)
    for function in (program.truth, lambda given: list(program.truth(given).values())):
        got = eager_session(function, program.spec).run(feeds)
        np.testing.assert_array_equal(got["y"], wanted["y"])


def test_outputs_by_name_go_in_the_order_of_the_spec() -> None:
    program = tiny.affine()
    feeds = tiny.random_feeds(program.spec)
    turned = eager_session(lambda given: dict(reversed(program.truth(given).items())), program.spec)
    assert list(turned.run(feeds)) == ["y", "z"]
    assert turned.run(feeds)["z"].shape == ()


def test_bound_runs_fill_the_buffers() -> None:
    program = tiny.affine()
    binding = eager_session(program.truth, program.spec).bind()
    binding.inputs["x"][...] = 2
    wanted = program.truth({"x": np.full((2, 8), 2, np.float32)})
    np.testing.assert_array_equal(binding.run()["y"], wanted["y"])


def test_results_are_the_callers_own() -> None:
    kept = np.zeros((2, 4), np.float32)
    session = eager_session(lambda _: [kept, kept.sum()], tiny.affine().spec)
    session.run(tiny.random_feeds(session.spec))["y"][...] = 7
    assert not kept.any()


def test_threads_are_set_for_the_run_only() -> None:
    before, module = torch.get_num_threads(), Affine()
    session = eager_session(module, tiny.affine().spec, threads=before + 1)
    session.run(tiny.random_feeds(session.spec))
    assert module.threads == [before + 1]
    assert torch.get_num_threads() == before


def test_clones_share_the_function_and_closing_lets_go() -> None:
    program = tiny.affine()
    raw = EagerSession(program.truth, program.spec)
    clone = raw.clone()
    raw.close()
    assert len(clone.run(list(tiny.random_feeds(program.spec).values()))) == 2


def test_a_missing_result_is_told() -> None:
    session = eager_session(lambda _: [np.zeros(3)], tiny.affine().spec)
    with pytest.raises(SessionError, match="gave 1 results, the spec names 2"):
        session.run(tiny.random_feeds(session.spec))


def test_feeds_are_checked_before_torch_sees_them() -> None:
    with pytest.raises(FeedError, match="float64"):
        eager_session(Affine(), tiny.affine().spec).run({"x": np.zeros((2, 8))})
