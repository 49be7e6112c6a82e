"""Columns of connections against what was written into the capture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probing.corpus.copies import across, sequences
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import Labelled, of_corpus
from probing.corpus.measures import measure, table
from tests.support.small_corpus import T0, Entry, Exchange, write

SMALL = Path(__file__).parents[4] / "corpora" / "small"


def known(folder: Path, *exchanges: Exchange) -> Labelled:
    made: list[Entry] = [(exchange, {"run": f"{k}"}) for k, exchange in enumerate(exchanges)]
    return of_corpus(read_corpus(write(folder, made)))


def test_columns_are_those_of_the_packets(tmp_path: Path) -> None:
    found = known(tmp_path, Exchange(T0, payloads=[300, -900, 100, -1400], ttl=61))
    columns = {name: values[0] for name, values in measure(found.traffic, found.row, 1).items()}
    expected = {
        "TTL of the first packet up": 61, "TTL of the first packet down": 64, "greatest TTL up": 61, "packets up": 6,
        "packets down": 4, "data packets up": 2, "data packets down": 2, "payload bytes up": 400, "packets of both": 10,
        "payload bytes down": 2300, "first payload up": 300, "second payload up": 100, "greatest payload down": 1400,
        "mean payload down": 1150, "header bytes of the first packet up": 40, "IP bytes up": 640,
        "packets with SYN up": 1,
        "packets with FIN down": 1, "packets with PSH up": 2, "window of the first packet up": 1000,
        "first inter-arrival up": 0.02, "duration": 0.09, "time to the first payload up": 0.03,
        "round trip of the handshake": 0.02, "share of IP ids one after the other up": 1, "share of IP ids 0 up": 0,
        "history has D": 1, "history has R": 0, "conn_state is SF": 1, "type of service up": 0,
        "share of Don't Fragment up": 0, "packets without payload up": 2, "greatest inter-arrival up": 0.02,
    }  # fmt: skip
    assert {name: columns[name] for name in expected} == pytest.approx(expected)


def test_connections_at_the_same_time_are_measured_apart(tmp_path: Path) -> None:
    exchanges = [
        Exchange(T0 + k * 1_000_000, sport=40000 + k, payloads=[100, -200] * (k + 1)) for k in range(3)
    ]
    found = known(tmp_path, *exchanges)
    columns = measure(found.traffic, found.row, 3)
    assert columns["share of IP ids one after the other up"].tolist() == [1, 1, 1]
    assert columns["data packets up"].tolist() == [1, 2, 3]
    assert columns["greatest inter-arrival of both"] == pytest.approx([0.01, 0.01, 0.01])


@pytest.mark.compiled
def test_packets_of_every_connection_are_those_of_its_record() -> None:
    """Blocks of packets follow each other, and slots of the tracker are used again."""
    found = of_corpus(read_corpus(SMALL))
    records = found.traffic.connections
    packets = np.bincount(found.traffic.packets.connection, minlength=records.num_rows)
    up = np.bincount(found.traffic.packets.connection, found.traffic.packets.up, minlength=records.num_rows)
    assert found.unlabelled == 0
    assert found.silent == read_corpus(SMALL).labels.column("proto").to_pylist().count("arp") > 0
    assert up.tolist() == records.column("orig_pkts").to_pylist()
    assert (packets - up).tolist() == records.column("resp_pkts").to_pylist()


def test_no_column_is_of_addresses_or_ports(tmp_path: Path) -> None:
    found = known(tmp_path, Exchange(T0), Exchange(T0, client=0x0B0C0D0E, sport=51234))
    names, _ = table(measure(found.traffic, found.row, 2))
    assert names == []


def test_a_column_of_a_few_values_has_one_for_each_and_a_missing_value_is_one(tmp_path: Path) -> None:
    exchanges = [Exchange(T0, sport=40000 + k, ttl=60 + k, payloads=[10] * min(k, 1)) for k in range(3)]
    found = known(tmp_path, *exchanges)
    names, values = table(measure(found.traffic, found.row, 3))
    of = dict(zip(names, values.tolist()))
    assert of["TTL of the first packet up is 61"] == [0, 1, 0]
    assert of["first payload up"] == [-1, 10, 10]


def test_near_duplicates_have_the_same_sizes_flags_and_directions_in_the_same_order(tmp_path: Path) -> None:
    payloads = [100, -200, 300, -400, 500, -600]
    turned = [100, -200, 500, -400, 300, -600]
    flipped = [-100, 200, -300, 400, -500, 600]
    all_payloads = (payloads, list(payloads), turned, flipped, [100, -200], [100, -200])
    exchanges = [
        Exchange(T0, sport=40000 + k, payloads=p, delay_ms=k + 1) for k, p in enumerate(all_payloads)
    ]
    found = known(tmp_path, *exchanges)
    sequence, informed = sequences(found.traffic, found.row, 6)
    assert informed.tolist() == [True, True, True, True, False, False]
    assert len(set(sequence[[0, 1]].tolist())) == 1
    assert len(set(sequence.tolist())) == 4
    apart = across(sequence, informed, np.array([0, 1, 0, 1, 0, 1]))
    assert apart.tolist() == [True, True, False, False, False, False]
    assert not across(sequence, informed, np.zeros(6, np.int64)).any()
