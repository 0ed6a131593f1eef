"""Networks and layers through real sessions. No figure is compared with a clock."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from sdk.pruning_latency import LatencyMeter, latency_meter, written_apart
from sdk_pruning.budget.latency_table import fitted, measure_table
from sdk_pruning.layers import Channels, Layer
from sdk_runtimes.backends import open_raw
from sdk_runtimes.errors import ArgumentError, TraceError, UnknownChoiceError

DEVICES = {"onnx": "onnxruntime:cpu", "openvino": "openvino:cpu"}


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.ReLU6(), nn.Conv2d(width, 10, 1), nn.AdaptiveAvgPool2d(1)
    ).eval()


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def meter() -> Iterator[LatencyMeter]:
    with latency_meter(network(256), IMAGE, threads=1, runs=10) as opened:
        yield opened


def conv(inputs: int, outputs: int) -> tuple[nn.Module, torch.Tensor]:
    return nn.Conv2d(inputs, outputs, 1).eval(), torch.randn(1, inputs, 16, 16)


def test_a_network_of_a_fraction_of_the_work_takes_a_fraction_of_the_time(meter: LatencyMeter) -> None:
    assert meter.device == "onnxruntime:cpu"
    found = meter.networks({"narrow": network(16), "again": network(256)})
    assert list(found) == ["narrow", "again"]
    assert found["narrow"].ms < found["again"].ms  # 1/16 of the work
    assert found["narrow"].ratio == pytest.approx(meter.dense_ms / found["narrow"].ms)


def test_layers_are_timed_alone_and_in_their_order(meter: LatencyMeter) -> None:
    told: list[tuple[int, int]] = []
    layers = [conv(8, 8), conv(256, 256), conv(8, 8), (nn.Linear(4, 4), torch.zeros(1, 4))]
    found = meter.layers(layers, progress=lambda _stage, done, total: told.append((done, total)))
    assert len(found) == 4
    assert found[1] > max(found[0], found[2], found[3]) > 0  # 1024 times the work
    assert told == [(4, 4)]
    assert meter.layers([]) == []


def test_more_layers_than_one_lot(meter: LatencyMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk.pruning_latency._TOGETHER", 2)
    found = meter.layers([conv(8, 8), conv(256, 256), conv(256, 256)])
    assert found[0] < min(found[1:])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_is_timed_is_the_layer(target: str, tmp_path: object) -> None:
    torch.manual_seed(1)
    lot = [
        (nn.Conv2d(4, 6, 3, padding=1).eval(), torch.randn(1, 4, 8, 8)),
        (nn.Conv2d(6, 6, 3, groups=6).eval(), torch.randn(1, 6, 8, 8)),
        (nn.Sequential(nn.Linear(5, 7), nn.GELU()).eval(), torch.randn(2, 5)),
    ]
    lot.append(lot[0])  # the reference layer is there twice
    specs = written_apart(lot, target, "fp32", tmp_path)  # type: ignore[arg-type]  # pytest's path
    assert len(specs) == 4
    for spec, (module, sample) in zip(specs, lot, strict=True):
        raw = open_raw(spec, tmp_path, DEVICES[target])  # type: ignore[arg-type]  # likewise
        (result,) = raw.run([sample.numpy()])
        raw.close()
        np.testing.assert_allclose(result, module(sample).detach().numpy(), atol=1e-4)


def test_a_table_from_real_sessions_ranks_real_networks(meter: LatencyMeter) -> None:
    layers = (
        Layer("in", Channels(3), Channels(0, {"g": 1}), 2 * 9 * 256, build=_stem, shape_key="in"),
        Layer("out", Channels(0, {"g": 1}), Channels(10), 2 * 256, build=conv, shape_key="out"),
    )
    table = fitted(measure_table(layers, {"g": 256}, meter.layers, block=16), [({"g": 256}, meter.dense_ms)])
    assert table.predict_ms({"g": 256}) == pytest.approx(meter.dense_ms)
    assert table.predict_ms({"g": 64}) < table.predict_ms({"g": 128}) < meter.dense_ms


def _stem(inputs: int, outputs: int) -> tuple[nn.Module, torch.Tensor]:
    return nn.Conv2d(inputs, outputs, 3, 2, 1).eval(), torch.randn(1, inputs, 32, 32)


def test_nothing_to_measure_and_unknown_targets_are_refused() -> None:
    with pytest.raises(ArgumentError, match="runs is 0"), latency_meter(network(4), IMAGE, runs=0):
        pass
    with pytest.raises(UnknownChoiceError, match="'onnx'"), latency_meter(network(4), IMAGE, target="no"):
        pass


class Undecided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_layer_that_cannot_be_traced_is_our_error(meter: LatencyMeter) -> None:
    with pytest.raises(TraceError):
        meter.layers([(Undecided(), torch.ones(2))])
