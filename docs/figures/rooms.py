"""The pictures of the architecture page and of the README: the rooms on their floors, and a packet's path.

python docs/figures/rooms.py     # writes docs/figures/rooms.svg and path.svg; needs what tests need

The floors are those of setup.cfg, the arrows the imports that there are, so the picture of the rooms cannot be out of
date unnoticed: a test compares it.
"""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import grimp

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WIDTH, ROW, BOX = 940, 40, 34
INK, SOFT, LINE = "#1b2430", "#5b6675", "#b9c2cf"
FILL = {
    "engine": "#e8eef9",
    "connectors": "#e6f4ea",
    "models": "#fdf0dd",
    "probing": "#f4e8f5",
    "benchmarks": "#f1f1f1",
}
FONT = "font-family='Helvetica, Arial, sans-serif'"

Box = tuple[float, float, float, str]  # left, top, width, name


def floors() -> list[list[str]]:
    """Rooms by floor, the top one first: modules of the engine by their short names."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["importlinter:contract:floors"]["layers"].split("\n")
    engine = [[name.strip() for name in line.split("|")] for line in lines if line.strip()]
    return [["benchmarks"], ["probing"], *engine, ["connectors", "models"]]


def room_of(module: str) -> str:
    """The room that a module stands in."""
    parts = module.split(".")
    return parts[1] if parts[0] == "engine" and len(parts) > 1 else parts[0]


def arrows() -> dict[tuple[str, str], int]:
    """Imports from room to room, counted by module."""
    graph = grimp.build_graph("engine", "connectors", "models", "probing", "benchmarks", cache_dir=None)
    found: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(imported)
            if pair[0] != pair[1] and "engine" not in pair:
                found[pair] = found.get(pair, 0) + 1
    return found


def package_of(room: str) -> str:
    """The package of a room."""
    return room if room in FILL else "engine"


def about(room: str) -> str:
    """The first line of a room's own description."""
    engine = package_of(room) == "engine"
    path = ROOT / "engine" / room if engine else ROOT / room
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text())).split("\n")[0]  # type: ignore[union-attr]


def drawn_rooms() -> str:
    """A row a room, floors apart: its name, what it is, and the rooms that it imports."""
    imports = arrows()
    out, y = [], 8.0
    for k, names in enumerate(floors()):
        if k:
            out.append(f"<path d='M10 {y - 3:.0f} H{WIDTH - 10}' stroke='{LINE}' stroke-dasharray='2 3'/>")
        for name in names:
            below = [other for row in floors()[k + 1 :] for other in row if (name, other) in imports]
            out.append(drawn((10.0, y, 130.0, name)))
            out.append(line(156, y + 15, 13, INK, about(name)))
            shown = "imports " + ", ".join(below) if below else "imports none of these"
            out.append(line(156, y + 30, 11, SOFT, shown))
            y += ROW
        y += 6
    return picture(WIDTH, y, out, "Rooms of Wiresonde on their floors: imports go downwards only")


def line(x: float, y: float, size: int, colour: str, text: str) -> str:
    """A line of text."""
    return f"<text x='{x:.0f}' y='{y:.0f}' {FONT} font-size='{size}' fill='{colour}'>{escape(text)}</text>"


def drawn(box: Box, sub: str = "") -> str:
    """A box with its name, and a line below it."""
    x, y, w, name = box
    height = BOX + (16 if sub else 0)
    middle = f"x='{x + w / 2:.0f}' text-anchor='middle' {FONT}"
    text = f"<text {middle} y='{y + 22:.0f}' font-size='14' fill='{INK}'>{escape(name)}</text>"
    if sub:
        text += f"<text {middle} y='{y + 40:.0f}' font-size='11' fill='{SOFT}'>{escape(sub)}</text>"
    fill = FILL[package_of(name)]
    frame = f"x='{x:.0f}' y='{y:.0f}' width='{w:.0f}' height='{height}' rx='5'"
    return f"<rect {frame} fill='{fill}' stroke='{LINE}'/>{text}"


def drawn_path() -> str:
    """A packet's path: capture, sensor, bus, detector, sinks."""
    steps = [
        ("capture or tap", "pcap, pcapng, interface"), ("sensor", "decodes, labels, divides"),
        ("bus", "embedded, or Kafka"), ("detector", "connections, features, models"),
        ("sinks", "scores, alerts, metrics"),
    ]  # fmt: skip
    width, out = 168, []
    for k, (name, sub) in enumerate(steps):
        x = 10.0 + k * (width + 22)
        out.append(drawn((x, 14.0, width, name), sub))
        if k:
            out.append(f"<path d='M{x - 20:.0f} 39 H{x - 5:.0f}' stroke='{INK}' stroke-width='1.5'/>")
            out.append(f"<path d='M{x - 9:.0f} 35 L{x - 2:.0f} 39 L{x - 9:.0f} 43 Z' fill='{INK}'/>")
    return picture(WIDTH + 10, 80, out, "A packet's path: capture or tap, sensor, bus, detector, sinks")


def picture(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """An SVG on white."""
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' role='img'>"
    return "\n".join(
        [
            head,
            f"<title>{title}</title>",
            "<rect width='100%' height='100%' fill='#fff'/>",
            *parts,
            "</svg>",
            "",
        ]
    )


PICTURES = {"rooms.svg": drawn_rooms, "path.svg": drawn_path}


def main() -> None:
    """Write both."""
    for name, make in PICTURES.items():
        (HERE / name).write_text(make())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
