"""coremltools without its progress bars and log lines."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

from sdk_runtimes.require import require

# The modules that draw progress bars while a torch program is converted, and the name each one uses.
_BARS = (
    ("coremltools.converters.mil.frontend.torch.ops", "_tqdm"),
    ("coremltools.converters.mil.mil.passes.pass_pipeline", "tqdm"),
)


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Raises the level of one logger for a while; its errors reach the caller as exceptions anyway."""
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet_coremltools(needed_for: str = "") -> Iterator[ModuleType]:
    """Imports coremltools and yields it, silent inside the `with`.

    At import it logs which of its optional dependencies it misses and that this torch is newer than the
    one it was tested with (our contract suite is that test); while converting it draws bars. Only what
    comes from coremltools is silenced.

    Raises:
        MissingExtraError: coremltools is not installed.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"coremltools(\.|$)")
        # It leaves its temporary weight folder to the garbage collector.
        warnings.filterwarnings("ignore", message="Implicitly cleaning up", category=ResourceWarning)
        stack.enter_context(_silenced(logging.getLogger("coremltools")))
        coremltools = require("coremltools", needed_for=needed_for)
        for module, name in _BARS:
            stack.enter_context(_without_bars(module, name))
        yield coremltools


def _without_bars(module: str, name: str) -> Any:
    """A patch that turns one module's progress bars off."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types

    return patch(f"{module}.{name}", partial(tqdm, disable=True))
