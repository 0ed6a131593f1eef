"""Programs in OpenVINO IR or ONNX form, through OpenVINO."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sdk_runtimes.cpu import cpu_name
from sdk_runtimes.errors import DeviceError, SdkError, SessionError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.opening import Device, OpenOptions, check_outputs, split_device
from sdk_runtimes.require import is_installed, require
from sdk_runtimes.session import Placement
from sdk_runtimes.specs import ProgramSpec, TensorSpec

if TYPE_CHECKING:
    import openvino

NAME = "openvino"
TARGETS = ("openvino", "onnx")

# unit -> kind; OpenVINO spells the units in capitals
UNITS: Mapping[str, str] = MappingProxyType({"gpu": "gpu", "cpu": "cpu", "npu": "npu", "auto": "auto"})

_IDENTITY = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES", "GPU_DRIVER_VERSION", "NPU_DRIVER_VERSION")

# precision -> (OpenVINO's hint, the capability a device must list for it; None: all but NPUs have it)
_HINTS: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {"fp32": ("f32", None), "fp16": ("f16", "FP16"), "bf16": ("bf16", "BF16")}
)


class OpenvinoSession:
    """A program in OpenVINO.

    Args:
        compiled: the compiled model; its infer requests share the weights.
        spec: what the program takes and gives.
        placement: where it runs.
    """

    def __init__(self, compiled: "openvino.CompiledModel", spec: ProgramSpec, placement: Placement) -> None:
        self.placement = placement
        self._compiled: openvino.CompiledModel | None = compiled
        self._spec = spec
        self._inputs = _port_indices(compiled.inputs, spec.inputs, spec)
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._tensor = require("openvino").Tensor

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        request, tensor = self._request, self._tensor
        assert request is not None, "closed"
        # OpenVINO shares neither strided nor read-only arrays. It does not keep what it shares alive: copies
        # must live until `infer` is through, or it reads freed memory.
        shared = [a if a.flags.c_contiguous and a.flags.writeable else a.copy() for a in feeds]
        for index, array in zip(self._inputs, shared, strict=True):
            request.set_input_tensor(index, tensor(array, shared_memory=True))
        # Copies, by position: an output that is called like an input has another name in the file.
        results: Sequence[Array] = request.infer().to_tuple()
        return results

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties C-contiguous buffers to the program; the callable runs it from and into them.

        The buffers belong to an infer request of their own, so `run` may be called in between.
        """
        assert self._compiled is not None, "closed"
        request = self._compiled.create_infer_request()
        for index, array in zip(self._inputs, inputs, strict=True):
            request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        for index, array in enumerate(outputs):
            request.set_output_tensor(index, self._tensor(array, shared_memory=True))
        infer = request.infer

        def call() -> None:
            infer(share_outputs=True)  # or every output is copied into the dict that it returns

        return call

    def clone(self) -> "OpenvinoSession":
        """A new infer request on the same compiled model: weights are shared, activations are not."""
        assert self._compiled is not None, "closed"
        return OpenvinoSession(self._compiled, self._spec, self.placement)

    def close(self) -> None:
        """Frees the compiled model once its last clone is closed."""
        self._request = None
        self._compiled = None


def open_session(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> OpenvinoSession:
    """Opens an OpenVINO IR or ONNX program.

    Args:
        spec: the program; `spec.files` are relative to `folder`.
        folder: the bundle's folder.
        device: "openvino:cpu", "openvino:gpu", "openvino:gpu:1", "openvino:npu" or "openvino:auto".
        options: threads, cache.

    Raises:
        MissingExtraError: openvino is not installed.
        UnknownChoiceError: no such unit.
        DeviceError: OpenVINO sees no such device.
        SessionError: OpenVINO refused the file.
    """
    ov = require("openvino", needed_for=f"device {device!r}")
    unit, index = split_device(device, NAME)
    if unit not in UNITS:
        raise UnknownChoiceError("openvino device", device, [f"{NAME}:{known}" for known in UNITS])
    name = _openvino_name(unit, index)
    hint, reasons = precision_hint(spec.precision, unit, _capabilities(name))
    try:
        model = _core().read_model(str(folder / spec.entry))
        core = _core_without_snippets() if has_dynamic_attention(model) else _core()
        compiled = core.compile_model(model, name, _config(hint, unit, options))
        check_outputs(spec, len(compiled.outputs))
    except SdkError:
        raise
    except Exception as error:
        raise SessionError(
            f"OpenVINO {ov.__version__} did not load {spec.entry!r} on {device}: {error}",
            why="it refused the graph, or the device could not start",
            fix="sdk.verify(bundle) tells whether the file is whole; device='openvino:cpu' runs anywhere",
        ) from error
    return OpenvinoSession(compiled, spec, Placement(NAME, _placed(unit, index), _nodes(compiled), reasons))


@lru_cache(maxsize=1)
def _core() -> "openvino.Core":
    """One core a process: it holds the loaded plugins."""
    core: openvino.Core = require("openvino").Core()
    return core


@lru_cache(maxsize=1)
def _core_without_snippets() -> "openvino.Core":
    """A core whose CPU plugin compiles no subgraphs; see `has_dynamic_attention`.

    As a setting of one compilation OpenVINO would drop it on the way from AUTO to the CPU.
    """
    core: openvino.Core = require("openvino").Core()
    core.set_property("CPU", {"SNIPPETS_MODE": "DISABLE"})
    return core


def _openvino_name(unit: str, index: int) -> str:
    base = unit.upper()
    listed = _core().available_devices
    name = base
    if unit != "auto" and base not in listed:  # several GPUs are listed as GPU.0, GPU.1
        name = f"{base}.{index}"
    if unit != "auto" and (name not in listed or (index and name == base)):
        raise DeviceError(
            f"openvino:{unit}{f':{index}' if index else ''} is not usable here",
            why=f"OpenVINO sees {', '.join(listed) or 'nothing'}: no such hardware, or its driver is missing",
            fix="install the driver, or load(..., device='openvino:cpu')",
        )
    return name


def _capabilities(name: str) -> tuple[str, ...]:
    if name == "AUTO":
        return ("FP32", "FP16", "BF16")  # it passes the hint on to the devices that it finds
    return tuple(_core().get_property(name, "OPTIMIZATION_CAPABILITIES"))


def precision_hint(precision: str, unit: str, capabilities: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What OpenVINO must be told to compute in, and why if that is not the program's precision.

    Left alone it takes bf16 on a CPU that has it (errors of 1e-2), also when asked for f16.

    Args:
        precision: of the program.
        unit: a key of `UNITS`.
        capabilities: the device's OPTIMIZATION_CAPABILITIES.
    """
    if precision not in _HINTS:
        raise UnknownChoiceError("precision", precision, _HINTS)
    hint, capability = _HINTS[precision]
    if unit == "npu" and hint != "f16":
        return "f16", (f"{precision} is computed in fp16 on openvino:npu: the NPU has no other float",)
    if capability is None or capability in capabilities:
        return hint, ()
    reason = (
        f"{precision} is computed in fp32 on openvino:{unit}: the device lists {', '.join(capabilities)}, "
        f"not {capability}; weights are rounded to {precision}"
    )
    return "f32", (reason,)


def _config(hint: str, unit: str, options: OpenOptions) -> Mapping[str, str | int]:
    config: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": hint,
        # PERFORMANCE would also quantize attention caches and the inputs of compressed layers to 8 bits.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
    }
    # Loading from its cache holds blob, file and repacked weights at once: 3.1x the weights instead of 2.2x.
    if options.cache_path and not options.lean:
        config["CACHE_DIR"] = str(options.cache_path)
    if unit == "cpu" and options.threads:
        config["INFERENCE_NUM_THREADS"] = options.threads
    return config


def has_dynamic_attention(model: "openvino.Model") -> bool:
    """Whether a softmax or attention over a length that is not fixed is in the model or a body of it.

    OpenVINO 2025.4 to 2026.4 compile MatMul-Softmax-MatMul into one CPU kernel ("snippets"), which, if its
    first run has one key, computes garbage from 16 keys on (errors of 1e1 and NaN): the loop of every KV
    cache. Without that compilation the result is right, at 1.03x the time of a VAR-like loop (6 layers of
    384, 10 steps to 680 keys); CPU_RUNTIME_CACHE_CAPACITY=0 mends it as well, at 1.27x.
    """
    return any(_attends_dynamically(node) for node in _all_nodes(model))


def _attends_dynamically(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "ScaledDotProductAttention":
        return _is_dynamic(node.input(1), -2, -1)  # keys
    if kind == "Exp":  # of a softmax in parts, which OpenVINO puts together first
        return _is_dynamic(node.input(0), -1)
    return kind == "Softmax" and _is_dynamic(node.input(0), node.get_axis())


def _is_dynamic(port: Any, *axes: int) -> bool:
    shape = port.get_partial_shape()
    return bool(shape.rank.is_dynamic or (len(shape) and any(shape[axis].is_dynamic for axis in axes)))


def _all_nodes(model: Any) -> Iterator[Any]:
    for node in model.get_ops():
        yield node
        for body in _bodies(node):
            yield from _all_nodes(body)


def _bodies(node: Any) -> Iterator[Any]:
    kind = node.get_type_name()
    if kind == "If":
        yield from (node.get_function(branch) for branch in (0, 1))
    elif kind in ("Loop", "TensorIterator"):
        yield node.get_function()


def _port_indices(ports: Sequence[Any], specs: Sequence[TensorSpec], program: ProgramSpec) -> tuple[int, ...]:
    by_name = {name: index for index, port in enumerate(ports) for name in port.get_names()}
    missing = [spec.name for spec in specs if spec.name not in by_name]
    if missing:
        raise SessionError(
            f"{program.entry!r} has no input named {missing}",
            why=f"its inputs are {sorted(by_name)}",
            fix="export the model again",
        )
    return tuple(by_name[spec.name] for spec in specs)


def _placed(unit: str, index: int) -> str:
    return f"{unit}:{index}" if index else unit


def _nodes(compiled: "openvino.CompiledModel") -> Mapping[str, int]:
    units = compiled.get_property("EXECUTION_DEVICES")
    # Only one device: all nodes are there. With several (AUTO before it has decided) OpenVINO does not tell.
    return {units[0]: len(compiled.get_runtime_model().get_ops())} if len(units) == 1 else {}


def devices() -> tuple[Device, ...]:
    """The devices that OpenVINO sees, and the units it knows but does not see."""
    if not is_installed("openvino"):
        note = "pip install 'edge-sdk[openvino]'"
        return tuple(
            Device(f"{NAME}:{u}", NAME, kind, "", usable=False, note=note) for u, kind in UNITS.items()
        )
    return tuple(device for unit in UNITS for device in _unit_devices(unit))


def _unit_devices(unit: str) -> Iterator[Device]:
    base, kind = unit.upper(), UNITS[unit]
    if unit == "auto":
        yield Device(f"{NAME}:auto", NAME, kind, "whatever OpenVINO chooses", usable=True)
        return
    found = [name for name in _core().available_devices if name.split(".")[0] == base]
    for index, name in enumerate(found):
        title = str(_core().get_property(name, "FULL_DEVICE_NAME")).strip()
        yield Device(f"{NAME}:{_placed(unit, index)}", NAME, kind, title, usable=True)
    if not found:
        note = f"OpenVINO sees no {base}: no such hardware, or its driver is missing"
        yield Device(f"{NAME}:{unit}", NAME, kind, "", usable=False, note=note)


def identity(device: str) -> Mapping[str, str]:
    """What a verdict or a compiled blob depends on, apart from the bundle."""
    ov = require("openvino", needed_for=f"device {device!r}")
    name = _openvino_name(*split_device(device, NAME))
    about = {"openvino": ov.__version__}
    if name != "AUTO":
        supported = _core().get_property(name, "SUPPORTED_PROPERTIES")
        about |= {key: str(_core().get_property(name, key)) for key in _IDENTITY if key in supported}
    return about | {"cpu": cpu_name()}
