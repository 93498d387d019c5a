"""The elements of plots as inline SVG; all text in them is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from unicodedata import east_asian_width

# Colors --s0 … --s7 of the page.
SERIES = 8


def text_width(text: str, size: float = 12.0) -> float:
    """Estimate the width of a text in pixels."""
    width = 0.0
    for character in text:
        # Chinese characters are as wide as they are high.
        wide = east_asian_width(character) in "WF"
        width += size if wide else 0.58 * size
    return width


def element(tag: str, content: str = "", /, **attributes: str | float) -> str:
    """Write an element with what is inside it.

    Fractions get one digit after the point. ``class_`` stands for the attribute class.
    """
    written = tag
    for name, value in attributes.items():
        if isinstance(value, float):
            value = f"{value:.1f}"
        name = name.rstrip("_")
        written += f' {name}="{value}"'
    if not content:
        return f"<{written}/>"
    return f"<{written}>{content}</{tag}>"


def picture(width: float, height: float, parts: Iterable[str], name: str) -> str:
    """Write a whole ``<svg>`` element; ``name`` is read out to who cannot see it."""
    drawn = "".join(parts)
    spoken = escape(name, quote=True)
    wide, high = f"{width:.0f}", f"{height:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}" '
        f'role="img" aria-label="{spoken}">'
        f"{drawn}"
        "</svg>"
    )


def label(
    x: float, y: float, text: str, anchor: str = "middle", style: str = "", extra: str = ""
) -> str:
    """Write a piece of text; ``style`` names its classes, ``extra`` adds attributes."""
    written = escape(text)
    place = f'x="{x:.1f}" y="{y:.1f}"'
    look = f'text-anchor="{anchor}" class="{style}" {extra}'
    return f"<text {place} {look}>{written}</text>"


def note(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    """Write a small piece of text, such as the number at an axis."""
    return label(
        x,
        y,
        text,
        anchor,
        "dim small",
        extra,
    )


def turn(degrees: float, x: float, y: float) -> str:
    """Return the attribute that turns a text around a point."""
    return f'transform="rotate({degrees} {x} {y})"'


def title(text: str) -> str:
    """Write what is shown when the pointer rests on an element."""
    written = escape(text)
    return f"<title>{written}</title>"


def grid_line(left: float, right: float, y: float) -> str:
    """Draw a horizontal line of the grid."""
    return element(
        "line",
        x1=left,
        x2=right,
        y1=float(y),
        y2=float(y),
        class_="grid",
    )


def bar(
    x: float, y: float, width: float, height: float, tooltip: str = "", **look: str | float
) -> str:
    """Draw a bar with round ends; ``tooltip`` is shown when the pointer rests on it."""
    return element(
        "rect",
        title(tooltip) if tooltip else "",
        x=x,
        y=y,
        width=width,
        height=height,
        rx=2,
        **look,
    )


def color_of(index: int) -> str:
    """Return the color of a line by its index in the palette."""
    number = index % SERIES
    return f"var(--s{number})"
