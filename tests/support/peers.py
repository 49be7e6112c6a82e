"""Other tools' answers to the same captures: Zeek's connection logs, tshark's events, tcptrace's counts.

Each loader gives plain values in the peer's own words; what is compared, and how, stands in the tests. The
tables of accepted differences in docs/ are read here too, so that a test can hold them against what it finds.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeVar

Endpoint = tuple[str, int]
Conversation = tuple[str, frozenset[Endpoint]]  # protocol and both ends, whichever spoke first
Mine = TypeVar("Mine")
Theirs = TypeVar("Theirs")

# With the seed of its tests Zeek names connections the same way in every run, in the order they begin.
ZEEK_UIDS = (
    "CHhAvVGS1DHFjwGM9", "ClEkJM2Vm5giqnMf4h", "C4J4Th3PJpwUYZZ6gc", "CtPZjS20MLrsMUOJi2",
    "CUM0KZ3MLUfNB0cl11", "CmES5u32sYpV7JYN", "CP5puj4I8PtEU4qzYg", "C37jN32gN3y3AZzyf6",
    "C3eiCBGOLw3VtHfOj", "CwjjYJ2WqgTbAqiHl6", "C0LAHyvtKSQHyJxIl", "CFLRIC3zaTU1loLGxh",
    "C9rXSW3KSpTYvPrlI1", "Ck51lg1bScffFj34Ri", "C9mvWx3ezztgzcexV7", "CNnMIj2QSd84NKf7U3",
    "C7fIlMZDuRiqjpYbb", "CykQaM33ztNt0csB9a", "CtxTCR2Yer0FR1tIBg", "CpmdRlaUoJLN3uIRa",
    "C1Xkzz2MaGtLrc1Tla", "CqlVyW1YwZ15RhTBc4", "CLNN1k2QMum1aexUK7", "CBA8792iHmnhPLksKa",
    "CGLPPc35OzDQij1XX8",
)  # fmt: skip
RENAMED = {"src_ip": "id.orig_h", "src_port": "id.orig_p", "dst_ip": "id.resp_h", "dst_port": "id.resp_p"}


def plain(address: str) -> str:
    """The address in its one canonical spelling, without the brackets or zone a tool may add."""
    return str(ip_address(address.strip("[]").partition("%")[0]))


def conversation(proto: str, a: Endpoint, b: Endpoint) -> Conversation:
    """What both sides' packets have in common."""
    return proto, frozenset((a, b))


# Zeek


@dataclass(frozen=True, slots=True)
class ZeekConnection:
    """One line of a conn.log. fields holds only the columns the log has; None stands for Zeek's unset."""

    uid: str
    proto: str  # empty in a log cut down to columns without it
    orig: Endpoint | None
    resp: Endpoint | None
    inner: bool  # carried in a tunnel
    fields: dict[str, str | int | None]


@dataclass(frozen=True, slots=True)
class ZeekBaseline:
    """One conn.log of one Zeek test, with the options of its command line that change what is logged."""

    name: str  # the test and the log, as the file is called
    pcap: Path
    command: str
    connections: list[ZeekConnection]  # in the order of the log: that in which connections ended

    @property
    def bare(self) -> bool:
        """Zeek loaded only the scripts that the test names, so it knows fewer server ports."""
        return "-b" in self._words

    @property
    def checks_checksums(self) -> bool:
        return "-C" not in self._words

    @property
    def port(self) -> int | None:
        """The one port that a capture filter let through."""
        if "-f" not in self._words:
            return None
        return int(self._words[self._words.index("-f") + 1].split()[-1])

    @property
    def _words(self) -> list[str]:
        return shlex.split(self.command.partition(">")[0].partition("&&")[0])


def read_zeek_log(path: Path) -> list[dict[str, str | None]]:
    """Lines of a Zeek log, whole or cut, tab-separated or JSON, by the names of Zeek's own columns."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("###")]
    if lines and lines[0].startswith("{"):
        return [{RENAMED.get(k, k): str(v) for k, v in json.loads(line).items()} for line in lines]
    header = next((line for line in lines if line.startswith("#fields")), None)
    names = header.split("\t")[1:] if header else lines.pop(0).split("\t")
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return [
        {RENAMED.get(k, k): None if v == "-" else v for k, v in zip(names, row, strict=True)} for row in rows
    ]


def zeek_baselines(folder: Path) -> Iterator[ZeekBaseline]:
    """Every connection log of Zeek in folder, beside the capture it was made from."""
    for how in sorted(folder.glob("*.how.txt")):
        pcap = how.with_name(how.name.removesuffix(".how.txt"))
        for log in sorted(folder.glob(f"{pcap.name}.*conn*.log*")):
            name = log.name.removeprefix(f"{pcap.name}.")
            test, _, log_name = re.sub(r"\.cut$", "", name).removesuffix(".log").rpartition(".")
            command = _command(how.read_text(), test, log_name, pcap.name)
            rows = [_zeek_connection(row) for row in read_zeek_log(log)]
            yield ZeekBaseline(name, pcap, command, rows)


def _command(how: str, test: str, log_name: str, pcap: str) -> str:
    """The command line of the given test that wrote the given log."""
    found = []
    inside = False
    for line in how.splitlines():
        if line.startswith("# test "):
            path = line.removeprefix("# test testing/btest/").rsplit(".", 1)[0]
            inside = path.replace("/", ".") == test
        elif inside and " -r " in line and line.split("-r ")[1].split()[0].rpartition("/")[2] in pcap:
            found.append(line.removeprefix("# @TEST-EXEC: "))
    named = [line for line in found if line.endswith(f"mv conn.log {log_name}.log")]
    if log_name == "conn-all":  # the second run of core.expire-all-timers, renamed in a line of its own
        return found[-1]
    return (named or found)[0]


def _zeek_connection(row: dict[str, str | None]) -> ZeekConnection:
    numbers = ("orig_bytes", "resp_bytes", "orig_pkts", "resp_pkts", "missed_bytes")
    fields: dict[str, str | int | None] = {}
    for name, value in row.items():
        fields[name] = int(value) if name in numbers and value is not None else value
    ends: list[Endpoint | None] = []
    for side in ("orig", "resp"):
        address, port = row.get(f"id.{side}_h"), row.get(f"id.{side}_p")
        ends.append((plain(address), int(port)) if address and port else None)
    inner = bool(row.get("tunnel_parents"))
    return ZeekConnection(row["uid"] or "", row.get("proto") or "", ends[0], ends[1], inner, fields)


# tshark and tcptrace


class Direction(NamedTuple):
    """Segments from one end of a TCP conversation to the other, in one capture."""

    file: str  # relative to the captures' folder
    source: Endpoint
    target: Endpoint


@dataclass(slots=True)
class TcptraceCounts:
    """tcptrace's counts of one direction, all its connections on the same addresses and ports together."""

    retransmitted: int = 0  # segments with a byte that was sent before; its copies of a captured packet too
    reordered: int = 0
    hardware_duplicates: int = 0  # packets captured twice, with or without data
    window_probes: int = 0


def tcptrace_counts(folder: Path) -> dict[Direction, TcptraceCounts]:
    """tcptrace's retransmitted and reordered data segments by direction."""
    counts: dict[Direction, TcptraceCounts] = defaultdict(TcptraceCounts)
    with gzip.open(folder / "truth" / "tcptrace_connections.csv.gz", "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            a = _tcptrace_host(row["host_a"]), int(row["port_a"])
            b = _tcptrace_host(row["host_b"]), int(row["port_b"])
            for way, source, target in (("a2b", a, b), ("b2a", b, a)):
                count = counts[Direction(row["file"], source, target)]
                count.retransmitted += int(row[f"rexmt_data_pkts_{way}"])
                count.reordered += int(row[f"outoforder_pkts_{way}"])
                count.hardware_duplicates += int(row[f"hardware_dups_{way}"])
                count.window_probes += int(row[f"zwnd_probe_pkts_{way}"])
    return dict(counts)


def _tcptrace_host(text: str) -> str:
    """The address; tcptrace 6.6.7 loses one of two leading colons."""
    return plain(f":{text}" if text.startswith(":") and not text.startswith("::") else text)


def tshark_events(folder: Path) -> dict[str, dict[int, frozenset[str]]]:
    """tshark's TCP analysis: for each capture, frame number (from 1) -> names of its events."""
    events: dict[str, dict[int, frozenset[str]]] = defaultdict(dict)
    with gzip.open(folder / "truth" / "tshark_tcp_events.tsv.gz", "rt", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            events[row["file"]][int(row["frame"])] = frozenset(row["flags"].split("|"))
    return dict(events)


# Matching


def pair(
    mine: Iterable[Mine],
    theirs: Iterable[Theirs],
    key_of_mine: Callable[[Mine], Hashable],
    key_of_theirs: Callable[[Theirs], Hashable],
) -> Iterator[tuple[Mine | None, Theirs | None]]:
    """The n-th of mine with a key beside the n-th of theirs with it; None beside one that is left over.

    Both come in order of begin. Of two connections between the same ends the first has to go before the next
    can begin, so that the order of a Zeek log, by end, will do as well.
    """
    waiting: dict[Hashable, list[Mine]] = defaultdict(list)
    for one in mine:
        waiting[key_of_mine(one)].append(one)
    for other in theirs:
        same = waiting[key_of_theirs(other)]
        yield (same.pop(0) if same else None), other
    for same in waiting.values():
        for one in same:
            yield one, None


# Tables of accepted differences


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a page in docs/. The last cell of a row names a reason explained above the table."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    reasons: frozenset[str]  # names explained on the page, each in a line "- **name**: why"


def read_table(page: Path) -> Table:
    """The last table of a Markdown page and the reasons the page explains."""
    text = page.read_text()
    reasons = frozenset(re.findall(r"^- \*\*([^*]+)\*\*:", text, re.MULTILINE))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    first = max(i for i, row in enumerate(cells) if set("".join(row)) <= {"-", ":"})
    return Table(cells[first - 1], cells[first + 1 :], reasons)


def write_table(page: Path, rows: Iterable[tuple[str, ...]]) -> None:
    """Put rows in place of those of the page's table, each with the reason it had there, or with none."""
    table = read_table(page)
    known = {row[:-1]: row[-1] for row in table.rows}
    head = page.read_text().rpartition("\n|---")[0]
    lines = [head, "|" + "---|" * len(table.header)]
    lines += ["| " + " | ".join((*row, known.get(row, ""))) + " |" for row in sorted(rows)]
    page.write_text("\n".join(lines) + "\n")
