"""Structured pruning by subset fidelity, and suppression of classes: smaller networks without gradients.

    import sdk, sdk_pruning

    result = sdk.prune(model, images, sample_inputs=(image,), ratio=0.5)
    result.save("pruned")
    again = sdk_pruning.load_pruned(build(), "pruned")                  # the same network, weights and all
    other = sdk_pruning.apply_plan(build(), "pruned/plan.json")         # the same cut, with its own weights

prune.py is where to start reading: study -> widths -> units -> compensation -> cut and check -> plan, report.
selectors/, compensators/, budget/ and rules/ hold one algorithm a file, found by name in a table; forgetting/
is the other verb. Importing this loads no torch: each name below is fetched from its home at first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk_pruning.plan import Plan, apply_plan, apply_plan_, load_plan
    from sdk_pruning.prune import PruneResult, load_pruned

__all__ = ["Plan", "PruneResult", "apply_plan", "apply_plan_", "load_plan", "load_pruned"]

# public name -> the module that holds it; a test keeps it equal to `__all__`
_HOMES = {
    "Plan": "sdk_pruning.plan",
    "PruneResult": "sdk_pruning.prune",
    "apply_plan": "sdk_pruning.plan",
    "apply_plan_": "sdk_pruning.plan",
    "load_plan": "sdk_pruning.plan",
    "load_pruned": "sdk_pruning.prune",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdk_pruning' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return list(__all__)
