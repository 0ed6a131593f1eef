"""A stand-in for `tensorrt` 10 and 11: parses ONNX, builds plans, and runs them through ONNX Runtime.

Faithful in what our code could get wrong: the calls and their order, names, dtypes, profiles and ranges,
what comes back as None or False instead of an exception, plans that belong to one version and GPU, and
the flags that one major version has and the other has not.
"""

import enum
import hashlib
import io
import json
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fakes.cuda import FakeCuda

_MAGIC = "fake-plan"
_NUMPY = {"FLOAT": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_, "HALF": np.float16}
_FROM_ONNX = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64", 9: "BOOL"}

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "BF16", "INT32", "INT64", "INT8", "UINT8", "BOOL"])
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE", "TACTIC_DRAM"])
Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class ILogger:
    def __init__(self) -> None:
        self.initialised = True


def _log(logger: Any, severity: str, message: str) -> None:
    if not getattr(logger, "initialised", False):
        raise TypeError("ILogger.__init__() must be called when overriding __init__")  # pybind's words
    logger.log(Severity[severity], message)


class FakeTensorrt:
    """One installed version.

    Args:
        cuda: the machine it runs on.
        major: 10 or 11.
        refuses: op types its parser does not take.
    """

    def __init__(self, cuda: FakeCuda, major: int = 10, refuses: tuple[str, ...] = ()) -> None:
        self.cuda = cuda
        self.version = {10: "10.16.1.11", 11: "11.4.0.106"}[major]
        self.major = major
        self.refuses = refuses
        self.builds: list[dict[str, Any]] = []  # what each build was told
        self.workspace_needed = 0

    def module(self) -> ModuleType:
        """What `import tensorrt` gives."""
        module = ModuleType("tensorrt")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__version__ = self.version
        module.ILogger = ILogger
        module.DataType, module.TensorIOMode, module.MemoryPoolType = DataType, TensorIOMode, MemoryPoolType
        module.nptype = lambda dtype: _NUMPY[dtype.name]
        creation = {"STRONGLY_TYPED": 1} | ({"EXPLICIT_BATCH": 0} if self.major == 10 else {})
        module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", creation)
        weak = {"FP16": 0, "BF16": 1, "INT8": 2} if self.major == 10 else {}
        module.BuilderFlag = enum.IntEnum("BuilderFlag", weak | {"TF32": 7, "REFIT": 8})
        module.Builder = lambda logger: _Builder(self, logger)
        module.OnnxParser = lambda network, logger: _Parser(self, network, logger)
        module.Runtime = lambda logger: _Runtime(self, logger)
        return module


class _Builder:
    def __init__(self, library: FakeTensorrt, logger: Any) -> None:
        self._library, self._logger = library, logger

    def create_network(self, flags: int = 0) -> "_Network":
        if self._library.major == 10 and not flags & 2:
            raise AssertionError("a weakly typed network: its precisions are TensorRT's choice")
        return _Network()

    def create_builder_config(self) -> "_Config":
        return _Config(self._library)

    def create_optimization_profile(self) -> "_Profile":
        return _Profile()

    def build_serialized_network(self, network: "_Network", config: "_Config") -> bytes | None:
        library = self._library
        dynamic = [tensor.name for tensor in network.inputs if -1 in tensor.shape]
        shapes = config.profiles[0].shapes if config.profiles else {}
        if not set(dynamic) <= set(shapes) or network.model is None:
            _log(self._logger, "ERROR", "Network has dynamic or shape inputs, but no optimization profile")
            return None
        if config.workspace is not None and config.workspace < library.workspace_needed:
            _log(self._logger, "ERROR", "Could not find any implementation for node: insufficient workspace")
            return None
        about = {
            "magic": _MAGIC,
            "version": library.version,
            "gpu": library.cuda.current,
            "profile": shapes,
            "tf32": config.tf32,
            "workspace": config.workspace,
            "timings_given": config.timings.content.decode() if config.timings else None,
        }
        library.builds.append(about)
        if config.timings is not None:
            config.timings.content = b"timings of a build"
        return _pack(about, network.model)


def _pack(about: dict[str, Any], model: bytes) -> bytes:
    packed = io.BytesIO()
    digest = hashlib.sha256(model).hexdigest()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("about.json", json.dumps(about | {"sha256": digest}))
        archive.writestr("model.onnx", model)
    return packed.getvalue()


class _Network:
    def __init__(self) -> None:
        self.model: bytes | None = None
        self.inputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> "_Tensor":
        return self.inputs[index]


class _Tensor:
    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...], *, is_shape_tensor: bool) -> None:
        self.name, self.dtype, self.shape, self.is_shape_tensor = name, dtype, shape, is_shape_tensor


class _ParserError:
    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    def node_operator(self) -> str:
        return self._node.op_type

    def node_name(self) -> str:
        return self._node.name

    def desc(self) -> str:
        return "no importer found"


class _Parser:
    def __init__(self, library: FakeTensorrt, network: _Network, logger: Any) -> None:
        self._library, self._network, self._logger = library, network, logger
        self._errors: list[_ParserError] = []

    def parse_from_file(self, path: str) -> bool:
        if not isinstance(path, str):
            raise TypeError("parse_from_file(): incompatible function arguments")  # pybind takes no Path
        model = onnx.load(path)  # with the weights that lie beside it
        self._errors = [_ParserError(n) for n in model.graph.node if n.op_type in self._library.refuses]
        for tensor in (*model.graph.initializer,):
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
        sizes = {n.input[1] for n in model.graph.node if n.op_type in ("Reshape", "Expand")}
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
            dtype = DataType[_FROM_ONNX[value.type.tensor_type.elem_type]]
            is_shape_tensor = value.name in sizes
            self._network.inputs.append(_Tensor(value.name, dtype, shape, is_shape_tensor=is_shape_tensor))
        self._network.model = model.SerializeToString()
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> _ParserError:
        return self._errors[index]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [tuple(low), tuple(best), tuple(high)]

    def is_valid(self) -> bool:
        return all(a <= b <= c for ends in self.shapes.values() for a, b, c in zip(*ends, strict=True))


class _Timings:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class _Config:
    def __init__(self, library: FakeTensorrt) -> None:
        self._library = library
        self.tf32 = True  # as in the real one
        self.workspace: int | None = None
        self.profiles: list[_Profile] = []
        self.timings: _Timings | None = None

    def clear_flag(self, flag: Any) -> None:
        self.tf32 = self.tf32 and flag.name != "TF32"

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE
        self.workspace = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        if not profile.is_valid():
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> _Timings:
        return _Timings(bytes(content))

    def set_timing_cache(self, cache: _Timings, ignore_mismatch: bool) -> bool:
        if cache.content.startswith(b"other GPU") and not ignore_mismatch:
            return False
        self.timings = cache
        return True


class _Runtime:
    def __init__(self, library: FakeTensorrt, logger: Any) -> None:
        self._library, self._logger = library, logger

    def deserialize_cuda_engine(self, plan: bytes) -> "_Engine | None":
        try:
            with zipfile.ZipFile(io.BytesIO(bytes(plan))) as archive:
                about, model = json.loads(archive.read("about.json")), archive.read("model.onnx")
        except (zipfile.BadZipFile, KeyError, ValueError):
            _log(self._logger, "ERROR", "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        if about["version"] != self._library.version or about["gpu"] != self._library.cuda.current:
            _log(
                self._logger, "ERROR", "The engine plan file is not compatible with this version of TensorRT"
            )
            return None
        return _Engine(self._library, self._logger, about, model)


class _Engine:
    device_memory_size_v2 = 4096

    def __init__(self, library: FakeTensorrt, logger: Any, about: dict[str, Any], model: bytes) -> None:
        self.library, self.logger, self.about = library, logger, about
        self.contexts = 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load_model_from_string(model).graph
        self.inputs = {value.name: value for value in graph.input}
        self.outputs = {value.name: value for value in graph.output}
        if library.major == 10:
            self.device_memory_size = self.device_memory_size_v2

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> Any:
        value = self.inputs.get(name) or self.outputs[name]
        return DataType[_FROM_ONNX[value.type.tensor_type.elem_type]]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def dtype(self, name: str) -> Any:
        return np.dtype(_NUMPY[self.get_tensor_dtype(name).name])

    def create_execution_context(self) -> "_Context | None":
        held = sum(len(content) for _, content in self.library.cuda.blocks.values())
        if held + self.device_memory_size_v2 > self.library.cuda.memory_bytes:
            _log(self.logger, "ERROR", "Requested amount of GPU memory could not be allocated")
            return None
        self.contexts += 1
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if not isinstance(shape, tuple | list) or not all(type(size) is int for size in shape):
            raise TypeError("set_input_shape(): incompatible function arguments")
        ends = self.engine.about["profile"].get(name)
        declared = [d.dim_value for d in self.engine.inputs[name].type.tensor_type.shape.dim]
        ends = ends or [declared, declared, declared]
        if len(shape) != len(declared) or not all(
            a <= size <= c for a, size, c in zip(ends[0], shape, ends[2], strict=True)
        ):
            self._error(f"IExecutionContext::setInputShape: {name} {shape} is outside {ends[0]}..{ends[2]}")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.engine.inputs:
            return self._shapes[name]
        if set(self._shapes) != set(self.engine.inputs):
            return (-1,) * len(self.engine.outputs[name].type.tensor_type.shape.dim)
        return self._compute({n: np.zeros(s, self.engine.dtype(n)) for n, s in self._shapes.items()})[
            name
        ].shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self.engine.inputs and name not in self.engine.outputs:
            return False
        self._addresses[name] = int(address)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda, engine = self.engine.library.cuda, self.engine
        found = cuda.streams.get(int(stream))
        if found is None or found.device != cuda.current or found.device != engine.about["gpu"]:
            return self._error("IExecutionContext::enqueueV3: the stream is of another device, or gone")
        if set(self._shapes) != set(engine.inputs):
            return self._error("IExecutionContext::enqueueV3: not all shapes are specified")
        shapes = {n: self.get_tensor_shape(n) for n in (*engine.inputs, *engine.outputs)}
        try:
            blocks = {name: self._block(name, shape, found.device) for name, shape in shapes.items()}
        except (KeyError, LookupError) as error:
            return self._error(
                f"IExecutionContext::enqueueV3: address of a tensor is not set or too small: {error}"
            )
        found.queue.append(lambda: self._run(blocks))
        return True

    def _block(self, name: str, shape: tuple[int, ...], device: int) -> np.ndarray:
        dtype = self.engine.dtype(name)
        size = int(np.prod(shape)) * dtype.itemsize
        return self.engine.library.cuda.block(self._addresses[name], size, device).view(dtype).reshape(shape)

    def _run(self, blocks: dict[str, np.ndarray]) -> None:
        for name, value in self._compute({n: blocks[n].copy() for n in self.engine.inputs}).items():
            blocks[name][...] = value

    def _compute(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = list(self.engine.outputs)
        return dict(zip(names, self.engine.session.run(names, feeds), strict=True))

    def _error(self, message: str) -> bool:
        _log(self.engine.logger, "ERROR", message)
        return False


def write_external(model: onnx.ModelProto, path: Path) -> None:
    """Saves a model with all its weights in a file beside it."""
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
