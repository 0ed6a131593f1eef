"""What a bench measured, as data, as a table and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sdk.cold_start import ColdStart
from sdk.floor import Floor, Peaks, usable_threads
from sdk.turns import Timing
from sdk_runtimes.cpu import cpu_name
from sdk_runtimes.errors import UnknownChoiceError

_DISTURBED = 0.3  # cores: more than a desktop takes for itself


@dataclass(frozen=True)
class BenchSide:
    """One side of a comparison.

    Attributes:
        label: what it is called in tables, unique in its report.
        program: `ProgramSpec.id`; empty for what is not a program of a bundle.
        precision: what it computes in.
        device: where it ran, as `sdk.devices()` lists it.
        verdict: the gate's, in words; "UNVERIFIED …" where the gate has not seen these bytes run.
        timing: of the runs by turns.
        ratio: the baseline's median over this one's: 2 is twice as fast. 1 for the baseline itself.
        cold_start: in a fresh process; None if it was not measured.
        floor: the least time this machine could take; None where FLOPs or device are not known to us.
        share: of what the machine can do, what this side reaches; None without a floor.
    """

    label: str
    program: str
    precision: str
    device: str
    verdict: str
    timing: Timing
    ratio: float
    cold_start: ColdStart | None = None
    floor: Floor | None = None
    share: float | None = None


@dataclass(frozen=True)
class BenchReport:
    """The result of `sdk.bench`.

    Attributes:
        sides: in the order in which they were given; the first is the baseline of the ratios.
        threads: compute threads of each side; None where every engine chose for itself.
        sizes: the size of each symbol.
        machine: processor and number of cores.
        peaks: what the machine reaches; None if no floor was asked for.
        skipped: programs that cannot run here, and why.
        others: cores that other processes kept busy meanwhile, on average; None where the system does not
            tell.
    """

    sides: tuple[BenchSide, ...]
    threads: int | None
    sizes: Mapping[str, int]
    machine: str
    peaks: Peaks | None = None
    skipped: tuple[str, ...] = ()
    others: float | None = None

    @property
    def busy(self) -> str:
        """A warning where others wanted the cores too; empty otherwise."""
        cores = usable_threads()
        free = cores - (self.threads or cores)
        if self.others is None or self.others <= free + _DISTURBED:
            return ""
        return (
            f"This machine was busy: others took {self.others:.1f} of {cores} cores. Some engines suffer "
            "from that more than others do; measure again when it is quiet."
        )

    @property
    def fastest(self) -> BenchSide:
        """The side with the least median."""
        return min(self.sides, key=lambda side: side.timing.median_ms)

    def side(self, label: str) -> BenchSide:
        """The side of this label.

        Raises:
            UnknownChoiceError: there is none.
        """
        found = {item.label: item for item in self.sides}
        if label not in found:
            raise UnknownChoiceError("side", label, found)
        return found[label]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"sizes": dict(self.sizes), "fastest": self.fastest.label}


def machine_name() -> str:
    """Processor and cores of this machine, as the system names them."""
    return f"{cpu_name()}, {usable_threads()} cores"
