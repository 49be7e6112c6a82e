"""Where runs go in a background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probing.corpus.background import Background, BackgroundHost, Used
from probing.corpus.mapping import (
    LabRun,
    client_ends,
    hosts,
    number,
    ports,
    refuse_pairs,
    runs_of,
    shifts,
)
from probing.lab.errors import LabError
from tests.support.capture_bytes import pcap
from tests.support.corpora import T0, table
from tests.support.small_corpus import Exchange

S = 1_000_000_000
CLIENT, SERVER = number("192.168.1.5"), number("192.168.1.80")


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def run(name: str, first: int = 0, last: int = S) -> LabRun:
    return LabRun(name, (1,), (2,), first, last)


def background(clients: int, servers: dict[int, set[tuple[int, int]]]) -> Background:
    found = Background(0, 100 * S, 1)
    found.hosts = {1000 + k: BackgroundHost(bytes([k] * 6), client=True) for k in range(clients)}
    found.hosts |= {a: BackgroundHost(bytes(6), services=services) for a, services in servers.items()}
    return found


def used(folder: Path, *exchanges: Exchange, addresses: tuple[int, ...]) -> Used:
    (folder / "b.pcap").write_bytes(pcap([r for e in exchanges for r in e.packets()], magic=0xA1B23C4D))
    found = Used(addresses)
    found.read([folder / "b.pcap"])
    return found


def test_hosts_of_a_run_are_servers_where_they_were_asked_and_not_where_they_open_data_connections() -> None:
    rows = table(
        {"run": "ftp", "src": "10.0.0.10", "dst": "10.0.0.1", "dport": 21, "role": "control"},
        {"run": "ftp", "src": "10.0.0.1", "sport": 20, "dst": "10.0.0.10", "dport": 40001, "role": "data"},
        {"run": "web", "src": "10.0.1.10", "dst": "10.0.1.1", "start": T0 + S, "end": T0 + 9 * S},
    )
    ftp, web = runs_of(rows)
    assert (ftp.clients, ftp.servers) == ((number("10.0.0.10"),), (number("10.0.0.1"),))
    assert (web.name, web.first, web.last) == ("web", T0 + S, T0 + 9 * S)
    assert client_ends(rows, [ftp, web]) == [
        (number("10.0.0.10"), 40000, 6), (number("10.0.0.10"), 40001, 6), (number("10.0.1.10"), 40000, 6),
    ]  # fmt: skip


def test_two_runs_with_the_same_host_cannot_be_mixed() -> None:
    with pytest.raises(LabError, match=r"runs a and b share the host 10\.0\.0\.10"):
        runs_of(table({"run": "a"}, {"run": "b", "start": T0 + 9 * S, "end": T0 + 10 * S}))


def test_addresses_that_are_not_of_ipv4_are_an_error() -> None:
    with pytest.raises(LabError, match="fd00::1: not an IPv4 address"):
        runs_of(table({"src": "fd00::1"}))


def test_runs_are_spread_evenly_and_lie_in_the_window() -> None:
    runs = [run(f"{k}", first=k * S, last=k * S + 10 * S) for k in range(9)]
    found = [r.first + shifts(runs, (1000 * S, 1100 * S), "even", rng())[r.name] for r in runs]
    assert found == [1005 * S + 10 * S * k for k in range(9)]


def test_a_run_that_is_longer_than_the_window_begins_with_it() -> None:
    assert shifts([run("a", 0, 500 * S)], (1000 * S, 1100 * S), "even", rng()) == {"a": 1000 * S}


def test_drawn_places_lie_in_the_window_and_follow_from_the_seed() -> None:
    runs = [run(f"{k}", first=k * S, last=k * S + 10 * S) for k in range(50)]
    one, same = (shifts(runs, (1000 * S, 1100 * S), "random", rng()) for _ in range(2))
    begins = [r.first + one[r.name] for r in runs]
    assert one == same
    assert 1000 * S <= min(begins) < 1010 * S < 1080 * S < max(begins) <= 1090 * S


def test_runs_that_start_with_the_window_keep_their_times_to_each_other() -> None:
    runs = [run("a", 5 * S, 6 * S), run("b", 8 * S, 9 * S)]
    assert shifts(runs, (100 * S, 200 * S), "start", rng()) == {"a": 95 * S, "b": 95 * S}


def test_servers_are_mapped_onto_hosts_that_serve_the_same_port() -> None:
    given = background(3, {2000: {(6, 80)}, 2001: {(6, 25)}, 2002: {(17, 53)}})
    for port, wanted in (((6, 25), 2001), ((17, 53), 2002), ((6, 80), 2000)):
        assert hosts([run("a")], given, "servers", {2: {port}}, rng()) == {2: wanted}
    assert hosts([run("a")], given, "servers", {2: {(6, 9999)}}, rng())[2] in (2000, 2001, 2002)


@pytest.mark.parametrize("which", ["none", "clients", "servers", "all"])
def test_only_the_hosts_asked_for_are_mapped_and_no_two_of_a_run_onto_the_same(which: Any) -> None:
    given = background(6, {1000: {(6, 80)}, 2001: {(6, 80)}})  # 1000 is a server, too
    runs = [LabRun(f"{k}", (10 * k, 10 * k + 1, 10 * k + 2), (10 * k + 9,), 0, S) for k in range(1, 20)]
    found = hosts(runs, given, which, {}, rng())
    for one in runs:
        own = [found[a] for a in (*one.clients, *one.servers) if a in found]
        assert len(set(own)) == len(own) == {"none": 0, "clients": 3, "servers": 1, "all": 4}[which]
        assert all(given.hosts[found[a]].client for a in one.clients if a in found)
        assert all(given.hosts[found[a]].services for a in one.servers if a in found)


def test_more_hosts_than_the_background_has_are_an_error() -> None:
    with pytest.raises(LabError, match="run a: the background has no client left to map onto: map fewer"):
        hosts([LabRun("a", (1, 2), (3,), 0, S)], background(1, {}), "clients", {}, rng())
    with pytest.raises(LabError, match="no server left"):
        hosts([run("a")], background(1, {}), "servers", {}, rng())


def test_ports_that_the_background_uses_are_changed_and_others_stay(tmp_path: Path) -> None:
    seen = used(tmp_path, Exchange(T0, client=CLIENT, sport=5000), addresses=(CLIENT, SERVER))
    assert seen.has(CLIENT, 5000, 6)
    assert not seen.has(CLIENT, 5000, 17)
    assert not seen.has(CLIENT, 5001, 6)
    assert not seen.has(number("10.0.0.1"), 80, 6)  # nobody asked for this one
    ends = [(1, 5000, 6), (1, 5001, 6), (1, 5000, 17), (2, 5001, 6), (3, 5000, 6)]
    found = ports(ends, {1: CLIENT, 2: CLIENT}, seen, rng())
    assert sorted(found) == [(1, 5000, 6), (2, 5001, 6)]
    final = [
        ({1: CLIENT, 2: CLIENT}.get(a, a), found.get((a, port, proto), port), proto)
        for a, port, proto in ends
    ]
    assert len(set(final)) == len(final)
    assert not any(seen.has(*end) for end in final)


def test_a_host_without_a_port_left_is_an_error(tmp_path: Path) -> None:
    seen = used(tmp_path, addresses=())
    ends = [(k, port, 17) for k in (1, 2) for port in range(1, 1 << 16)]
    with pytest.raises(LabError, match=r"host 192\.168\.1\.5 has no port left for 0\.0\.0\.2:1"):
        ports(ends, {1: CLIENT, 2: CLIENT}, seen, rng())


def test_connections_without_ports_between_the_same_hosts_as_the_backgrounds_are_an_error() -> None:
    rows = table({"proto": "icmp", "sport": None, "dport": None})
    seen = Used(())
    refuse_pairs(rows, {}, seen)
    seen.pairs.add((number("10.0.0.1"), number("10.0.0.10")))
    with pytest.raises(LabError, match=r"icmp between 10\.0\.0\.10 and 10\.0\.0\.1 has no ports"):
        refuse_pairs(rows, {}, seen)
