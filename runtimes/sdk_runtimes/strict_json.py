"""JSON as a stranger may send it: one reading only, or an error."""

import json
import re
from typing import Any

from sdk_runtimes.errors import UnsafeBundleError
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits

# Control characters but tab and newline, direction overrides, lone surrogates: they end up in a terminal.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def load_json(data: bytes, *, name: str, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Parses UTF-8 JSON without duplicate keys, NaN, Inf, unprintable text or deep nesting.

    Args:
        data: the document.
        name: what it is called in messages.
        limits: `json_depth` counts.

    Raises:
        UnsafeBundleError: anything else.
    """
    try:
        document = json.loads(
            data.decode("utf-8", "strict"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise UnsafeBundleError(f"{name} is not valid JSON", why=str(error)) from error
    _check(document, name, limits)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} occurs twice")
        result[key] = value
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _check(document: Any, name: str, limits: Limits) -> None:
    level: list[Any] = [document]
    for _ in range(limits.json_depth + 1):
        for value in level:
            if isinstance(value, str) and _UNPRINTABLE.search(value):
                raise UnsafeBundleError(f"{name} holds unprintable text: {value[:60]!r}")
            if isinstance(value, float) and abs(value) == float("inf"):
                raise UnsafeBundleError(f"{name} holds a number that is too large")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise UnsafeBundleError(f"{name} is nested deeper than {limits.json_depth}")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []
