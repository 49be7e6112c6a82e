"""Where the runs of a corpus go in a background: their times, hosts and ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from probing.corpus.background import Background, Used
from probing.corpus.columns import ns
from probing.lab.errors import LabError

Place = Literal["even", "random", "start"]
Hosts = Literal["none", "clients", "servers", "all"]
PROTO = {"icmp": 1, "tcp": 6, "udp": 17}
LOWEST_PORT = 1024  # least port that a client may be given
End = tuple[int, int, int]  # address, port, protocol


@dataclass(frozen=True)
class LabRun:
    """A run of the corpus: its hosts and its time."""

    name: str
    clients: tuple[int, ...]  # addresses, ascending
    servers: tuple[int, ...]
    first: int  # ns
    last: int


@dataclass(frozen=True)
class Plan:
    """Where everything goes."""

    shifts: Mapping[str, int]  # ns added to the times of each run
    addresses: Mapping[int, int]  # new address of each host that has one
    ports: Mapping[End, int]  # new port of each client's end that has one


def runs_of(labels: pa.Table) -> list[LabRun]:
    """The runs of a corpus in order of their starts. Raises LabError when two share a host: packets need one run."""
    columns = (labels.column(name).to_pylist() for name in ("run", "src", "dst", "role"))
    hosts: dict[str, dict[int, bool]] = {}  # run -> address -> whether it serves
    times: dict[str, tuple[int, int]] = {}
    starts, ends = ns(labels.column("start")).tolist(), ns(labels.column("end")).tolist()
    for run, src, dst, role, start, end in zip(*columns, starts, ends):
        of = hosts.setdefault(run, {})
        of.setdefault(number(src), False)
        of[number(dst)] = (
            of.get(number(dst), False) or role != "data"
        )  # data connections are opened by servers
        low, high = times.get(run, (start, end))
        times[run] = min(low, start), max(high, end)
    owner: dict[int, str] = {}
    for run, of in hosts.items():
        for address in of:
            if owner.setdefault(address, run) != run:
                raise LabError(
                    f"runs {owner[address]} and {run} share the host {text(address)}: they cannot be mixed"
                )
    found = [
        LabRun(
            run, tuple(sorted(a for a, serves in of.items() if not serves)),
            tuple(sorted(a for a, serves in of.items() if serves)), *times[run],
        )
        for run, of in hosts.items()
    ]  # fmt: skip
    return sorted(found, key=lambda run: (run.first, run.name))


def number(address: str) -> int:
    """An IPv4 address as a number. Raises LabError for any other."""
    try:
        return int(ipaddress.IPv4Address(address))
    except ipaddress.AddressValueError:
        raise LabError(f"{address}: not an IPv4 address; corpora with others cannot be mixed") from None


def text(address: int) -> str:
    """An IPv4 address as text."""
    return str(ipaddress.IPv4Address(address))


def shifts(
    runs: Sequence[LabRun], window: tuple[int, int], place: Place, rng: np.random.Generator
) -> dict[str, int]:
    """ns to add to the times of each run, so that it lies in a window (or begins with it, if it is longer)."""
    shares = {
        "even": (np.arange(len(runs)) + 0.5) / max(1, len(runs)),
        "random": rng.random(len(runs)),
        "start": np.zeros(len(runs)),
    }[place]
    begin, end = window
    result = {}
    for run, share in zip(runs, shares.tolist()):
        room = max(0, end - begin - (run.last - run.first))
        offset = run.first - runs[0].first if place == "start" else int(share * room)
        result[run.name] = begin + offset - run.first
    return result


def hosts(
    runs: Sequence[LabRun], background: Background, which: Hosts, asked: Mapping[int, set[tuple[int, int]]],
    rng: np.random.Generator,
) -> dict[int, int]:  # fmt: skip
    """The background's host for each host of the runs that is to be mapped, no two of a run onto the same one.

    asked: protocols and ports on which each server of the lab is asked. A server is mapped onto one of the background
    that is asked on one of the same, if there is one. Raises LabError when there are too few.
    """
    known = background.hosts
    clients = [a for a in sorted(known) if known[a].client]
    servers = [a for a in sorted(known) if known[a].services]
    result: dict[int, int] = {}
    for run in runs:
        taken: set[int] = set()
        if which in ("servers", "all"):
            for server in run.servers:
                alike = [a for a in servers if known[a].services & asked.get(server, set())]
                result[server] = _chosen(run, "server", (alike, servers), taken, rng)
        if which in ("clients", "all"):
            for client in run.clients:
                result[client] = _chosen(run, "client", (clients,), taken, rng)
    return result


def _chosen(
    run: LabRun, what: str, choices: Iterable[Sequence[int]], taken: set[int], rng: np.random.Generator
) -> int:
    """A host that is free, of the first choices that have one."""
    for candidates in choices:
        free = [address for address in candidates if address not in taken]
        if free:
            chosen = free[int(rng.integers(len(free)))]
            taken.add(chosen)
            return chosen
    raise LabError(
        f"run {run.name}: the background has no {what} left to map onto: map fewer hosts (--map-hosts)"
    )


def client_ends(labels: pa.Table, runs: Sequence[LabRun]) -> list[End]:
    """The client's end of each connection with ports, each once, in order."""
    clients = {address for run in runs for address in run.clients}
    columns = (labels.column(name).to_pylist() for name in ("src", "sport", "dst", "dport", "proto"))
    found: dict[End, None] = {}
    for src, sport, dst, dport, proto in zip(*columns):
        if sport is None or dport is None:
            continue
        one, other = (number(src), sport, PROTO[proto]), (number(dst), dport, PROTO[proto])
        found[other if other[0] in clients and one[0] not in clients else one] = None
    return sorted(found)


def ports(
    ends: Sequence[End], addresses: Mapping[int, int], used: Used, rng: np.random.Generator
) -> dict[End, int]:
    """The new port of each end whose own is taken, by the background or by another end of the same host.

    A port that the background uses at any time is taken, so nothing collides. Raises LabError when a host has
    none left.
    """
    taken: set[End] = set()
    result = {}
    for address, port, proto in ends:
        host = addresses.get(address, address)
        chosen = port
        if used.has(host, port, proto) or (host, port, proto) in taken:
            start = int(rng.integers(LOWEST_PORT, 1 << 16))
            for k in range((1 << 16) - LOWEST_PORT):
                chosen = LOWEST_PORT + (start - LOWEST_PORT + k) % ((1 << 16) - LOWEST_PORT)
                if not used.has(host, chosen, proto) and (host, chosen, proto) not in taken:
                    break
            else:
                raise LabError(
                    f"host {text(host)} has no port left for {text(address)}:{port}: map fewer hosts onto it"
                )
            result[(address, port, proto)] = chosen
        taken.add((host, chosen, proto))
    return result


def refuse_pairs(labels: pa.Table, addresses: Mapping[int, int], used: Used) -> None:
    """Raise LabError when a connection without ports would be of the same two hosts as one of the background."""
    columns = (labels.column(name).to_pylist() for name in ("src", "dst", "proto", "sport"))
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    for src, dst, proto, sport in zip(*columns):
        if sport is not None:
            continue
        one, other = (addresses.get(number(a), number(a)) for a in (src, dst))
        pair = (min(one, other), max(one, other))
        if pair in used.pairs or seen.setdefault(pair, (src, dst)) not in ((src, dst), (dst, src)):
            raise LabError(f"{proto} between {src} and {dst} has no ports, and {text(one)} and {text(other)} exchange "
                           "such packets already: try another --seed")  # fmt: skip
