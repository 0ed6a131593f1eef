"""Figures as people read them."""

from sdk_runtimes.specs import SymbolRange


def ms_text(value_ms: float) -> str:
    """Milliseconds with three significant digits: 0.0123, 4.56, 123."""
    if value_ms >= 100:
        return f"{value_ms:,.0f}"
    return f"{value_ms:#.3g}"


def flops_text(count: int) -> str:
    """Floating-point operations with a decimal unit: 771000000 -> "771 MFLOP"."""
    value = float(count)
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"):
        if value < 1000 or unit == "TFLOP":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def range_text(bounds: SymbolRange) -> str:
    """The sizes of a symbol: "1 to 64 in steps of 8"."""
    steps = "" if bounds.step == 1 else f" in steps of {bounds.step}"
    return f"{bounds.minimum} to {bounds.maximum}{steps}"
