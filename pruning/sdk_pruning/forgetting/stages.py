"""How progress is told."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""(stage, done, total)."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """No progress wanted."""
