"""Which packets of DetGen's attack captures are labelled as attack: the attack's own, from first to last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from engine.cli import main
from engine.commands.reading import read_connections, read_packets
from engine.commands.run_summary import is_attack
from engine.labels.file import read_labels
from probing.imports.connections import connection_rows
from probing.imports.detgen import Problem, import_folder, problem_lines
from probing.imports.detgen_scenarios import SCENARIOS
from tests.support.capture_bytes import Record
from tests.support.detgen_files import SECOND, T0, TIME, asked, capture, host, packet, spoken

ADMIN, ATTACKER, APACHE, SQL, DNS = host(3), host(4), host(20), host(22), host(1)


def in_order(*parts: list[Record]) -> list[Record]:
    return sorted((record for part in parts for record in part), key=lambda record: record[0])


def background(at: int, who: int) -> list[Record]:
    """Name resolution, the clock, discovery: what runs beside an attack."""
    return in_order(
        asked(at, who, DNS, 50001, 53),
        asked(at, who, DNS, 123, 123),
        asked(at, who, 224 << 24 | 251, 5353, 5353),
    )


def attacked(folder: Path, number: int = 150) -> None:
    """The server's capture of an attack, with all that happens beside it."""
    capture(
        folder / f"dump-{number}-apache-{TIME}-sc2-1.pcap",
        *in_order(
            spoken(T0, ADMIN, APACHE, 40001), spoken(T0 + SECOND, ATTACKER, APACHE, 40002),
            spoken(T0 + SECOND, APACHE, SQL, 40003, 3306), background(T0, ATTACKER), background(T0 + SECOND, APACHE),
        ),
    )  # fmt: skip


def admin(folder: Path, number: int = 150) -> None:
    parts = spoken(T0 - 1000, ADMIN, APACHE, 40001), background(T0, ADMIN)
    capture(folder / f"dump-{number}-admin-{TIME}-sc2-1.pcap", *in_order(*parts))


def attacker(folder: Path, number: int = 150) -> None:
    parts = spoken(T0 + SECOND - 1000, ATTACKER, APACHE, 40002), background(T0, ATTACKER)
    capture(folder / f"dump-{number}-attacker-{TIME}-sc2-1.pcap", *in_order(*parts))


def of_attacks(folder: Path, per: str, file: str) -> set[tuple[int, int, int]]:
    """The lowest and the highest port, and the protocol, of packets that ``lab import`` labels as attack."""
    labels = folder.parent / "labels.parquet"
    result = CliRunner().invoke(
        main, ["lab", "import", "detgen", str(folder), "-o", str(labels), "--per", per]
    )
    assert result.exit_code == 0, result.stderr
    known = read_labels(labels)
    found = set()
    for p in read_packets([folder / file]):
        tagged = known.tag(p)
        for k, probe in enumerate(tagged.probe.tolist()):
            ports = sorted((int(p.sport[k]), int(p.dport[k])))
            if is_attack(known.probes[probe].get("attack")):
                found.add((ports[0], ports[1], int(p.proto[k])))
    return found


PER = pytest.mark.parametrize("per", ["capture", "connection"])
SERVERS = f"dump-150-apache-{TIME}-sc2-1.pcap"


@PER
@pytest.mark.parametrize("seen", [(), ("admin",), ("attacker",), ("admin", "attacker")], ids=str)
def test_only_connections_to_the_attacked_service_are_attacks(
    per: str, seen: tuple[str, ...], tmp_path: Path
) -> None:
    """And not the administrator's, where his or the attacker's capture tells them apart."""
    attacked(tmp_path / "data")
    for role in seen:
        {"admin": admin, "attacker": attacker}[role](tmp_path / "data")
    both = {(80, 40001, 6), (80, 40002, 6)}
    assert of_attacks(tmp_path / "data", per, SERVERS) == (both if not seen else {(80, 40002, 6)})


@PER
def test_a_capture_of_the_administrator_has_no_attack(per: str, tmp_path: Path) -> None:
    admin(tmp_path / "data")
    assert of_attacks(tmp_path / "data", per, f"dump-150-admin-{TIME}-sc2-1.pcap") == set()


@PER
@pytest.mark.parametrize("with_attacker", [False, True])
def test_a_scenario_of_an_administrator_alone_has_no_attack_until_an_attacker_is_captured(
    per: str, with_attacker: bool, tmp_path: Path
) -> None:
    attacked(tmp_path / "data", 140)
    if with_attacker:
        attacker(tmp_path / "data", 140)
    found = of_attacks(tmp_path / "data", per, f"dump-140-apache-{TIME}-sc2-1.pcap")
    assert found == ({(80, 40002, 6)} if with_attacker else set())


@PER
def test_every_packet_of_an_attack_is_labelled_to_its_last_ack(per: str, tmp_path: Path) -> None:
    attacked(tmp_path / "data")
    admin(tmp_path / "data")
    labels = tmp_path / "labels.csv"
    line = ["lab", "import", "detgen", str(tmp_path / "data"), "-o", str(labels), "--per", per]
    assert CliRunner().invoke(main, line).exit_code == 0
    known = read_labels(labels)
    (p,) = read_packets([tmp_path / "data" / SERVERS])
    tagged = known.tag(p)
    mine = (p.sport == 40002) | (p.dport == 40002)
    assert int(mine.sum()) == 8
    kinds = [known.probes[probe].get("attack_kind") for probe in tagged.probe[mine].tolist()]
    assert kinds == ["sql-injection"] * 8
    rest = {known.probes[probe].get("attack") for probe in tagged.probe[~mine].tolist()}
    assert rest == {"0"}


def test_a_row_ends_with_the_last_packet_even_where_the_record_does_not(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.pcap", *spoken(T0, ADMIN, APACHE, 40001))
    assert read_connections([path]).column("duration").to_pylist() == [0.006]
    (row,) = connection_rows(path)
    assert (row["start"], row["end"]) == (T0, T0 + 2006 * 1_000_000)


@pytest.mark.parametrize("late", [1, 3, 7])
def test_a_row_has_packets_that_were_captured_out_of_order(late: int, tmp_path: Path) -> None:
    records = spoken(T0, ADMIN, APACHE, 40001)
    records = [*records[late:], *records[:late]]
    rows = list(connection_rows(capture(tmp_path / "c.pcap", *records)))
    assert min(row["start"] for row in rows) == T0
    assert max(row["end"] for row in rows) == T0 + 2006 * 1_000_000


def test_ports_used_again_give_rows_of_their_own(tmp_path: Path) -> None:
    times = [T0, T0 + 10 * SECOND, T0 + 400 * SECOND]
    path = capture(tmp_path / "c.pcap", *(r for at in times for r in spoken(at, ADMIN, APACHE, 40001)))
    found = [(row["start"], row["end"]) for row in connection_rows(path)]
    assert found == [(at, at + 2006 * 1_000_000) for at in times]


def test_times_do_not_leak_into_connections_in_blocks_behind(tmp_path: Path) -> None:
    """Which take the places of those that ended."""
    times = [T0 + 10 * k * SECOND for k in range(1100)]
    path = capture(tmp_path / "c.pcap", *(r for at in times for r in spoken(at, ADMIN, APACHE, 40001)))
    rows = list(connection_rows(path))
    assert [(row["start"], row["end"]) for row in rows] == [(at, at + 2006 * 1_000_000) for at in times]


def test_rows_have_the_connections_of_the_records(tmp_path: Path) -> None:
    attacked(tmp_path)
    path = tmp_path / SERVERS
    table = read_connections([path])
    rows = list(connection_rows(path))
    assert [row["src"] for row in rows] == table.column("id.orig_h").to_pylist()
    assert [row["proto"] for row in rows] == table.column("proto").to_pylist()
    packets = np.concatenate([p.ts for p in read_packets([path])])
    assert min(row["start"] for row in rows) == packets.min()


def test_a_flood_is_attack_at_any_port_of_its_victim(tmp_path: Path) -> None:
    """As Mirai's: the botmaster's telnet and the flood, not the names that are looked up."""
    net = 172 << 24 | 16 << 16 | 233 << 8
    bot, control, victim = net | 5, net | 23, net | 33
    name = f"dump-180-bot1-botnet-{TIME}-1.pcap"
    parts = spoken(T0, bot, control, 40001, 23), asked(T0 + 5, bot, victim, 40002, 777), background(T0, bot)
    capture(tmp_path / "data" / name, *in_order(*parts), *asked(T0 + 9, victim, DNS, 40003, 53))
    assert of_attacks(tmp_path / "data", "capture", name) == {(23, 40001, 6), (777, 40002, 17)}


def test_every_attack_names_its_targets_and_nothing_else_does() -> None:
    for scenario in SCENARIOS.values():
        assert bool(scenario.targets) == (scenario.attack_kind != "none"), scenario.name


def test_the_command_says_how_many_rows_are_of_attacks(tmp_path: Path) -> None:
    attacked(tmp_path / "data")
    attacker(tmp_path / "data")
    line = ["lab", "import", "detgen", str(tmp_path / "data"), "-o", str(tmp_path / "l.csv")]
    said = CliRunner().invoke(main, line).stderr.splitlines()
    assert said[-1] == f"{tmp_path / 'l.csv'}: 3 rows for 2 captures, 1 of them for connections of attacks"
    assert len(said) == 2


def test_a_problem_of_many_files_is_one_line(tmp_path: Path) -> None:
    for k in range(12):
        capture(tmp_path / f"dump-998-new-{TIME}-{k}.pcap", packet(T0 + 60 * k * SECOND))
    found = import_folder(tmp_path)
    assert len(found.problems) == 24
    lines = problem_lines(found.problems)
    first = tmp_path / f"dump-998-new-{TIME}-0.pcap"
    assert lines == [
        f"{first}: no label file has its capture time: labelled by its name only (and 11 more files likewise)",
        f"{first}: scenario '998-new' is unknown: labelled by its name only (and 11 more files likewise)",
    ]


@pytest.mark.parametrize(
    ("reasons", "lines"),
    [
        (["row 3 has 2 of 14 columns: skipped", "row 9 has 1 of 14 columns: skipped"], 1),
        (["load 'a' is not a number", "load 'b c' is not a number"], 1),
        (["no packets, so no row", "no connections, so no row"], 2),
        (["its time overlaps that of x-1.pcap, which", "its time overlaps that of y-2.pcap, which"], 1),
    ],
)
def test_problems_are_alike_when_only_their_values_differ(reasons: list[str], lines: int) -> None:
    problems: list[Any] = [Problem(Path(str(k)), reason) for k, reason in enumerate(reasons)]
    assert len(problem_lines(problems)) == lines
    assert problem_lines(problems[:1]) == [f"0: {reasons[0]}"]
