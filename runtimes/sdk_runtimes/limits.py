"""Caps on what a bundle, or a graph in it, may ask of the machine that reads it."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """Far above what honest bundles need, far below what hurts; pass your own to raise or lower one.

    Attributes:
        manifest_bytes: size of `manifest.json`.
        json_depth: nesting of any JSON document.
        files: files in a bundle.
        path_chars: length of a path inside the bundle.
        total_bytes: size of all files together.
        header_bytes: JSON header of a safetensors file.
        golden_bytes: one file of goldens.
        graph_bytes: a graph without its external weights (protobuf itself stops at 2 GiB).
        xml_bytes: an XML file.
        graph_fields: protobuf fields or XML elements of a graph.
        graph_nodes: nodes of a graph with its subgraphs, and with its function calls expanded.
        graph_depth: nesting of subgraphs, function calls, types and XML elements.
        tensor_bytes: one tensor, as declared or as a shape in the graph says.
        grown_bytes: all tensors that a graph computes from constants alone and that are larger than these
            (ConstantOfShape, Tile, …): an engine that folds constants allocates them at load.
    """

    manifest_bytes: int = 16 * MIB
    json_depth: int = 32
    files: int = 4096
    path_chars: int = 240
    total_bytes: int = 256 * GIB
    header_bytes: int = 1 * MIB
    golden_bytes: int = 4 * GIB
    graph_bytes: int = 2 * GIB
    xml_bytes: int = 256 * MIB
    graph_fields: int = 4_000_000
    graph_nodes: int = 200_000
    graph_depth: int = 24
    tensor_bytes: int = 16 * GIB
    grown_bytes: int = 256 * MIB


DEFAULT_LIMITS = Limits()
