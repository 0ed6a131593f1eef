"""Modules that stay as they are."""

import fnmatch
from collections.abc import Sequence

from sdk_pruning.axis_labels import Labels
from sdk_pruning.groups import module_of_tensor
from sdk_pruning.propagation import Findings
from sdk_runtimes.errors import ArgumentError


def protect_(findings: Findings, patterns: Sequence[str]) -> None:
    """Keeps every tensor of the named modules as it is.

    Args:
        findings: of the walk.
        patterns: module paths, with `*` and `?` as in file names; what is below them is kept as well.

    Raises:
        ArgumentError: a pattern fits no module that has weights.
    """
    tensors = [label for label in findings.labels.values() if isinstance(label, Labels) and label.source]
    for pattern in patterns:
        fitting = [label for label in tensors if _fits(findings, str(label.source), pattern)]
        if not fitting:
            known = sorted({module_of_tensor(str(label.source)) for label in tensors} - {""})
            raise ArgumentError(
                f"protect={pattern!r} fits no module with weights",
                why="the modules are " + ", ".join(known[:20]) + (" …" if len(known) > 20 else ""),
                fix="protect=('head', 'blocks.0.*'), paths as in model.named_modules()",
            )
        for label in fitting:
            findings.ties.freeze(label.atoms, f"protect={pattern!r}")


def protected_tensors(findings: Findings, patterns: Sequence[str]) -> frozenset[str]:
    """The tensors whose values must stay.

    Those of the named modules, and what several places read, such as an embedding that is the head's weight
    too.
    """
    sources = {
        str(label.source) for label in findings.labels.values() if isinstance(label, Labels) and label.source
    }
    named = {source for source in sources if any(_fits(findings, source, one) for one in patterns)}
    return frozenset(named | {tensor for tensor, nodes in findings.calls.items() if len(nodes) > 1})


def _fits(findings: Findings, tensor: str, pattern: str) -> bool:
    """Whether a module of the pattern holds the tensor, under any of its names."""
    names = findings.aliases.get(tensor, (tensor,))
    return any(_below(module_of_tensor(name), pattern) for name in names)


def _below(module: str, pattern: str) -> bool:
    parts = module.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))
