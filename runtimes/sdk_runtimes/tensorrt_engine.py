"""From an ONNX file to a TensorRT engine, and to the cached plan that the next load starts from.

Written for TensorRT 10.3 to 11: both take strongly typed networks, which compute in the dtypes that the graph
spells out. 11 has no other kind and dropped the flags that would loosen it.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdk_runtimes.errors import MemoryLimitError, SessionError
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.specs import ProgramSpec

PLAN = "engine.plan"
TIMINGS = "timing.cache"
PROFILE = "profile"  # key of ProgramSpec.options

_SHOWN = 5  # TensorRT repeats itself up the call stack
_UNLIMITED_WORKSPACE = 0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A ready engine.

    Attributes:
        engine: a `tensorrt.ICudaEngine`.
        runtime: the `tensorrt.Runtime` it must not outlive.
        log: what TensorRT complained about; filled further while the engine runs.
        was_cached: whether it came from the cached plan.
    """

    engine: Any
    runtime: Any
    log: "ErrorLog"
    was_cached: bool


class ErrorLog:
    """The last errors that TensorRT logged: its calls only say that they failed."""

    def __init__(self) -> None:
        self._messages: list[str] = []

    def add(self, message: str) -> None:
        """Keeps a message."""
        self._messages = [*self._messages[1 - _SHOWN :], message]

    def take(self) -> str:
        """The messages since the last call, in one text."""
        text = "; ".join(self._messages)
        self._messages = []
        return text or "TensorRT gave no reason"


def make_logger(trt: Any, errors: ErrorLog) -> Any:
    """A `tensorrt.ILogger` that writes to our logger and keeps errors."""
    levels = {"VERBOSE": logging.DEBUG, "INFO": logging.DEBUG, "WARNING": logging.INFO}

    class Logger(trt.ILogger):  # type: ignore[misc]  # tensorrt ships no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind classes must be initialised by name

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity.name, logging.WARNING)
            _log.log(level, "TensorRT: %s", message)
            if level == logging.WARNING:
                errors.add(message)

    return Logger()


def load_engine(trt: Any, spec: ProgramSpec, folder: Path, options: OpenOptions) -> Loaded:
    """The engine of a program: deserialised from the cache, else built, and cached.

    Args:
        trt: the `tensorrt` module.
        spec: its options hold the profile.
        folder: where `spec.files` lie.
        options: `cache_path` is this program's own folder; one for each GPU, driver and version.

    Raises:
        SessionError: TensorRT refused the graph.
        MemoryLimitError: the engine needs more memory than it may have.
    """
    errors = ErrorLog()
    logger = make_logger(trt, errors)
    runtime = trt.Runtime(logger)
    engine = _cached(runtime, options.cache_path, errors)
    was_cached = engine is not None
    if engine is None:
        plan = build_plan(trt, logger, errors, spec, folder / spec.entry, options)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise SessionError(f"TensorRT cannot load the engine it just built: {errors.take()}")
        _keep(options.cache_path, PLAN, plan)
    _refuse_if_too_large(engine, spec, options)
    return Loaded(engine, runtime, errors, was_cached)


def _cached(runtime: Any, cache_path: Path | None, errors: ErrorLog) -> Any:
    """The engine of the cached plan; None if there is none that this TensorRT and GPU can load."""
    if cache_path is None or not (cache_path / PLAN).is_file():
        return None
    try:
        engine = runtime.deserialize_cuda_engine((cache_path / PLAN).read_bytes())
    except Exception as error:  # noqa: BLE001 - whatever a stale plan does, building anew mends it
        engine, reason = None, str(error)
    else:
        reason = "" if engine is not None else errors.take()
    if engine is None:
        _log.info("the cached TensorRT plan %s does not load, building anew: %s", cache_path / PLAN, reason)
    return engine


def _keep(cache_path: Path | None, name: str, content: Any) -> None:
    """Writes a cache file whole or not at all; a cache that cannot be written costs time, not results."""
    if cache_path is None:
        return
    staged = cache_path / f"{name}.new"
    try:
        staged.write_bytes(content)
        staged.replace(cache_path / name)
    except OSError as error:
        _log.warning("the TensorRT cache %s cannot be written, so loads stay slow: %s", cache_path, error)


def build_plan(
    trt: Any, logger: Any, errors: ErrorLog, spec: ProgramSpec, file: Path, options: OpenOptions
) -> Any:
    """Builds a serialised engine: minutes for large networks, TensorRT times its kernels on the GPU.

    Raises:
        SessionError: TensorRT refused the graph, or found no kernels for it.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, logger, network, spec, file)
    config = builder.create_builder_config()
    # On by default: TF32 rounds fp32 products to 10 bits. Our precisions are what the graph says.
    config.clear_flag(trt.BuilderFlag.TF32)
    workspace = _workspace(spec, options)
    if workspace != _UNLIMITED_WORKSPACE:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    _add_profile(trt, builder, config, network, spec)
    timings = _timings(config, options.cache_path)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SessionError(
            f"TensorRT could not build an engine for {spec.id!r}: {errors.take()}",
            why="it has no kernel for a node on this GPU, or too little memory to build with",
            fix="load(..., device='onnxruntime:cuda') runs the same file; or give a larger memory_limit",
        )
    _keep(options.cache_path, TIMINGS, timings.serialize())
    return plan


def _parse(trt: Any, logger: Any, network: Any, spec: ProgramSpec, file: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    # By path, not by bytes: the weights beside the file are found from there.
    if parser.parse_from_file(str(file)):
        return
    reasons = [parser.get_error(i) for i in range(parser.num_errors)]
    listed = "; ".join(f"{error.node_operator()} {error.node_name()!r}: {error.desc()}" for error in reasons)
    raise SessionError(
        f"TensorRT's parser refused {spec.entry!r}: {listed[:1000]}",
        why=f"TensorRT {trt.__version__} does not take a node of it, though our table of its ops does",
        fix="load(..., device='onnxruntime:cuda') runs the same file; please report the node",
    )


def _workspace(spec: ProgramSpec, options: OpenOptions) -> int:
    """Bytes that kernels may use beside weights; 0 for TensorRT's default, all there is."""
    if options.memory_limit_bytes is None:
        return _UNLIMITED_WORKSPACE
    return max(options.memory_limit_bytes - spec.weights_bytes, 1)


def _add_profile(trt: Any, builder: Any, config: Any, network: Any, spec: ProgramSpec) -> None:
    shapes: dict[str, dict[str, list[int]]] = json.loads(spec.options.get(PROFILE, "{}"))
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.dtype in (trt.DataType.INT32, trt.DataType.INT64) and tensor.is_shape_tensor:
            raise SessionError(
                f"input {tensor.name!r} of {spec.id!r} decides a shape by its value",
                why="a TensorRT profile would need a range of values, bundles hold ranges of sizes only",
                fix="take the size from the shape of an input instead",
            )
    dynamic = [tensor.name for tensor in inputs if -1 in tuple(tensor.shape)]
    missing = [name for name in dynamic if name not in shapes]
    if missing:
        raise SessionError(
            f"program {spec.id!r} has no shape ranges for {missing}",
            why="TensorRT plans kernels and memory for a range of shapes",
            fix="export it again with dynamic_shapes={'<input>': {<axis>: ('<symbol>', 1, 8)}}",
        )
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name in dynamic:
        profile.set_shape(name, *(tuple(shapes[name][end]) for end in ("min", "opt", "max")))
    if config.add_optimization_profile(profile) < 0:
        raise SessionError(f"TensorRT refused the shape ranges {shapes} of {spec.id!r}")


def _timings(config: Any, cache_path: Path | None) -> Any:
    """Kernel timings of an earlier build on this GPU, or an empty collection; attached to the config."""
    known = b""
    if cache_path is not None and (cache_path / TIMINGS).is_file():
        known = (cache_path / TIMINGS).read_bytes()
    timings = config.create_timing_cache(known)
    if not config.set_timing_cache(timings, False):  # noqa: FBT003 - a positional argument of pybind
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)  # noqa: FBT003 - likewise
    return timings


def _refuse_if_too_large(engine: Any, spec: ProgramSpec, options: OpenOptions) -> None:
    needed = spec.weights_bytes + int(engine.device_memory_size_v2)
    limit = options.memory_limit_bytes
    if limit is not None and needed > limit:
        raise MemoryLimitError(
            f"program {spec.id!r} takes {needed} bytes of GPU memory, more than memory_limit={limit}",
            why=f"{spec.weights_bytes} of weights and {engine.device_memory_size_v2} of activations",
            fix=f"load(..., memory_limit={needed}), or export with smaller maximum shapes",
        )
