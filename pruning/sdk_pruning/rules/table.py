"""Every operation that has a rule."""

from collections.abc import Mapping

from sdk_pruning.propagation import Rule
from sdk_pruning.rules import contractions, elementwise, lookups, movement, norms, reductions

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **movement.RULES,
    **lookups.RULES,
    **reductions.RULES,
    **norms.RULES,
    **contractions.RULES,
}
