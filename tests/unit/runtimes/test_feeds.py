import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk_runtimes.errors import FeedError
from sdk_runtimes.feeds import FeedCheck
from sdk_runtimes.specs import SymbolRange, TensorSpec

STATIC = (TensorSpec("x", "float32", (2, 3)), TensorSpec("ids", "int64", (4,)))
DYNAMIC = (TensorSpec("past", "float32", (1, "p", 4)), TensorSpec("mask", "bool", ("p", "n")))
RANGES = (SymbolRange("p", 0, 8), SymbolRange("n", 1, 8))


def good() -> dict[str, np.ndarray]:
    return {"x": np.zeros((2, 3), np.float32), "ids": np.zeros(4, np.int64)}


def test_feeds_come_back_in_the_order_of_the_specs() -> None:
    feeds = good()
    ordered = FeedCheck(STATIC, ()).ordered(dict(reversed(feeds.items())))
    assert ordered[0] is feeds["x"]
    assert ordered[1] is feeds["ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 3))}, r"'x' is float64\[2, 3\], expected float32\[2, 3\].*astype\(np\.float32\)"),
        ({"x": np.zeros((3, 2), np.float32)}, r"'x' is float32\[3, 2\], expected float32\[2, 3\]"),
        ({"x": np.zeros((2, 3), np.float32).astype(">f4")}, r"'x' is >f4\[2, 3\]"),
        ({"x": [[0.0] * 3] * 2}, r"'x' is a list, expected a numpy array.*np\.asarray"),
        ({"extra": np.zeros(1)}, r"unknown \['extra'\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FeedError, match=f"(?s){message}"):
        FeedCheck(STATIC, ()).ordered({**good(), **change})  # type: ignore[dict-item]  # wrong on purpose


def test_missing_and_misspelt_names_are_told() -> None:
    feeds = good()
    feeds["X"] = feeds.pop("x")
    with pytest.raises(FeedError, match=r"(?s)expected \['x', 'ids'\].*missing \['x'\]; unknown \['X'\]"):
        FeedCheck(STATIC, ()).ordered(feeds)


def test_feeds_must_be_a_mapping() -> None:
    with pytest.raises(FeedError, match="feeds is a ndarray"):
        FeedCheck(STATIC, ()).ordered(np.zeros(3))  # type: ignore[arg-type]  # wrong on purpose


def dynamic(p: int, q: int, n: int) -> dict[str, np.ndarray]:
    return {"past": np.zeros((1, p, 4), np.float32), "mask": np.zeros((q, n), bool)}


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_symbols_agree_and_stay_within_their_range(p: int, q: int, n: int) -> None:
    check, feeds = FeedCheck(DYNAMIC, RANGES), dynamic(p, q, n)
    if p == q and p <= 8 and 1 <= n <= 8:
        assert check.ordered(feeds) == list(feeds.values())
    else:
        with pytest.raises(FeedError):
            check.ordered(feeds)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        (dynamic(2, 3, 1), r"'p' is 2 in 'past'"),
        (dynamic(9, 9, 1), r"'p' may be 0 to 8"),
        (dynamic(2, 2, 0), r"'n' may be 1 to 8"),
        ({**dynamic(2, 2, 1), "past": np.zeros((2, 4), np.float32)}, r"expected float32\[1, p, 4\]"),
        ({**dynamic(2, 2, 1), "past": np.zeros((1, 2, 5), np.float32)}, r"is float32\[1, 2, 5\]"),
    ],
)
def test_a_symbol_that_does_not_fit_is_named(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        FeedCheck(DYNAMIC, RANGES).ordered(feeds)
