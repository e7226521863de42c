"""HTML that cannot be broken by data: text becomes markup only as an `Html`, everything else is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

_VOID = frozenset({"img", "input", "link", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element of HTML or SVG.

    Args:
        name: Of the element.
        children: `Html` as it is, anything else as escaped text.
        attributes: Underscores become hyphens and a trailing one goes; True stands alone, None and False are left out.

    >>> tag("p", "a < b", tag("b", "!"), class_="x")
    '<p class="x">a &lt; b<b>!</b></p>'
    """
    parts = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            shown = key.rstrip("_").replace("_", "-")
            parts.append(f" {shown}" if value is True else f' {shown}="{escape(str(value))}"')
    opening = f"<{name}{''.join(parts)}>"
    return Html(opening if name in _VOID and not children else f"{opening}{inside(*children)}</{name}>")


def inside(*children: object) -> Html:
    """Children one after another; text is escaped.

    >>> inside(Html("<br>"), "<br>")
    '<br>&lt;br&gt;'
    """
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls by itself where it is too wide; numbers stand on the right, None is a dash."""
    lines = [list(row) for row in rows]
    numeric = [any(isinstance(row[column], int | float) for row in lines) for column in range(len(names))]

    def line(kind: str, cells: Iterable[object]) -> Html:
        marks = ("number" if is_number else None for is_number in numeric)
        return tag("tr", *(tag(kind, number(cell), class_=mark) for cell, mark in zip(cells, marks, strict=True)))

    body = (line("td", row) for row in lines)
    return tag("div", tag("table", line("th", names), *body), class_="scroll", tabindex=0)


def number(value: object) -> object:
    """A number as people read it, None as a dash, anything else as it is.

    >>> [number(value) for value in (1234567, 0.012345, 12.5, None, "x")]
    ['1,234,567', '0.0123', '12.5', '-', 'x']
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def film(source: str, *caption: object, has_controls: bool = True) -> Html:
    """A video that plays silently and again while it is seen, over its caption."""
    video = tag(
        "video", src=source, autoplay=True, muted=True, loop=True, playsinline=True, controls=has_controls,
        preload="metadata",
    )  # fmt: skip
    return tag("figure", video, tag("figcaption", *caption), class_="film")


def link(path: str) -> str:
    """A path relative to the page as a URL that leads nowhere else.

    >>> link("a run/#1.mp4"), link("a:b")
    ('./a%20run/%231.mp4', './a%3Ab')
    """
    return f"./{quote(path)}"
