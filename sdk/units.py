"""Figures as people read them."""


def ms_text(value_ms: float) -> str:
    """Milliseconds with three significant digits: 0.0123, 4.56, 123."""
    if value_ms >= 100:
        return f"{value_ms:,.0f}"
    return f"{value_ms:#.3g}"
