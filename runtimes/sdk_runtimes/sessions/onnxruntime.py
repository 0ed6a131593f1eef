"""Programs in ONNX form, through ONNX Runtime and its execution providers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sdk_runtimes.cpu import cpu_name, nvidia_driver
from sdk_runtimes.errors import DeviceError, SessionError, UnknownChoiceError
from sdk_runtimes.feeds import Array
from sdk_runtimes.opening import Device, OpenOptions, check_outputs, split_device
from sdk_runtimes.session import Placement
from sdk_runtimes.specs import ProgramSpec

NAME = "onnxruntime"
TARGETS = ("onnx", "tensorrt")

# ONNX Runtime repacks the weights of every MatMul and keeps file and copy. Without the copies the file stays
# memory-mapped and is shared between sessions (4 sessions of 64 MB: 33 MB private instead of 337), at 1.1x
# (256 rows) to 2.5x (4 rows) the time of a MatMul. Above this size memory is what runs out first.
PREPACK_MAX_BYTES = 1 << 30

_CPU = "CPUExecutionProvider"

# precision -> optimizers to leave out. ONNX Runtime 1.31 dies (SIGSEGV) in its NCHWc pass over some fp16
# graphs, Cast-Transpose-MatMul of rank 3 for one.
_CRASHING: Mapping[str, list[str]] = MappingProxyType({"fp16": ["NchwcTransformer"]})
_QUIET = 3  # errors only: what matters of the warnings is in `placement`
_SILENT = 4


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        name: what ONNX Runtime calls it.
        kind: "cpu", "gpu" or "npu".
        wheel: the distribution that brings it, in place of `onnxruntime`.
        options: spec, device index and open options -> provider options.
    """

    name: str
    kind: str
    wheel: str
    options: Callable[[ProgramSpec, int, OpenOptions], Mapping[str, str]]


def _no_options(_spec: ProgramSpec, _index: int, _options: OpenOptions) -> Mapping[str, str]:
    return {}


def _cuda_options(_spec: ProgramSpec, index: int, options: OpenOptions) -> Mapping[str, str]:
    # TF32 is the provider's default, and rounds fp32 products to 10 bits.
    settings = {"device_id": str(index), "use_tf32": "0"}
    if options.memory_limit_bytes:
        settings["gpu_mem_limit"] = str(options.memory_limit_bytes)
    return settings


def _tensorrt_options(spec: ProgramSpec, index: int, options: OpenOptions) -> Mapping[str, str]:
    settings = {
        "device_id": str(index),
        "trt_fp16_enable": str(int(spec.precision == "fp16")),
        "trt_bf16_enable": str(int(spec.precision == "bf16")),
    }
    if options.cache_path:
        settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(options.cache_path)}
    return settings


def _coreml_options(_spec: ProgramSpec, _index: int, options: OpenOptions) -> Mapping[str, str]:
    settings = {
        "ModelFormat": "MLProgram",  # typed: fp32 stays fp32, the older NeuralNetwork promises nothing
        "AllowLowPrecisionAccumulationOnGPU": "0",
    }
    return settings | ({"ModelCacheDirectory": str(options.cache_path)} if options.cache_path else {})


def _directml_options(_spec: ProgramSpec, index: int, _options: OpenOptions) -> Mapping[str, str]:
    return {"device_id": str(index)}


def _qnn_options(spec: ProgramSpec, _index: int, _options: OpenOptions) -> Mapping[str, str]:
    # On by default, and computes an fp32 graph in fp16.
    return {"backend_type": "htp", "enable_htp_fp16_precision": str(int(spec.precision == "fp16"))}


def _openvino_options(spec: ProgramSpec, _index: int, options: OpenOptions) -> Mapping[str, str]:
    settings = {"device_type": "CPU", "precision": "FP16" if spec.precision == "fp16" else "FP32"}
    if options.threads:
        settings["num_of_threads"] = str(options.threads)
    return settings | ({"cache_dir": str(options.cache_path)} if options.cache_path else {})


# unit -> provider, in the order of preference
PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "tensorrt": Provider("TensorrtExecutionProvider", "gpu", "onnxruntime-gpu", _tensorrt_options),
        "cuda": Provider("CUDAExecutionProvider", "gpu", "onnxruntime-gpu", _cuda_options),
        "directml": Provider("DmlExecutionProvider", "gpu", "onnxruntime-directml", _directml_options),
        "coreml": Provider("CoreMLExecutionProvider", "npu", "onnxruntime, on macOS", _coreml_options),
        "qnn": Provider("QNNExecutionProvider", "npu", "onnxruntime-qnn", _qnn_options),
        "openvino": Provider("OpenVINOExecutionProvider", "cpu", "onnxruntime-openvino", _openvino_options),
        "cpu": Provider(_CPU, "cpu", "onnxruntime", _no_options),
    }
)
UNITS: Mapping[str, str] = MappingProxyType({unit: provider.kind for unit, provider in PROVIDERS.items()})


class OnnxruntimeSession:
    """A program in ONNX Runtime.

    Args:
        engine: an `onnxruntime.InferenceSession`; safe to run from several threads at once.
        spec: what the program takes and gives.
        placement: where its nodes run.
    """

    def __init__(self, engine: Any, spec: ProgramSpec, placement: Placement) -> None:
        self.placement = placement
        self._engine = engine
        self._spec = spec
        self._inputs = tuple(item.name for item in spec.inputs)
        # By position: an output that is called like an input has another name in the file.
        self._outputs = [item.name for item in engine.get_outputs()]

    def run(self, feeds: Sequence[Array]) -> Sequence[Array]:
        """One run; arrays in the order of the program's inputs and outputs. Results are the caller's own."""
        results: Sequence[Array] = self._engine.run(
            self._outputs, dict(zip(self._inputs, feeds, strict=True))
        )
        return results

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """Ties C-contiguous buffers to the program; the callable runs it from and into them.

        On the CPU the engine computes in these very buffers; other devices copy in and out of them.
        """
        binding = self._engine.io_binding()
        for name, array in zip(self._inputs, inputs, strict=True):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        run, kept = self._engine.run_with_iobinding, (*inputs, *outputs)

        def call(_kept: tuple[Array, ...] = kept) -> None:  # keeps the memory behind the addresses alive
            run(binding)

        return call

    def clone(self) -> "OnnxruntimeSession":
        """The same engine session, weights and all: `InferenceSession.run` is thread-safe."""
        return OnnxruntimeSession(self._engine, self._spec, self.placement)

    def close(self) -> None:
        """Frees the engine session once its last clone is closed."""
        self._engine = None


def open_session(spec: ProgramSpec, folder: Path, device: str, options: OpenOptions) -> OnnxruntimeSession:
    """Opens an ONNX program.

    Args:
        spec: the program; `spec.files` are relative to `folder`.
        folder: the bundle's folder.
        device: "onnxruntime:<unit>", a key of `PROVIDERS`, with ":<index>" where there are several.
        options: threads, memory, cache.

    Raises:
        UnknownChoiceError: no such unit.
        DeviceError: the provider is not installed, did not load, or cannot compute the precision.
        SessionError: ONNX Runtime refused the file.
    """
    unit, index = split_device(device, NAME)
    if unit not in PROVIDERS:
        raise UnknownChoiceError("onnxruntime device", device, [f"{NAME}:{known}" for known in PROVIDERS])
    engine = _create(spec, folder, unit, index, options)
    wanted = PROVIDERS[unit].name
    if wanted not in engine.get_providers():
        raise DeviceError(
            f"{device} is not usable here",
            why=f"ONNX Runtime fell back to {engine.get_providers()}: {wanted} lacks its driver or a library",
            fix=f"install what {wanted} needs, or load(..., device='onnxruntime:cpu')",
        )
    check_outputs(spec, len(engine.get_outputs()))
    engine.disable_fallback()  # or a failing run is printed and repeated elsewhere
    return OnnxruntimeSession(engine, spec, _placement(engine, spec, unit, index))


def _create(spec: ProgramSpec, folder: Path, unit: str, index: int, options: OpenOptions) -> Any:
    import onnxruntime

    provider = PROVIDERS[unit]
    if provider.name not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"{NAME}:{unit} is not usable here",
            why=f"this build of ONNX Runtime has no {provider.name}",
            fix=f"pip install {provider.wheel} (in place of onnxruntime), or load(..., device='{NAME}:cpu')",
        )
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    chosen: list[Any] = [(provider.name, dict(provider.options(spec, index, options)))]
    try:
        return onnxruntime.InferenceSession(
            str(folder / spec.entry),
            session_options(spec, options),
            providers=chosen if unit == "cpu" else [*chosen, _CPU],
            disabled_optimizers=_CRASHING.get(spec.precision, []),
        )
    except Exception as error:
        raise _refusal(spec, unit, error) from error


def session_options(spec: ProgramSpec, options: OpenOptions) -> Any:
    """ONNX Runtime's settings for a program, as an `onnxruntime.SessionOptions`."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _QUIET
    levels = onnxruntime.GraphOptimizationLevel
    # The last level lays convolutions out anew, which copies their weights: 2.2x of them instead of 1.3x for
    # a plain stack of 3x3 convolutions, which takes 1.23x the time without.
    settings.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if options.lean else levels.ORT_ENABLE_ALL
    settings.intra_op_num_threads = options.threads or 0
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.enable_cpu_mem_arena = not options.lean
    for key, value in _config_entries(spec, options).items():
        settings.add_session_config_entry(key, value)
    return settings


def _config_entries(spec: ProgramSpec, options: OpenOptions) -> Mapping[str, str]:
    return {
        "session.intra_op.allow_spinning": str(int(options.spin)),
        "session.disable_prepacking": str(int(options.lean or spec.weights_bytes > PREPACK_MAX_BYTES)),
        "session.record_ep_graph_assignment_info": "1",
    }


def _refusal(spec: ProgramSpec, unit: str, error: Exception) -> DeviceError | SessionError:
    if spec.precision == "bf16" and unit == "cpu":
        return DeviceError(
            f"program {spec.id!r} cannot run in bf16 on {NAME}:cpu",
            why=f"ONNX Runtime's CPU provider has next to no bf16 kernels: {error}",
            fix="export with precision='fp32', or with target='openvino', whose CPU plugin computes in bf16",
        )
    return SessionError(
        f"ONNX Runtime did not load {spec.entry!r}: {error}",
        why=f"the {PROVIDERS[unit].name} refused the graph or could not start",
        fix="sdk.verify(bundle) tells whether the file is as written; device='onnxruntime:cpu' runs anywhere",
    )


def _placement(engine: Any, spec: ProgramSpec, unit: str, index: int) -> Placement:
    provider = PROVIDERS[unit]
    nodes, elsewhere = _assigned(engine, provider.name)
    device = unit if unit == "cpu" or provider.kind != "gpu" else f"{unit}:{index}"
    reasons = []
    if elsewhere:
        ops = ", ".join(f"{count} {op}" for op, count in elsewhere.most_common(8))
        reasons.append(
            f"{elsewhere.total()} of {sum(nodes.values())} nodes run outside {provider.name} ({ops}): "
            "it has no kernel for them, or ONNX Runtime keeps shape arithmetic on the CPU"
        )
    if unit == "cpu" and spec.precision == "fp16":
        reasons.append(
            "fp16 is computed in fp32 on onnxruntime:cpu: the fp16 weights are widened once, at load"
        )
    return Placement(NAME, device, nodes, tuple(reasons))


def _assigned(engine: Any, wanted: str) -> tuple[Mapping[str, int], Counter[str]]:
    """Nodes per provider, and the op types of those that are not where they were wanted."""
    if not hasattr(engine, "get_provider_graph_assignment_info"):  # onnxruntime < 1.24
        return {}, Counter()
    nodes: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for part in engine.get_provider_graph_assignment_info():
        ops = [node.op_type for node in part.get_nodes()]
        nodes[part.ep_name] += len(ops)
        if part.ep_name != wanted:
            elsewhere.update(ops)
    return dict(nodes), elsewhere


def devices() -> tuple[Device, ...]:
    """One device a provider: those of this build, and those that another wheel would bring."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return tuple(_device(unit, provider, provider.name in available) for unit, provider in PROVIDERS.items())


def _device(unit: str, provider: Provider, available: bool) -> Device:
    if not available:
        note = f"not in this build of ONNX Runtime; pip install {provider.wheel}"
        return Device(f"{NAME}:{unit}", NAME, provider.kind, "", usable=False, note=note)
    why_not = "" if unit == "cpu" else _why_not(unit)
    name = cpu_name() if provider.kind == "cpu" else ""
    return Device(f"{NAME}:{unit}", NAME, provider.kind, name, usable=not why_not, note=why_not)


# An ONNX model of one Relu on one float: a provider whose libraries are missing only shows when it starts.
_PROBE = bytes.fromhex(
    "08083a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a001011"
)


def _why_not(unit: str) -> str:
    """Why a provider of this build cannot start here; empty if it can."""
    import onnxruntime

    provider = PROVIDERS[unit]
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = _SILENT
    try:
        engine = onnxruntime.InferenceSession(_PROBE, quiet, providers=[provider.name, _CPU])
    except Exception as error:  # noqa: BLE001 - whatever a driver throws is the answer
        return f"{provider.name} did not start: {error}"
    if provider.name not in engine.get_providers():
        return f"{provider.name} did not start: its driver or a library that it needs is missing"
    return ""


def identity(_device: str) -> Mapping[str, str]:
    """What a verdict or a compiled blob depends on, apart from the bundle."""
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, "cpu": cpu_name(), "gpu_driver": nvidia_driver()}
