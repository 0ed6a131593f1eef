"""Which buffers and inputs a traced program writes into."""

from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node


def written_state(exported: ExportedProgram) -> list[str]:
    """Names of buffers and inputs that the program changes.

    The signature lists them once the graph is functional; before that (the form torch.export returns) they
    show as in-place ops on a placeholder or on a view of one.
    """
    signature = exported.graph_signature
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    names = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in exported.graph.nodes:
        for target in _written_arguments(node):
            root = _root(target)
            if root.op == "placeholder":
                written.append(names.get(root.name, root.name))
    return list(dict.fromkeys(written))


def _written_arguments(node: Node) -> list[Node]:
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return []
    schema = node.target._schema.arguments
    return [
        given
        for argument, given in zip(schema, node.args, strict=False)
        if isinstance(given, Node) and argument.alias_info is not None and argument.alias_info.is_write
    ]


def _root(node: Node) -> Node:
    """The tensor whose storage a chain of views and in-place ops looks at."""
    while node.op == "call_function" and isinstance(node.target, OpOverload):
        aliases = any(result.alias_info is not None for result in node.target._schema.returns)
        if not aliases or not node.all_input_nodes:
            break
        node = node.all_input_nodes[0]
    return node
