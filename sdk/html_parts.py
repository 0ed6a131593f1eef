"""Pieces of a self-contained HTML page: no scripts, no external requests, legible in light and dark."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import NewType

Html = NewType("Html", str)
"""Escaped already. Everything else is text, and is escaped on its way in."""

Cell = str | Html


@dataclass(frozen=True)
class Bar:
    """One bar of a chart.

    Attributes:
        label: what it stands for.
        value: its length, in the same unit as its neighbours'.
        text: the value as people read it.
        note: said after the value.
        best: whether it is the one to look at.
    """

    label: str
    value: float
    text: str
    note: str = ""
    best: bool = False


def text(value: object) -> Html:
    """Plain text, escaped."""
    return Html(escape(str(value)))


def paragraph(words: str) -> Html:
    """A remark."""
    return Html(f'<p class="intro">{escape(words)}</p>')


def warning(words: str) -> Html:
    """A remark that must not be missed."""
    return Html(f'<p class="warning">{escape(words)}</p>')


def joined(parts: Iterable[Html], between: str = "") -> Html:
    """Pieces one after the other."""
    return Html(between.join(parts))


def section(heading: str, *parts: Html, intro: str = "") -> Html:
    """A part of the page with its heading."""
    lead = paragraph(intro) if intro else ""
    return Html(f"<section><h2>{escape(heading)}</h2>{lead}{''.join(parts)}</section>")


def table(headers: Sequence[str], rows: Iterable[Sequence[Html]], *, numeric: Sequence[int] = ()) -> Html:
    """A table.

    Args:
        headers: one a column.
        rows: cells, as `text(...)` or other pieces.
        numeric: columns that are aligned to the right.
    """
    classes = [' class="num"' if column in numeric else "" for column in range(len(headers))]
    head = "".join(f"<th{style}>{escape(name)}</th>" for name, style in zip(headers, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{style}>{cell}</td>" for cell, style in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return Html(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def facts(rows: Mapping[str, object]) -> Html:
    """Names and values, one a line; empty values are left out."""
    body = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in rows.items() if str(value)
    )
    return Html(f"<dl>{body}</dl>")


def headlines(rows: Sequence[tuple[str, str]]) -> Html:
    """The figures to remember, large: (figure, what it says)."""
    tiles = "".join(
        f"<div><b>{escape(figure)}</b><span>{escape(words)}</span></div>" for figure, words in rows
    )
    return Html(f'<div class="tiles">{tiles}</div>')


def bars(rows: Sequence[Bar]) -> Html:
    """A horizontal bar chart from zero."""
    longest = max((row.value for row in rows), default=0.0) or 1.0
    return Html('<div class="bars">' + "".join(_bar(row, longest) for row in rows) + "</div>")


def share_cell(share: float | None) -> Html:
    """A share of one as a percentage with a small bar behind it; a dash for None."""
    if share is None:
        return text("–")
    percent = max(0.0, min(1.0, share)) * 100
    return Html(f'<span class="share" style="--part:{percent:.1f}%">{share * 100:.1f} %</span>')


def badge(words: str, kind: str) -> Html:
    """A coloured word.

    Args:
        words: what it says.
        kind: "good" or "warn".
    """
    return Html(f'<span class="badge {escape(kind)}">{escape(words)}</span>')


def picture(data: bytes, mime: str, description: str, caption: str = "") -> Html:
    """A picture inside the page itself.

    Args:
        data: the file.
        mime: "image/jpeg", "image/png".
        description: for those who cannot see it.
        caption: printed below.
    """
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f'<figure><img src="{source}" alt="{escape(description)}">{below}</figure>')


def card(*parts: Html) -> Html:
    """A box that stands beside others."""
    return Html(f'<div class="card">{"".join(parts)}</div>')


def cards(items: Iterable[Html]) -> Html:
    """Boxes side by side, below each other where the page is narrow."""
    return Html(f'<div class="cards">{"".join(items)}</div>')


def page(title: str, subtitle: str, parts: Iterable[Html]) -> str:
    """The whole document.

    The policy in its head forbids every request, so that no later change can make a report phone home.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_css()}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>{''.join(parts)}"
        "</main></body></html>\n"
    )


def _css() -> str:
    return resources.files("sdk").joinpath("report.css").read_text(encoding="utf-8")


def _bar(row: Bar, longest: float) -> str:
    return (
        f'<div class="bar{" best" if row.best else ""}"><span class="label">{escape(row.label)}</span>'
        f'<span class="track"><i style="width:{row.value / longest * 100:.2f}%"></i></span>'
        f'<span class="value">{escape(row.text)}</span><span class="note">{escape(row.note)}</span></div>'
    )
