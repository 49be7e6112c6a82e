"""Elements of a picture as text: the same bytes for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from engine.commands.console import shown

Point = tuple[float, float]

INK, SOFT, RULE = "#1b2430", "#5b6675", "#d5dbe3"
FONT = "Helvetica, Arial, sans-serif"
LETTER = 0.56  # mean width of a letter, in sizes of the font


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    shortened = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shortened == "-0" else shortened


def text(x: float, y: float, said: str, size: float = 11, anchor: str = "start", fill: str = INK) -> str:
    """Words; what is not printable becomes U+FFFD, since labels and names come from files."""
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}" fill="{fill}">'
        f"{escape(shown(said))}</text>"
    )


def rectangle(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    """A filled box. more: further attributes."""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} fill="{fill}"{" " + more if more else ""}/>'


def line(begin: Point, end: Point, stroke: str, width: float = 1, dash: str = "") -> str:
    """A line."""
    (x1, y1), (x2, y2) = begin, end
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line {ends} stroke="{stroke}" stroke-width="{number(width)}"{dashed}/>'


def path(points: str, stroke: str, width: float = 1, opacity: float = 1) -> str:
    """A path without filling. points: its d."""
    fading = f' stroke-opacity="{number(opacity)}"' if opacity < 1 else ""
    return f'<path d="{points}" fill="none" stroke="{stroke}" stroke-width="{number(width)}"{fading}/>'


def polyline(points: Sequence[Point], stroke: str, width: float = 1.2, opacity: float = 1) -> str:
    """A line through points."""
    return path("M" + "L".join(f"{number(x)} {number(y)}" for x, y in points), stroke, width, opacity)


def width_of(said: str, size: float) -> float:
    """Width of words, about."""
    return len(said) * size * LETTER


def document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """A picture on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}" height="{number(height)}" '
        f'viewBox="0 0 {number(width)} {number(height)}" font-family="{FONT}">'
    )
    title = f"<title>{escape(shown(title))}</title>"
    return "\n".join([head, title, rectangle(0, 0, width, height, "#ffffff"), *parts, "</svg>", ""])
