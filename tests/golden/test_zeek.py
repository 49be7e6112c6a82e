"""Our connection records against the logs that Zeek's own tests expect for the same captures.

Run with WIRESONDE_UPDATE_DOCS=1 to put the differences found into docs/zeek-differences.md; a row that is new
there has no reason yet and fails until it gets one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from engine.commands.reading import read_connections, read_packets
from engine.config import Config
from engine.connections.bounds import TrackerConfig
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.headers.cursor import TUNNELS
from engine.headers.decode import DecodeConfig
from engine.types import ACK, SYN, Packets, concatenate, take
from tests.support.captures import CAPTURES, needs_captures
from tests.support.peers import (
    ZEEK_UIDS,
    Conversation,
    Endpoint,
    ZeekBaseline,
    ZeekConnection,
    conversation,
    pair,
    plain,
    read_table,
    write_table,
    zeek_baselines,
)

pytestmark = [pytest.mark.captures, pytest.mark.compiled, needs_captures]

PAGE = Path(__file__).parents[2] / "docs" / "zeek-differences.md"
FIELDS = ("conn_state", "history", "orig_bytes", "resp_bytes")
# Bare Zeek knows the UDP ports of tunnels, and those of the protocols whose scripts a test loads. The latter
# matter in two tests.
TUNNEL_PORTS = (2123, 2152, 3544, 4754, 4789, 5072, 6081)
LOADED_PORTS = {"dhcp": (67, 4011), "krb": (88,)}
TIMEOUTS = {"core.expire-all-timers.conn-limited": 600.0}  # so many timers are due that Zeek fires no timeout

Row = tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What came out: differing rows, and how many of Zeek's TCP and UDP connections have none."""

    rows: list[Row]  # baseline, connection, field, Zeek, ours
    connections: int
    equal: int


def _only_one_port_at_a_time(p: Packets) -> NDArray[np.bool_]:
    """The script of core.pcap.dynamic-filter: one packet, then one of port 80, then those of port 53."""
    keep = np.zeros(p.ts.size, np.bool_)
    keep[0] = True
    web = (p.sport == 80) | (p.dport == 80)
    first = 1 + int(np.argmax(web[1:]))
    keep[first] = True
    keep[first + 1 :] = ((p.sport == 53) | (p.dport == 53))[first + 1 :]
    return keep


def _no_more_of_who_connected(p: Packets) -> NDArray[np.bool_]:
    """The script of netcontrol.packetfilter: an originator is cut off once its connection is established."""
    cut_off: set[tuple[int, int]] = set()
    keep = np.zeros(p.ts.size, np.bool_)
    columns = (p.src_hi, p.src_lo, p.dst_hi, p.dst_lo, p.tcp_flags)
    for i, (src_hi, src_lo, dst_hi, dst_lo, flags) in enumerate(zip(*(c.tolist() for c in columns))):
        keep[i] = not cut_off & {(src_hi, src_lo), (dst_hi, dst_lo)}
        if keep[i] and flags & (SYN | ACK) == SYN | ACK:
            cut_off.add((dst_hi, dst_lo))
    return keep


FILTERS: dict[str, Callable[[Packets], NDArray[np.bool_]]] = {
    "core.pcap.dynamic-filter": _only_one_port_at_a_time,
    "scripts.base.frameworks.netcontrol.packetfilter": _no_more_of_who_connected,
}


def _label(baseline: ZeekBaseline) -> str:
    """The baseline as the table of differences names it."""
    return baseline.name.removesuffix(".cut").removesuffix(".log").removesuffix(".conn")


def _config(baseline: ZeekBaseline, tunnels: frozenset[str]) -> Config:
    """Our settings for the options Zeek was run with."""
    connections: dict[str, Any] = {"copies": "keep"}  # Zeek cannot tell them
    if baseline.bare:
        loaded = next((ports for name, ports in LOADED_PORTS.items() if f".{name}." in baseline.name), ())
        connections |= {"tcp_server_ports": loaded, "udp_server_ports": TUNNEL_PORTS + loaded}
    if timeout := TIMEOUTS.get(_label(baseline)):
        connections["tcp_timeout"] = timeout
    return Config(
        decode=DecodeConfig(tunnels=tuple(sorted(tunnels))), connections=TrackerConfig(**connections)
    )


def _table(baseline: ZeekBaseline, config: Config) -> pa.Table:
    """Our records of the packets that Zeek's script let it see."""
    keep = FILTERS.get(_label(baseline))
    if keep is None:
        return read_connections([baseline.pcap], config)
    packets = concatenate(list(read_packets([baseline.pcap], config)))
    tracker = Tracker(config.connections)
    tables = []
    for tracked in tracker.track(take(packets, keep(packets))):
        tables.append(connection_table(*tracker.rows(tracked.closed)))
    tables += [connection_table(*tracker.rows(slots)) for slots in tracker.flush()]
    return pa.concat_tables(tables)


def _ends(row: dict[str, Any]) -> tuple[Endpoint, Endpoint]:
    return (plain(row["id.orig_h"]), row["id.orig_p"]), (plain(row["id.resp_h"]), row["id.resp_p"])


def _key(row: dict[str, Any]) -> Conversation:
    return conversation(row["proto"], *_ends(row))


def _their_key(theirs: ZeekConnection) -> Conversation:
    assert theirs.orig
    assert theirs.resp
    return conversation(theirs.proto, theirs.orig, theirs.resp)


def _records(baseline: ZeekBaseline, tunnels: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Our TCP and UDP connections in order of begin, those that passed Zeek's capture filter."""
    table = _table(baseline, _config(baseline, tunnels))
    begin = table.column("ts").cast("int64").to_numpy()
    rows = table.drop_columns("ts").take(np.argsort(begin, kind="stable")).to_pylist()
    rows = [row for row in rows if row["proto"] in ("tcp", "udp")]
    if baseline.port:
        rows = [row for row in rows if baseline.port in (row["id.orig_p"], row["id.resp_p"])]
    return rows


def _pairs(baseline: ZeekBaseline) -> Iterator[tuple[dict[str, Any] | None, ZeekConnection | None]]:
    """Ours beside Zeek's. Zeek logs a tunnel and what is in it, we the one or the other: look both ways.

    Of tunnels in tunnels we log the innermost packets, or where one kind stays closed, those it carries.
    """
    theirs = [one for one in baseline.connections if one.proto in ("tcp", "udp", "")]
    outer = _records(baseline)
    if any(one.orig is None for one in theirs):  # the log was cut down to columns without addresses
        names = [(row, uid) for row, uid in zip(outer, ZEEK_UIDS)]
        for named, one in pair(names, theirs, lambda named: named[1], lambda one: one.uid):
            yield named[0] if named else None, one
        return
    rest = []
    for mine, one in pair(outer, [one for one in theirs if not one.inner], _key, _their_key):
        if one and not mine:
            rest.append(one)
        else:
            yield mine, one
    rest += [one for one in theirs if one.inner]
    seen = {_key(row) for row in outer}
    every = frozenset(TUNNELS)
    for opened in (every, *(every - {closed} for closed in TUNNELS)) if rest else ():
        within = [row for row in _records(baseline, opened) if _key(row) not in seen]
        seen |= {_key(row) for row in within}
        left = []
        for mine, one in pair(within, rest, _key, _their_key):
            if mine:
                yield mine, one
            elif one:
                left.append(one)
        rest = left
    yield from ((None, one) for one in rest)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _name(mine: dict[str, Any] | None, theirs: ZeekConnection | None) -> str:
    """A connection as the table of differences names it."""
    if mine:
        (a, a_port), (b, b_port) = _ends(mine)
        return f"{mine['proto']} {a} {a_port} > {b} {b_port}"
    assert theirs
    if not theirs.orig or not theirs.resp:
        return theirs.uid
    return f"{theirs.proto} {theirs.orig[0]} {theirs.orig[1]} > {theirs.resp[0]} {theirs.resp[1]}"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """All baselines compared."""
    rows: list[Row] = []
    connections = equal = 0
    for baseline in zeek_baselines(CAPTURES / "conn"):
        label = _label(baseline)
        names: Counter[str] = Counter()
        for mine, theirs in _pairs(baseline):
            if theirs and not set(FIELDS) & set(theirs.fields):
                continue  # a log cut down to columns that are not compared
            name = _name(mine, theirs)
            names[name] += 1
            if names[name] > 1:
                name += f" #{names[name]}"
            found = list(_differences(mine, theirs))
            rows += [(label, name, *cells) for cells in found]
            connections += theirs is not None
            equal += not found
    return Comparison(rows, connections, equal)


def _differences(mine: dict[str, Any] | None, theirs: ZeekConnection | None) -> Iterator[Row]:
    """Field, Zeek's value and ours, for each field that is not the same."""
    if not mine or not theirs:
        yield "connection", "logged" if theirs else "absent", "logged" if mine else "absent"
        return
    for field in FIELDS:
        if field in theirs.fields and theirs.fields[field] != mine[field]:
            yield field, _text(theirs.fields[field]), _text(mine[field])


def test_at_least_95_percent_of_connections_equal_zeeks(comparison: Comparison) -> None:
    assert comparison.connections > 300
    assert comparison.equal / comparison.connections >= 0.95, (
        f"{comparison.equal} of {comparison.connections}"
    )


def test_every_difference_to_zeek_is_documented_and_every_documented_one_exists(
    comparison: Comparison,
) -> None:
    if os.environ.get("WIRESONDE_UPDATE_DOCS"):
        write_table(PAGE, comparison.rows)
    table = read_table(PAGE)
    assert sorted(row[:-1] for row in table.rows) == sorted(comparison.rows)
    assert {row[-1] for row in table.rows} == table.reasons


def test_the_page_says_how_many_connections_equal_zeeks(comparison: Comparison) -> None:
    assert f"{comparison.equal} of {comparison.connections} connections" in PAGE.read_text()
