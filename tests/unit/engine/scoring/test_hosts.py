"""Hosts that learning saw: which are known, what a bundle tells of them, and what alerts of which kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.connections.layout import CONNECTION, FLAG_FLIPPED
from engine.errors import InputError, StateError
from engine.notation import LINK_HOST
from engine.scoring.batch import ScoreBatch, of_new_hosts
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.hosts import KNOWN, NEW, UNKNOWN, Hosts
from engine.scoring.start import StartConfig
from engine.types import Kind, PacketBlock, Packets, Rows, empty_packets, take
from models.bundle import load, pack
from tests.support.conversation import MS, T0
from tests.support.detectors import ROOM, kitsune

KEY = bytes(range(16))
V4 = 0xFFFF << 32


def packets(pairs: list[tuple[int, int]], kind: Kind = Kind.IPV4) -> Packets:
    p = empty_packets(len(pairs))
    for i, (src, dst) in enumerate(pairs):
        p.ts[i], p.src_lo[i], p.dst_lo[i], p.src_mac[i], p.dst_mac[i] = (
            T0 + i * MS,
            V4 | src,
            V4 | dst,
            src,
            dst,
        )
    p.kind[:], p.proto[:], p.sport[:], p.dport[:], p.size[:], p.ip_size[:] = kind, 17, 999, 9, 100, 86
    return p


def rows(pairs: list[tuple[int, int]], flipped: bool = False) -> Rows:
    out = np.zeros(len(pairs), CONNECTION)
    for i, (a, b) in enumerate(pairs):
        out["a_lo"][i], out["b_lo"][i] = V4 | a, V4 | b
    out["flags"] = FLAG_FLIPPED if flipped else 0
    return out


def answers(hosts: Hosts, pairs: list[tuple[int, int]], flipped: bool = False) -> list[tuple[int, int]]:
    orig, resp = hosts.known(rows(pairs, flipped), np.zeros(len(pairs), bool))
    return list(zip(orig.tolist(), resp.tolist()))


def test_hosts_of_learning_are_known_and_others_new() -> None:
    hosts = Hosts(KEY, 10)
    hosts.learn(packets([(1, 2), (2, 1), (3, 1), (9, 9)]), 3)
    assert answers(hosts, [(1, 2), (3, 4), (4, 3), (9, 8)]) == [(1, 1), (1, 0), (0, 1), (0, 0)]
    assert answers(hosts, [(3, 4)], flipped=True) == [(NEW, KNOWN)]


def test_a_mac_is_a_host_of_its_own() -> None:
    hosts = Hosts(KEY, 10)
    hosts.learn(packets([(1, 2)], Kind.ARP), 1)
    link = rows([(1, 2), (1, 3)])
    link["a_hi"], link["b_hi"] = LINK_HOST, LINK_HOST
    link["a_lo"], link["b_lo"] = [1, 1], [2, 3]
    orig, resp = hosts.known(link, np.zeros(2, bool))
    assert (orig.tolist(), resp.tolist()) == ([1, 1], [1, 0])
    assert answers(hosts, [(1, 2)]) == [(0, 0)]


def test_without_room_nothing_is_known() -> None:
    hosts = Hosts(KEY, 0)
    hosts.learn(packets([(1, 2)]), 1)
    assert answers(hosts, [(1, 2)]) == [(UNKNOWN, UNKNOWN)]


@pytest.mark.parametrize("cuts", [[], [1], [2, 3, 5], list(range(1, 12))])
def test_the_first_hosts_find_room_wherever_the_stream_is_cut_and_the_rest_is_counted(
    cuts: list[int],
) -> None:
    pairs = [(1, 2), (1, 2), (3, 1), (3, 4), (5, 1), (2, 1), (6, 7), (8, 1), (1, 8), (2, 3), (4, 1), (9, 1)]
    p, hosts = packets(pairs), Hosts(KEY, 4)
    for begin, end in zip([0, *cuts], [*cuts, len(pairs)]):
        hosts.learn(take(p, slice(begin, end)), end - begin)
    assert len(hosts) == 4
    assert answers(hosts, [(1, 2), (3, 4), (5, 6), (8, 9)]) == [(1, 1), (1, 1), (0, 0), (0, 0)]
    hosts.known(rows([(1, 2), (1, 5), (5, 6)]), np.array([True, True, False]))
    assert hosts.refused == 1


def test_a_set_that_is_restored_goes_on_and_has_no_address_in_it() -> None:
    hosts = Hosts(KEY, 3)
    hosts.learn(packets([(1, 2)]), 1)
    hashes, values = hosts.state()
    other = Hosts.from_state(hashes, values)
    other.learn(packets([(2, 1), (3, 4)]), 2)
    assert answers(other, [(1, 2), (3, 4)]) == [(1, 1), (1, 0)]
    assert not {V4 | 1, V4 | 2, 1, 2} & set(hashes.view(np.uint64).tolist())
    assert not np.isin(hashes, Hosts_with(bytes(16))).any()


def Hosts_with(key: bytes) -> Any:  # noqa: N802 -- reads as the class
    hosts = Hosts(key, 3)
    hosts.learn(packets([(1, 2)]), 1)
    return hosts.state()[0]


TWO = np.zeros(2, np.int64)
GOOD = {"key": KEY.hex(), "most": 5, "refused": 0}


@pytest.mark.parametrize(
    ("hashes", "values"),
    [
        (np.zeros(6, np.int64), GOOD), (np.zeros((2, 2), np.int64), GOOD), (np.zeros(2), GOOD),
        (np.zeros(2, np.int32), GOOD), (TWO, {}), (TWO, {**GOOD, "key": "zz" * 16}), (TWO, {**GOOD, "key": 5}),
        (TWO, {**GOOD, "key": "00"}), (TWO, {**GOOD, "most": -1}), (TWO, {**GOOD, "most": "5"}),
        (TWO, {**GOOD, "refused": 1.5}), (TWO, {**GOOD, "most": True}),
    ],
)  # fmt: skip
def test_what_cannot_be_a_set_is_refused(hashes: Any, values: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="hosts"):
        Hosts.from_state(hashes, values)


def traffic(seed: int, n: int, hosts: int) -> Packets:
    rng = np.random.default_rng(seed)
    p = packets([(int(a), int(b)) for a, b in rng.integers(1, hosts, (n, 2))])
    p.size[:] = rng.integers(60, 1500, n)
    p.sport[:] = rng.integers(1024, 1030, n)
    return p


def run(spec: ModelSpec, p: Packets) -> list[ScoreBatch]:
    d = build_detector(0, ROOM, [spec])
    return d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1]))) + d.flush()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    d = build_detector(0, ROOM, [kitsune()])
    p = traffic(1, 160, 6)  # as many packets as it learns and calibrates with
    assert d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1]))) is not None
    path = tmp_path_factory.mktemp("bundle") / "k.safetensors"
    path.write_bytes(pack_model(kitsune().kind, d.scorers[0], {}))
    return path


def scoring(path: Path, alerts: str = "all") -> ModelSpec:
    spec = kitsune()
    section = replace(
        spec.section, start=StartConfig(warmup_packets=0), scorer=replace(spec.section.scorer, alerts=alerts)
    )
    return replace(spec, section=section, bundle=BundleFile(path))


def joined(batches: list[ScoreBatch]) -> tuple[Rows, Rows]:
    return np.concatenate([b.rows for b in batches]), np.concatenate([b.scores for b in batches])


@pytest.mark.compiled
def test_a_bundle_knows_the_hosts_it_learned_with(bundle: Path) -> None:
    found, scores = joined(run(scoring(bundle), traffic(2, 300, 9)))
    for side, column in (("a", "known_orig"), ("b", "known_resp")):
        assert (scores[column] == (found[f"{side}_lo"] < (V4 | 6))).all()
    assert of_new_hosts(scores).any()
    assert not of_new_hosts(scores).all()


@pytest.mark.compiled
def test_the_configuration_chooses_which_alarms_alert_and_changes_no_alarm(bundle: Path) -> None:
    p = traffic(2, 400, 9)
    p.size[:] *= 40  # odd in everything
    begins = {}
    for alerts in ("all", "known", "new"):
        _, scores = joined(run(scoring(bundle, alerts), p))
        begins[alerts] = set(np.flatnonzero(scores["begins"]).tolist())
        if alerts == "all":
            alarms, new = scores["alarm"].copy(), of_new_hosts(scores)
        assert (scores["alarm"] == alarms).all()
    assert begins["known"] == {k for k in begins["all"] if not new[k]}
    assert begins["new"] == {k for k in begins["all"] if new[k]}
    assert begins["known"]
    assert begins["new"]


def test_a_bundle_without_hosts_says_nothing_of_them(bundle: Path, tmp_path: Path) -> None:
    old = load(bundle)
    arrays = {name: array for name, array in old.arrays.items() if name != "hosts"}
    config = {name: value for name, value in old.config.items() if name != "hosts"}
    for name in ("known_hosts", "alerts"):
        del config["scorer"][name]
    path = tmp_path / "old.safetensors"
    path.write_bytes(pack(arrays, config, {}, kind="kitsune"))
    _, scores = joined(run(scoring(path), traffic(2, 50, 9)))
    assert (scores["known_orig"] == UNKNOWN).all()
    assert not of_new_hosts(scores).any()


@pytest.mark.parametrize("odd", [np.zeros((3, 3), np.int64), np.zeros(3), np.zeros(70_000, np.int64)])
def test_a_bundle_whose_hosts_cannot_be_is_refused(bundle: Path, tmp_path: Path, odd: Any) -> None:
    old = load(bundle)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(pack({**old.arrays, "hosts": odd}, old.config, {}, kind="kitsune"))
    with pytest.raises(InputError, match="not an intact bundle: hosts"):
        BundleFile(path)
