"""Checks an ONNX file before a native loader sees it; needs neither onnx nor onnxruntime.

What is refused: anything that is not exactly an ONNX model (see `protobuf_wire`); weights outside the allowed
files, or other than their shape and type say; operators not in `onnx_ops`; recursion, deep nesting, calls
that explode; sizes from constants above the caps (`onnx_growth`).

What is not: a graph that is merely slow, or that needs much memory when it is fed large inputs: a session's
memory limit is for that. Shapes are followed only through the operators that shapes are computed with.
"""

import mmap
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk_runtimes.bundle_files import open_regular
from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, MIB, Limits
from sdk_runtimes.onnx_graph_check import check_model
from sdk_runtimes.onnx_model import Reader
from sdk_runtimes.onnx_tensors import ExternalFiles
from sdk_runtimes.protobuf_wire import Buffer, Wire

# Reading is faster than mapping for graphs without weights, and safe against a file cut short meanwhile.
_READ_UP_TO = 16 * MIB


def check_onnx_file(
    path: Path,
    *,
    allowed_files: Collection[str] | None = None,
    allowed_ops: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Checks an ONNX file under limits.

    Args:
        path: the file.
        allowed_files: where weights may lie, relative to the file's folder; None allows any regular file
            there or below, reached by a plain path.
        allowed_ops: operators beyond `onnx_ops.OPS`, as "domain::op".
        limits: caps on sizes, nodes and nesting.

    Raises:
        IntegrityError: the file, or one that holds its weights, is not there.
        UnsafeBundleError: names what is wrong.
    """
    with _opened(path, limits) as buffer:
        check_onnx_bytes(
            buffer,
            ExternalFiles(path.parent, allowed_files),
            name=path.name,
            allowed_ops=allowed_ops,
            limits=limits,
        )


def check_onnx_bytes(
    buffer: Buffer,
    files: ExternalFiles,
    *,
    name: str = "the model",
    allowed_ops: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Checks a serialized ModelProto; as `check_onnx_file`."""
    reader = Reader(Wire(buffer, limits.graph_fields), files, limits)
    try:
        check_model(reader.model((0, len(buffer))), allowed=allowed_ops, limits=limits)
    except UnsafeBundleError as error:
        raise UnsafeBundleError(f"{name}: {error.what}", why=error.why, fix=error.fix) from error


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Buffer]:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= limits.graph_bytes:
            raise UnsafeBundleError(
                f"{path.name} has {size} bytes", why=f"1 to {limits.graph_bytes} are allowed"
            )
        if size <= _READ_UP_TO:
            yield file.read()
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped
