"""What AfterImage keeps: keys, references, capacity and eviction; and what one packet may touch."""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
import pytest

from engine.errors import ConfigError, StateError
from engine.features.afterimage import FEATURES, AfterImage, AfterImageConfig, feature_names
from engine.features.streams import (
    DEAD,
    FLOWS,
    HAND,
    LIVE,
    PAIRS,
    STREAMS,
    USED,
    find_flow,
    find_key,
    flow_hash,
    key_hash,
)  # fmt: skip
from engine.types import KIND_FRAGMENT, Floats, Kind, Packets, concatenate, empty_packets

TCP, UDP, ICMP = 6, 17, 1
COLUMN = {name: k for k, name in enumerate(FEATURES)}


def packet(
    src: str, dst: str, sport: int = 0, dport: int = 0, *, proto: int = TCP, **columns: int
) -> Packets:
    """One packet; columns: others than the addresses."""
    p = empty_packets(1)
    p.kind[0], p.proto[0], p.sport[0], p.dport[0], p.size[0] = Kind.IPV4, proto, sport, dport, 60
    p.src_lo[0], p.dst_lo[0] = 0xFFFF << 32 | int(ip_address(src)), 0xFFFF << 32 | int(ip_address(dst))
    for name, value in columns.items():
        getattr(p, name)[0] = value
    return p


def flood(n: int, seed: int, hosts: int = 1 << 16) -> Packets:
    """n packets between hosts that hardly ever meet twice."""
    rng = np.random.default_rng(seed)
    p = empty_packets(n)
    p.kind[:], p.proto[:], p.size[:] = Kind.IPV4, TCP, 60
    p.ts[:] = np.arange(n) * 1_000
    p.src_lo[:], p.dst_lo[:] = rng.integers(0, hosts, (2, n))
    p.sport[:], p.dport[:] = 1 + rng.permutation(65_535)[:n], 443
    return p


def value(features: Floats, name: str) -> float:
    return float(features[-1, COLUMN[name]])


def test_there_are_100_features_in_the_public_codes_order() -> None:
    assert len(set(FEATURES)) == len(FEATURES) == 100
    assert FEATURES[0] == "MI_dir_weight_5"
    assert FEATURES[14:16] == ("MI_dir_std_0.01", "HH_weight_5")
    assert FEATURES[49:51] == ("HH_pcc_0.01", "HH_jit_weight_5")
    assert FEATURES[64:66] == ("HH_jit_std_0.01", "HpHp_weight_5")
    assert FEATURES[-1] == "HpHp_pcc_0.01"


def test_an_address_and_port_written_together_are_not_another_pair() -> None:
    """The public code's keys: "10.0.0.1" + "180" == "10.0.0.11" + "80"."""
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.9", 180, 443))
    features = state.update(packet("10.0.0.11", "10.0.0.9", 80, 443))
    assert value(features, "HpHp_weight_5") == 1
    assert value(features, "HH_weight_5") == 1
    assert value(state.update(packet("10.0.0.1", "10.0.0.9", 80, 443)), "HpHp_weight_5") == 1


def test_tcp_and_udp_sockets_of_one_number_are_apart() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.2", 53, 53, proto=UDP))
    features = state.update(packet("10.0.0.1", "10.0.0.2", 53, 53, proto=TCP))
    assert (value(features, "HpHp_weight_5"), value(features, "HH_weight_5")) == (1, 2)


def test_icmp_types_are_no_ports() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.2", 8, 0, proto=ICMP))
    features = state.update(packet("10.0.0.1", "10.0.0.2", 3, 1, proto=ICMP))
    assert value(features, "HpHp_weight_5") == 2
    assert state.flows == 1


def test_fragments_without_ports_share_port_0() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.2", 0, 0, proto=UDP))
    kind = Kind.IPV4 | KIND_FRAGMENT
    features = state.update(packet("10.0.0.1", "10.0.0.2", 7, 9, proto=UDP, kind=kind))
    assert value(features, "HpHp_weight_5") == 2


def test_with_arp_hosts_are_addresses_and_endpoints_macs() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.2", proto=0, kind=Kind.ARP, src_mac=1, dst_mac=2))
    features = state.update(packet("10.0.0.3", "10.0.0.2", proto=0, kind=Kind.ARP, src_mac=1, dst_mac=2))
    assert (value(features, "HH_weight_5"), value(features, "HpHp_weight_5")) == (1, 2)
    features = state.update(packet("10.0.0.3", "10.0.0.2", 1, 1))
    assert (value(features, "HH_weight_5"), value(features, "HpHp_weight_5")) == (2, 1)


def test_without_a_network_layer_macs_are_the_hosts_and_never_meet_an_address() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    link = packet("0.0.0.0", "0.0.0.0", proto=0, kind=Kind.LINK, src_mac=1, dst_mac=2)
    assert value(state.update(link), "HH_weight_5") == 1
    six = packet("0.0.0.0", "0.0.0.0", proto=0, kind=Kind.IPV6, src_lo=1, dst_lo=2)  # ::1 to ::2
    assert value(state.update(six), "HH_weight_5") == 1
    assert value(state.update(link), "HH_weight_5") == 2


def test_an_unread_packet_has_no_features_and_leaves_no_trace() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.2", 1, 2))
    before = state.state()
    features = state.update(packet("10.0.0.1", "10.0.0.2", 1, 2, kind=Kind.UNREAD))
    assert np.isnan(features).all()
    for name, array in state.state().items():
        assert array.tobytes() == before[name].tobytes(), name


def test_who_writes_to_himself_has_no_peer() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(packet("10.0.0.1", "10.0.0.1", 7, 7))
    features = state.update(packet("10.0.0.1", "10.0.0.1", 7, 7, size=100))
    for block in ("HH", "HpHp"):
        assert value(features, f"{block}_radius_1") == value(features, f"{block}_std_1") == 400
        assert value(features, f"{block}_magnitude_1") == value(features, f"{block}_mean_1") == 80
        assert value(features, f"{block}_cov_1") == value(features, f"{block}_pcc_1") == 0


def test_a_time_stamp_at_either_end_of_the_range_breaks_nothing() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    for ts in (-(2**63), -(2**63) + 1, 0, 2**63 - 1, 5):
        features = state.update(packet("10.0.0.1", "10.0.0.2", 1, 2, ts=ts))
        assert np.isfinite(features).all()
        assert (features[:, COLUMN["MI_dir_weight_0.01"]] >= 1).all()


def test_a_damaged_jump_in_time_is_no_growth() -> None:
    public = AfterImageConfig(flows=64, interarrival="public")  # it believes every time at once
    for config, weights in ((public, [1, 2]), (AfterImageConfig(flows=64), [2, 1])):
        state = AfterImage(config)
        state.update(packet("10.0.0.1", "10.0.0.2", 1, 2, ts=-(2**63) + 1))
        for weight in weights:
            features = state.update(packet("10.0.0.1", "10.0.0.2", 1, 2, ts=2**63 - 1))
            assert value(features, "MI_dir_weight_0.01") == weight


def test_flows_stay_within_capacity_and_the_rest_are_counted() -> None:
    state = AfterImage(AfterImageConfig(flows=100))
    state.update(flood(1_000, seed=1, hosts=4))
    assert state.flows == 100
    assert state.evicted == 900


def test_every_table_is_bounded_when_all_hosts_are_new() -> None:
    config = AfterImageConfig(flows=128)
    state = AfterImage(config)
    state.update(flood(1_000, seed=2))
    live = state.tables.counts[LIVE]
    assert live[FLOWS] == state.flows == 1_000 - state.evicted
    assert live[STREAMS] <= config.streams
    assert live[PAIRS] <= config.pairs
    assert config.streams // 8 - 2 <= state.flows <= config.streams // 8  # eight records each: nothing shared


def test_memory_of_a_scan_is_flat() -> None:
    state = AfterImage(AfterImageConfig(flows=256))
    state.update(flood(1_000, seed=3))
    used = state.tables.counts[USED].copy()
    state.update(flood(3_000, seed=4))
    assert np.array_equal(state.tables.counts[USED], used)


def test_a_busy_flow_outlives_a_flood_of_new_ones() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    busy = packet("10.0.0.1", "10.0.0.2", 1, 2)
    for i in range(200):
        state.update(flood(10, seed=i, hosts=4))
        features = state.update(busy)
    assert value(features, "HpHp_weight_0.01") == pytest.approx(200, rel=1e-6)  # all at one time
    assert state.evicted > 1_000


def test_the_flow_seen_longest_ago_goes_first() -> None:
    state = AfterImage(AfterImageConfig(flows=8))
    for port in range(1, 9):
        state.update(packet("10.0.0.1", "10.0.0.2", port, 9))
    state.update(packet("10.0.0.1", "10.0.0.2", 1, 9))  # now flow 2 is the oldest
    state.update(packet("10.0.0.1", "10.0.0.2", 100, 9))
    again = state.update(packet("10.0.0.1", "10.0.0.2", 1, 9))
    assert value(again, "HpHp_weight_5") == 3
    assert state.evicted == 1
    assert value(state.update(packet("10.0.0.1", "10.0.0.2", 2, 9)), "HpHp_weight_5") == 1


def test_what_a_flow_shared_stays_when_it_goes() -> None:
    state = AfterImage(AfterImageConfig(flows=8))
    for port in range(1, 50):
        features = state.update(packet("10.0.0.1", "10.0.0.2", port, 9))
    assert state.evicted == 41
    assert value(features, "HH_weight_5") == 49
    assert value(features, "HpHp_weight_5") == 1


def test_references_and_indices_fit_the_flows_after_any_eviction() -> None:
    state = AfterImage(AfterImageConfig(flows=150))
    for seed, hosts in ((5, 6), (6, 40), (7, 10_000), (8, 12)):
        state.update(flood(700, seed, hosts))
        with np.errstate(over="ignore"):
            hold_together(state)


def hold_together(state: AfterImage) -> None:
    """Counts references anew and looks every key up."""
    t = state.tables
    live = np.flatnonzero(t.flows["seen"][: t.counts[USED, FLOWS]] != DEAD)
    assert live.size == t.counts[LIVE, FLOWS]
    refs = np.bincount(t.records[live, :8].ravel(), minlength=t.stream_keys.size)
    assert np.array_equal(refs, t.stream_keys["refs"])
    assert np.count_nonzero(refs) == t.counts[LIVE, STREAMS]
    refs = np.bincount(t.records[live, 8:].ravel(), minlength=t.pair_keys.size)
    assert np.array_equal(refs, t.pair_keys["refs"])
    assert np.count_nonzero(refs) == t.counts[LIVE, PAIRS]
    for row in live:
        e = np.array([t.flows[row][name] for name in (t.flows.dtype.names or ())[:7]], np.uint64)
        assert find_flow(t, np.uint64(flow_hash(t.seed[0], e)), e) == row
    for slots, keys in ((t.stream_slots, t.stream_keys), (t.pair_slots, t.pair_keys)):
        rows = np.flatnonzero(keys["refs"] > 0)
        assert np.count_nonzero(slots) == rows.size
        for row in rows:
            a, b, tag = keys[row]["a"], keys[row]["b"], keys[row]["tag"]
            assert find_key(slots, keys, np.uint64(key_hash(t.seed[0], a, b, tag)), a, b, tag) == row


def test_a_packet_touches_four_streams_and_two_pairs_however_many_peers_there_are() -> None:
    """The public code goes through all peers of a host: quadratic under a scan."""
    for peers in (10, 1_000):
        state = AfterImage(AfterImageConfig(flows=2_000))
        scanned = [f"10.1.{i >> 8}.{i & 255}" for i in range(peers)]
        state.update(concatenate([packet("10.0.0.1", host, 1, 80) for host in scanned]))
        state.update(concatenate([packet(host, "10.0.0.1", 80, 1) for host in scanned]))
        before = state.state()
        state.update(packet("10.0.0.1", "10.1.0.3", 1, 80, ts=1))
        after = state.state()
        changed = {
            name: int((before[name] != after[name]).any(axis=1).sum()) for name in ("streams", "pairs")
        }
        assert changed == {"streams": 4, "pairs": 2}


def test_a_scanned_port_costs_the_same_records_each_time() -> None:
    state = AfterImage(AfterImageConfig(flows=2_000))
    rows = []
    for port in range(1, 1_001):
        state.update(packet("10.0.0.1", "10.0.0.2", 40_000, port))
        rows.append(state.tables.counts[LIVE].copy())
    assert (np.diff(rows, axis=0) == [1, 1, 1]).all()


def test_eviction_looks_at_a_fixed_number_of_flows() -> None:
    state = AfterImage(AfterImageConfig(flows=1_024))
    state.update(flood(1_024, seed=9, hosts=8))
    assert (state.evicted, state.tables.registers[HAND]) == (0, 0)
    state.update(packet("10.0.0.1", "10.0.0.2", 1, 2))
    assert (state.evicted, state.tables.registers[HAND]) == (
        16,
        128,
    )  # room for 16, eight looked at for each


def test_a_state_of_a_larger_table_is_refused() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(flood(64, seed=10, hosts=4))
    with pytest.raises(StateError, match="state flows"):
        AfterImage.from_state(AfterImageConfig(flows=16), state.state())


def test_a_state_is_a_copy() -> None:
    state = AfterImage(AfterImageConfig(flows=64))
    state.update(flood(30, seed=11))
    kept = state.state()
    same = {name: array.copy() for name, array in kept.items()}
    state.update(flood(30, seed=12))
    assert all(np.array_equal(kept[name], same[name]) for name in kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lambdas": (1.0,)}, {"lambdas": (5.0, 3.0, 1.0, 0.1, 0.0)},
        {"lambdas": (5.0, 3.0, 1.0, float("nan"), 1.0)},
        {"flows": 0}, {"hash_seed": -1},
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).rstrip("s").replace("lambda", "decay rate")):
        AfterImageConfig(**wrong)  # type: ignore[arg-type]


def test_other_rates_give_other_names_and_weights() -> None:
    rates = (10.0, 2.0, 0.5, 0.25, 0.001)
    assert feature_names(rates)[7] == "MI_dir_mean_0.5"
    state = AfterImage(AfterImageConfig(lambdas=rates))
    state.update(packet("10.0.0.1", "10.0.0.2"))
    features = state.update(packet("10.0.0.1", "10.0.0.2", ts=2_000_000_000))
    assert features[0, :15:3] == pytest.approx([1 + 0.5 ** (2 * rate) for rate in rates], rel=1e-15)
