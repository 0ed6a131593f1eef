"""What `make demo` found out."""

from collections.abc import Mapping
from dataclasses import dataclass

from samples.classify.answers import Guess
from sdk.bench_report import BenchReport
from sdk_runtimes.bundle import Bundle

PYTORCH = "PyTorch eager"

Guesses = Mapping[str, tuple[Guess, ...]]
"""Picture -> its most probable classes."""


@dataclass(frozen=True)
class Results:
    """Everything that the table and the report show.

    Attributes:
        bundle: what was exported.
        guesses: PyTorch first, then device by device, what each of them sees.
        bench: PyTorch eager and every program, by turns.
        export_s: what the export took, gate included.
    """

    bundle: Bundle
    guesses: Mapping[str, Guesses]
    bench: BenchReport
    export_s: float

    @property
    def same_top1(self) -> bool:
        """Whether every engine gives every picture the class that PyTorch gives it."""
        truth = self.guesses[PYTORCH]
        return all(
            side[name][0].index == best[0].index
            for side in self.guesses.values()
            for name, best in truth.items()
        )

    @property
    def largest_shift(self) -> float:
        """The most that a probability in PyTorch's top-5 differs on an engine; 1 where it has none."""
        shifts = [
            abs(guess.probability - other)
            if (other := probability_of(side[name], guess.index)) is not None
            else 1.0
            for side in self.guesses.values()
            for name, best in self.guesses[PYTORCH].items()
            for guess in best
        ]
        return max(shifts)


def probability_of(guesses: tuple[Guess, ...], index: int) -> float | None:
    """The probability of a class; None where it is not among the guesses."""
    return next((guess.probability for guess in guesses if guess.index == index), None)


def read_guesses(rows: Mapping[str, list[dict[str, object]]]) -> Guesses:
    """From the JSON that the processes print."""
    return {name: tuple(Guess(**guess) for guess in guesses) for name, guesses in rows.items()}  # type: ignore[arg-type] # the other side wrote asdict(Guess)
