"""The linear and convolution layers that a network runs, and which of them are edited."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sdk_runtimes.errors import ArgumentError, PruningError, UnknownChoiceError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)

LayerChoice = Sequence[str] | int | None
"""Names of modules, or how many of the last ones; None takes the method's default."""


@dataclass(frozen=True)
class EditableLayer:
    """An `nn.Linear` or `nn.Conv2d` in its place.

    Attributes:
        name: its module path.
        module: itself.
        calls: how often one forward pass runs it.
        is_normed: a batch norm reads its output directly.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    calls: int
    is_normed: bool

    @property
    def groups(self) -> int:
        """Of a grouped convolution; 1 otherwise."""
        return self.module.groups if isinstance(self.module, nn.Conv2d) else 1

    @property
    def taps(self) -> int:
        """Columns of one input channel: kh · kw."""
        return self.module.weight[0, 0].numel()

    def matrix(self) -> Tensor:
        """Its weight as a linear map over patches, float64 (groups, m, N); N ordered (channel, tap)."""
        weight = self.module.weight.detach().double().flatten(1)
        return weight.reshape(self.groups, -1, weight.shape[1])

    def write_(self, matrix: Tensor) -> None:
        """Replaces its weight; `matrix` as `matrix()` gives it."""
        with torch.no_grad():
            self.module.weight.copy_(matrix.flatten(0, 1).reshape(self.module.weight.shape))

    def shift_bias_(self, shift: Tensor) -> None:
        """Adds to its bias; `shift` is (groups, m)."""
        assert self.module.bias is not None
        with torch.no_grad():
            self.module.bias.copy_(self.module.bias.double() + shift.flatten())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def trace_layers(model: nn.Module, inputs: Tensor) -> tuple[EditableLayer, ...]:
    """Runs the network once and notes its layers in the order in which they ran.

    Args:
        model: the network.
        inputs: a few samples, (B, ...).

    Raises:
        PruningError: no `nn.Linear` or `nn.Conv2d` ran.
    """
    ran: list[str] = []
    outputs: list[tuple[Tensor, str]] = []  # held, so that identity means something
    normed: set[str] = set()

    def note(name: str, output: Tensor) -> None:
        ran.append(name)
        outputs.append((output, name))

    def note_norm(read: Tensor) -> None:
        normed.update(name for output, name in outputs if output is read)

    modules = dict(model.named_modules())
    with evaluating(model):
        handles = [
            module.register_forward_hook(lambda _m, _a, output, name=name: note(name, output))
            for name, module in modules.items()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ] + [
            module.register_forward_pre_hook(lambda _m, args: note_norm(args[0]))
            for module in modules.values()
            if isinstance(module, BATCH_NORMS)
        ]
        try:
            model(inputs)
        finally:
            for handle in handles:
                handle.remove()
    if not ran:
        raise PruningError(
            f"{type(model).__name__} ran no nn.Linear and no nn.Conv2d",
            why="these are the layers that are edited; scripted, compiled and quantized modules hide theirs",
            fix="pass the eager nn.Module",
        )
    found = {name: modules[name] for name in ran}
    return tuple(
        EditableLayer(name, module, ran.count(name), name in normed)
        for name, module in found.items()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )


def choose_layers(
    model: nn.Module, ran: Sequence[EditableLayer], wanted: LayerChoice, default: Sequence[EditableLayer]
) -> tuple[EditableLayer, ...]:
    """The layers to edit, in the order in which they run.

    Args:
        model: the network.
        ran: what `trace_layers` found.
        wanted: names, or how many of the last ones, or None.
        default: taken for None.

    Raises:
        UnknownChoiceError: a name that is no layer which ran; lists those that are.
        ArgumentError: no layer, or more than there are.
        PruningError: a layer that cannot be edited alone: shared, tied, or its weight is computed.
    """
    chosen = default if wanted is None else _picked(ran, wanted)
    for layer in chosen:
        _check_alone(model, layer)
    return tuple(chosen)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether statistics can be re-estimated: some batch norm keeps running ones."""
    return any(isinstance(each, BATCH_NORMS) and each.running_mean is not None for each in model.modules())


def is_layer_normed(model: nn.Module) -> bool:
    """Layer norms and no batch norm: a transformer, or built like one."""
    kinds = list(model.modules())
    return any(isinstance(each, LAYER_NORMS) for each in kinds) and not has_batch_norm(model)


def _picked(ran: Sequence[EditableLayer], wanted: Sequence[str] | int) -> Sequence[EditableLayer]:
    names = [layer.name for layer in ran]
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(ran):
            raise ArgumentError(
                f"layers={wanted}",
                why=f"the network runs {len(ran)} linear and convolution layers",
                fix=f"a number from 1 to {len(ran)}, or names: {names}",
            )
        return ran[-wanted:]
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    if not asked:
        raise ArgumentError("layers is empty", why="nothing would be edited", fix=f"names of {names}")
    for name in asked:
        if name not in names:
            raise UnknownChoiceError("layer", name, names)
    return [layer for layer in ran if layer.name in asked]


def _check_alone(model: nn.Module, layer: EditableLayer) -> None:
    fix = "pass layers=[...] without it"
    if layer.calls > 1:
        raise PruningError(
            f"layer {layer.name!r} runs {layer.calls} times in one forward pass",
            why="one weight cannot be fitted to several places",
            fix=fix,
        )
    parameters = dict(layer.module.named_parameters(recurse=False))
    if "weight" not in parameters:
        raise PruningError(
            f"the weight of layer {layer.name!r} is computed from other parameters",
            why="it has a parametrization or a weight norm, which would undo the edit",
            fix="torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') first",
        )
    for parameter in parameters.values():
        owners = [
            name for name, other in model.named_parameters(remove_duplicate=False) if other is parameter
        ]
        for one, other in pairwise(owners):
            raise PruningError(
                f"{one!r} and {other!r} are one parameter",
                why="editing the layer would change the other place too",
                fix=f"untie them, or {fix}",
            )
