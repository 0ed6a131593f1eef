"""What a group can be cut to, and what each width costs in error."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from sdk_pruning.budget.rounding import least_units, unit_step
from sdk_pruning.components import Curve
from sdk_pruning.layers import Widths
from sdk_runtimes.errors import ArgumentError


@dataclass(frozen=True)
class Menu:
    """The legal widths of one group.

    Attributes:
        name: of the group.
        widths: units kept, ascending; the last is the full width.
        errors: expected error at each width; the sum over groups is what an allocation minimises.
    """

    name: str
    widths: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def units(self) -> int:
        """The full width."""
        return self.widths[-1]

    def error(self, width: int) -> float:
        """Expected error at a legal width."""
        return self.errors[bisect_left(self.widths, width)]

    def nearest(self, wanted: float) -> int:
        """The legal width that is nearest; of two equally near the larger."""
        return min(reversed(self.widths), key=lambda width: abs(width - wanted))


def legal_widths(units: int, step: int, *, least: int = 0) -> tuple[int, ...]:
    """Multiples of the step and the full width, ascending.

    Args:
        units: the full width.
        step: see `rounding.unit_step`; a group of fewer units than that has its full width only.
        least: no width below this one.
    """
    return (*(width for width in range(step, units, step) if width >= least), units)


def menu_of(name: str, units: int, step: int, curve: Curve | None = None, *, least: int = 0) -> Menu:
    """The menu of a group whose selector gave a curve; without one, all errors are 0 (uniform plans).

    Args:
        name: of the group.
        units: how many it has.
        step: in units; a multiple of the curve's `round_units`.
        curve: of the group.
        least: no width below this one, for callers that keep a minimum.

    Raises:
        ArgumentError: a step that the curve has no rounds for.
    """
    widths = legal_widths(units, step, least=least)
    if curve is None:
        return Menu(name, widths, (0.0,) * len(widths))
    if step % curve.round_units:
        raise ArgumentError(
            f"step {step} of group {name!r} is no multiple of {curve.round_units}",
            why="so many units leave in one round",
            fix="unit_step(…, rows=round_units)",
        )
    rounds = {width: (units - width) // curve.round_units for width in widths}
    known = [width for width in widths if rounds[width] < len(curve.error)]
    return Menu(name, tuple(known), tuple(curve.error[rounds[width]] for width in known))


def group_menu(
    name: str, units: int, round_to: int, *, curve: Curve | None = None, channels: int = 1, rows: int = 1
) -> Menu:
    """The menu of a group on a device: `menu_of` with the step and the least width of `rounding`.

    Args:
        name: of the group.
        units: how many it has.
        round_to: see `rounding.resolve_round_to`.
        curve: of the group, if a selector made one.
        channels: that one unit brings.
        rows: every one of so many rows keeps as many units as the others.
    """
    step = unit_step(units, round_to, channels=channels, rows=rows)
    return menu_of(name, units, step, curve, least=least_units(units, round_to, channels=channels))


def total_error(menus: Sequence[Menu], widths: Widths) -> float:
    """Sum of the expected errors of all groups."""
    return sum(menu.error(widths[menu.name]) for menu in menus)


def full_widths(menus: Sequence[Menu]) -> dict[str, int]:
    """Nothing pruned."""
    return {menu.name: menu.units for menu in menus}


def smallest_widths(menus: Sequence[Menu]) -> dict[str, int]:
    """As much pruned as the menus allow."""
    return {menu.name: menu.widths[0] for menu in menus}
