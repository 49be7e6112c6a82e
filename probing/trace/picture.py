"""The picture of connections: the scores of their packets above the packets, one pair of panels a connection.

After figure 3 of Clausen & Aspinall, "Examining traffic microstructures to improve model development" (2021): packets
as bars by size and direction, and the activation of models along them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.connections.layout import Segment
from engine.types import Floats
from probing.trace import svg
from probing.trace.align import Axis
from probing.trace.connection import TracedConnection
from probing.trace.scale import Scale

WIDTH, LEFT, RIGHT = 1000, 70, 18
PLOT = WIDTH - LEFT - RIGHT
SCORES, PACKETS = 120, 120  # heights of the two panels
TITLE, BANDS, TICKS, APART = 36, 15, 20, 16  # heights above, between and below them
STEP = 0.5  # px: of the bars of a kind that are closer, only the longest is drawn
LEAST_BAR = 3.0  # px
MODEL = ("#1f5fbf", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be185d")
RECOVERY, BAND = "#fbe3e0", "#f5f7fa"
UNDELIVERED = "#b00020"
CLASS = {
    "none": "#64748b", "ack": "#b3bcc8", "new": "#5b8def", "duplicate": "#e4572e", "spurious": "#f2a541",
    "reordered": "#8e44ad", "retransmitted": "#d1362f", "partial": "#e08e79", "keep_alive": "#7d8794",
    "zero_window_probe": "#8d6e63", "capture_duplicate": "#d0d0d0", "before": "#4b5563", "untrusted": "#374151",
    "out_of_window": "#111827",
}  # fmt: skip
ORDER = [s.name.lower() for s in Segment]


def draw(connections: Sequence[TracedConnection], axis: Axis) -> str:
    """The picture as SVG; bounded in size, however many packets there are."""
    models = list(connections[0].scores)
    scale = Scale.of(connections)
    legend, top = _legend(connections, models, scale)
    parts = [
        svg.text(LEFT, 20, "Packet by packet", 14),
        svg.text(LEFT, 36, axis.note, 11, fill=svg.SOFT),
        *legend,
    ]
    largest = max(1, *(int(one.size.max()) for one in connections))
    for k, one in enumerate(connections):
        parts += _row(one, axis, k, top, scale, largest)
        top += TITLE + BANDS + SCORES + APART + PACKETS + TICKS + APART
    return svg.document(WIDTH, top, f"Packets of {', '.join(one.uid for one in connections)}", parts)


def _legend(
    connections: Sequence[TracedConnection], models: Sequence[str], scale: Scale
) -> tuple[list[str], float]:
    """What colours mean, and the height at which it ends."""
    present = {segment for one in connections for segment in one.segment}
    items = [(MODEL[k % len(MODEL)], f"{name}: score", "line") for k, name in enumerate(models)]
    if any(scale.threshold(one, name) is not None for one in connections for name in models):
        items.append((svg.SOFT, "threshold", "dashed"))
    items += [(CLASS[name], name.replace("_", " "), "box") for name in ORDER if name in present]
    if any(one.recovery.any() for one in connections):
        items.append((RECOVERY, "recovery episode", "box"))
    if any(_undelivered(one).any() for one in connections):
        items.append((UNDELIVERED, "not delivered by the link", "cross"))
    parts, x, y = [], float(LEFT), 56.0
    for colour, said, kind in items:
        width = 24 + svg.width_of(said, 11) + 12
        if x + width > WIDTH - RIGHT and x > LEFT:
            x, y = float(LEFT), y + 16
        parts += [_sign(kind, colour, x, y), svg.text(x + 20, y, said)]
        x += width
    return parts, y + 14


def _sign(kind: str, colour: str, x: float, y: float) -> str:
    if kind == "box":
        return svg.rectangle(x + 2, y - 9, 12, 10, colour)
    if kind == "cross":
        return svg.path(_cross(x + 8, y - 4), colour, 1.4)
    return svg.line(
        (x, y - 4), (x + 16, y - 4), colour, 2 if kind == "line" else 1, "" if kind == "line" else "4 3"
    )


def _row(one: TracedConnection, axis: Axis, k: int, top: float, scale: Scale, largest: int) -> list[str]:
    """The panels of a connection."""
    x = LEFT + PLOT * axis.places[k]
    scores = top + TITLE + BANDS
    packets = scores + SCORES + APART
    bottom = packets + PACKETS
    parts = [*_title(one, top)]
    parts += _bands(axis, k, top + TITLE, bottom)
    parts += [
        svg.rectangle(begin, scores, max(1.0, end - begin), bottom - scores, RECOVERY, 'fill-opacity="0.8"')
        for begin, end in _recovery(one, x)
    ]
    parts += _score_frame(scores, scale)
    for number, name in enumerate(one.scores):
        colour = MODEL[number % len(MODEL)]
        if (height := scale.threshold(one, name)) is not None:
            y = scores + SCORES * (1 - height)
            parts.append(svg.line((LEFT, y), (LEFT + PLOT, y), colour if scale.raw else svg.SOFT, 1, "4 3"))
        parts += _scores(x, scale.heights(one, name), scores, colour)
    parts += _packet_frame(packets, largest)
    parts += _bars(one, x, packets + PACKETS / 2, largest)
    return [*parts, *_ticks(axis, k, bottom)]


def _title(one: TracedConnection, top: float) -> Iterator[str]:
    """Who talks, and below it the capture and the labels."""
    labels = "  ".join(f"{name}={value}" for name, value in one.labels.items())
    lines = (
        (f"{one.uid}   {one.ends}   {one.state}   {one.ts.size:,} packets", 12, svg.INK),
        (f"{one.capture}   {labels}", 10, svg.SOFT),
    )
    for k, (said, size, fill) in enumerate(lines):
        most = int(PLOT / (size * svg.LETTER))
        yield svg.text(
            LEFT, top + 14 + 14 * k, said if len(said) <= most else said[: most - 1] + "…", size, fill=fill
        )


def _bands(axis: Axis, k: int, top: float, bottom: float) -> Iterator[str]:
    """Phases: every other one shaded, with its name."""
    for number, band in enumerate(axis.bands[k]):
        x, width = LEFT + PLOT * band.begin, PLOT * (band.end - band.begin)
        if number % 2 == 0:
            yield svg.rectangle(x, top, width, bottom - top, BAND)
        yield svg.line((x, top), (x, bottom), svg.RULE)
        if svg.width_of(band.name, 9) + 4 <= width:
            yield svg.text(x + 3, top + 10, band.name, 9, fill=svg.SOFT)


def _recovery(one: TracedConnection, x: Floats) -> Iterator[tuple[float, float]]:
    """Beginning and end of each recovery episode in px: it ends with the packet after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], one.recovery, [False])).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2).tolist():
        yield float(x[begin]), float(x[min(end, x.size - 1)])


def _score_frame(top: float, scale: Scale) -> Iterator[str]:
    for height, said in scale.ticks():
        y = top + SCORES * (1 - height)
        yield svg.line((LEFT, y), (LEFT + PLOT, y), svg.RULE, 0.6)
        yield svg.text(LEFT - 5, y + 3, said, 9, "end", svg.SOFT)
    yield _upright(top + SCORES / 2, scale.name)


def _upright(y: float, said: str) -> str:
    x = svg.number(14)
    words = svg.text(0, 0, said, 10, "middle", svg.SOFT)
    return f'<g transform="translate({x} {svg.number(y)}) rotate(-90)">{words}</g>'


def _scores(x: Floats, heights: Floats, top: float, colour: str) -> list[str]:
    """The line of a model, and a dot a score where there are few."""
    there = np.flatnonzero(~np.isnan(heights))
    if not there.size:
        return []
    kept = there[_spread(x[there], heights[there])]
    points = list(zip(x[kept].tolist(), (top + SCORES * (1 - heights[kept])).tolist()))
    dots = "".join(f"M{svg.number(a)} {svg.number(b)}h0" for a, b in points)
    rounded = svg.path(dots, colour, 3.2).replace("/>", ' stroke-linecap="round"/>')
    return [svg.polyline(points, colour, 1.1, 0.75), rounded]


def _spread(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Indices of the first, lowest, highest and last point of each STEP px, ascending."""
    bins = np.floor(x / STEP)
    edges = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    found: set[int] = set()
    for begin, end in zip(edges.tolist(), [*edges[1:].tolist(), x.size]):
        part = y[begin:end]
        found |= {begin, begin + int(part.argmin()), begin + int(part.argmax()), end - 1}
    return np.array(sorted(found), np.int64)


def _packet_frame(top: float, largest: int) -> Iterator[str]:
    middle = top + PACKETS / 2
    yield svg.line((LEFT, middle), (LEFT + PLOT, middle), svg.SOFT, 0.6)
    for y, said in ((top, f"{largest:,} B"), (middle, "0"), (top + PACKETS, f"{largest:,} B")):
        yield svg.text(LEFT - 5, y + 3, said, 9, "end", svg.SOFT)
    yield _upright(top + PACKETS * 0.25, "orig ↑")
    yield _upright(top + PACKETS * 0.75, "resp ↓")


def _undelivered(one: TracedConnection) -> NDArray[np.bool_]:
    """(n,) whether the link did not deliver a packet."""
    return np.array([v.partition(" ")[0] != "sent" for v in one.verdict] or [False] * one.ts.size, bool)


def _bars(one: TracedConnection, x: Floats, middle: float, largest: int) -> Iterator[str]:
    """A bar a packet: upwards from the originator, downwards to it; rare classes above common ones."""
    length = LEAST_BAR + (PACKETS / 2 - LEAST_BAR) * one.size / largest
    tip = middle - np.where(one.up, length, -length)
    segment = np.array(one.segment, object)
    for name in ("ack", "new", *(c for c in ORDER if c not in ("ack", "new"))):
        at = np.flatnonzero(segment == name)
        kept = at[_longest(x[at], one.up[at], length[at])]
        if kept.size:
            lines = (
                f"M{svg.number(a)} {svg.number(middle)}V{svg.number(b)}" for a, b in zip(x[kept], tip[kept])
            )
            yield svg.path("".join(lines), CLASS[name], 1.6)
    lost = np.flatnonzero(_undelivered(one))
    kept = lost[_longest(x[lost], one.up[lost], length[lost])]
    if kept.size:
        yield svg.path("".join(_cross(float(x[k]), float(tip[k])) for k in kept), UNDELIVERED, 1.4)


def _cross(x: float, y: float) -> str:
    a, b, c, d = (svg.number(v) for v in (x - 3, x + 3, y - 3, y + 3))
    return f"M{a} {c}L{b} {d}M{a} {d}L{b} {c}"


def _longest(x: Floats, up: NDArray[np.bool_], length: Floats) -> NDArray[np.int64]:
    """Indices of the longest bar of each STEP px and direction, ascending."""
    key = np.floor(x / STEP) * 2 + up
    order = np.lexsort((-length, key))
    first = np.flatnonzero(np.diff(key[order], prepend=-1.0))
    return np.sort(order[first])


def _ticks(axis: Axis, k: int, bottom: float) -> Iterator[str]:
    """What the axis says below a connection: seconds, or how long each phase lasted."""
    y = bottom + 13
    if axis.kind == "time":
        length = axis.spans[k][0]
        step = _step(length)
        for n in range(int(length / step) + 1):
            x = LEFT + PLOT * n * step / length
            yield svg.line((x, bottom), (x, bottom + 3), svg.SOFT)
            yield svg.text(x, y, f"{n * step:g} s", 9, "middle", svg.SOFT)
    elif axis.kind == "phase":
        for band, seconds in zip(axis.bands[k], axis.spans[k]):
            x = LEFT + PLOT * (band.begin + band.end) / 2
            said = f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
            if svg.width_of(said, 9) < PLOT * (band.end - band.begin):
                yield svg.text(x, y, said, 9, "middle", svg.SOFT)
    else:
        for share in (0, 0.25, 0.5, 0.75, 1):
            x = LEFT + PLOT * (0.05 + 0.9 * share)
            yield svg.text(
                x,
                y,
                f"{share:.0%} of the bytes" if share in (0, 1) else f"{share:.0%}",
                9,
                "middle",
                svg.SOFT,
            )


def _step(length: float) -> float:
    """A round step of which 4 to 10 fit in a length."""
    raw = length / 10
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
