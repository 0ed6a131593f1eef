"""The results in a terminal."""

from rich.console import Console
from rich.table import Table

from samples.classify.results import PYTORCH, Results, probability_of
from sdk.bench_table import bench_table


def print_results(results: Results, console: Console) -> None:
    """The bundle, the five best classes of every picture side by side, and the bench."""
    console.print(f"\n{results.bundle}\n", markup=False)
    for name in results.guesses[PYTORCH]:
        console.print(_guesses_table(results, name))
        console.print()
    for part in bench_table(results.bench):
        console.print(part)


def _guesses_table(results: Results, name: str) -> Table:
    table = Table(box=None, header_style="bold", title=name, title_justify="left")
    table.add_column("class", min_width=28)
    for side in results.guesses:
        table.add_column(side, justify="right")
    for guess in results.guesses[PYTORCH][name]:
        shares = (probability_of(side[name], guess.index) for side in results.guesses.values())
        table.add_row(guess.name, *("–" if share is None else f"{share:.4%}" for share in shares))
    return table
