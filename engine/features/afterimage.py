"""AfterImage: damped statistics of a packet's channels, 100 features (Mirsky et al., NDSS'18, section IV-B).

Four kinds of stream, each with five decay rates; a weight halves in 1/rate seconds:

    MI_dir   source MAC and address      frame size    weight, mean, std
    HH       source host, all its peers  frame size    the same, and with the addressed host radius,
                                                       magnitude, covariance, correlation (pcc)
    HH_jit   source host to destination  time between  weight, mean, std
    HpHp     source socket, all peers    frame size    as HH (ARP: MACs in place of sockets)

A stream that was silent for longer than usual restarts its times between packets: its weight is 0 and the silence is
not taken in. A pair that was silent for long forgets its last residuals, so that a packet is not compared with one
from before the pause. In the public code, both are taken in, and benign traffic looks odd for minutes
(docs/models/kitsune.md).

The names and their order are the public code's, where the feature called std is the *variance*.

Unlike the public code, a packet updates the covariance of the addressed pair only, once. There it does so twice, and
also for every other peer of the host, so a scan costs quadratic time. Thus 80 columns are equal, and the cov and pcc
of HH and HpHp are not. Keys are tuples with the protocol and cannot collide (there, a TCP and a UDP port with one
number share a socket, and an ICMP error is sent by the port it quotes). Tables are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.clock import LATEST, NOW, step
from engine.errors import ConfigError, StateError
from engine.features.damped import add, decay, elapsed, finish, forget, forget_pair, relate
from engine.features.streams import (
    ENDPOINT,
    ENDPOINTS_PAIR,
    EVICTED,
    FLOWS,
    HOST,
    HOSTS_PAIR,
    JIT,
    LANES,
    LAYER_ARP,
    LAYER_IP,
    LAYER_LINK,
    LIVE,
    MAC,
    MEAN,
    NOBODY,
    PACKETS,
    PAIRS,
    PAIRS_A_FLOW,
    STREAMS,
    STREAMS_A_FLOW,
    USED,
    Tables,
    find_flow,
    flow_hash,
    full,
    make_room,
    new_tables,
    open_flow,
    reindex,
)
from engine.kernels import allocating, kernel
from engine.types import ICMP, ICMP6, KIND_FRAGMENT, KIND_MASK, Floats, Kind, Packets, as_bytes, from_bytes

UNREAD, ARP, LINK = int(Kind.UNREAD), int(Kind.ARP), int(Kind.LINK)

CHUNK = 64  # packets taken through the stages together; 64 * 30 factors stay in the first cache
# records of a packet, in the order of their time stamps in a chunk
MAC_R, HOST_R, JITTER_R, ENDPOINT_R, HOSTS_R, ENDPOINTS_R, PEER_R, PEER_ENDPOINT_R = range(8)
STAMPED = 6  # peers are only read: decay changes neither mean nor variance
# columns: MI_dir 3, HH 7, HH_jit 3, HpHp 7 statistics a rate
MI_AT, HH_AT, JIT_AT, HPHP_AT = 0, 15, 50, 65

FLOOR, ALWAYS, FACTOR = range(3)  # AfterImageConfig.silences
LONGEST = 1e9  # greatest value of a silence

_0, _16 = np.uint64(0), np.uint64(16)


def feature_names(lambdas: tuple[float, ...]) -> tuple[str, ...]:
    """Names of the columns for the given rates."""
    one = ("weight", "mean", "std")
    two = (*one, "radius", "magnitude", "cov", "pcc")
    blocks = (("MI_dir", one), ("HH", two), ("HH_jit", one), ("HpHp", two))
    return tuple(f"{block}_{stat}_{rate:g}" for block, stats in blocks for rate in lambdas for stat in stats)


@dataclass(frozen=True, slots=True)
class AfterImageConfig:
    """Decay rates per second, and the bound of memory.

    A flow takes about 790 bytes when all are in use, 0.2 GiB for the default. If every packet has new hosts, the
    tables of records are full sooner, at about a third of the flows.
    """

    lambdas: tuple[float, ...] = (5.0, 3.0, 1.0, 0.1, 0.01)  # decay rates in 1/s: a weight halves in 1/λ s
    flows: int = 1 << 18  # most connections remembered in a partition (both directions count as one)
    hash_seed: int = 0  # seed of the hashes, changes no feature; a secret one prevents chosen collisions
    interarrival: Literal["restart", "public"] = "restart"  # silence: restart a stream, or take it in
    silence: float = 60.0  # seconds without a packet after which a stream always restarts
    silence_factor: float = 30.0  # multiple of a stream's mean time between packets after which it restarts
    silence_floor: float = 5.0  # least seconds without a packet for that; at most silence

    def __post_init__(self) -> None:
        if len(self.lambdas) != LANES:
            raise ConfigError(f"lambdas has {len(self.lambdas)} decay rates, must have {LANES}")
        for rate in self.lambdas:
            if not 0 < rate < math.inf:
                raise ConfigError(f"decay rate {rate} must be > 0 and finite")
        if not 1 <= self.flows <= 1 << 28:
            raise ConfigError(f"flows {self.flows} must be between 1 and {1 << 28}")
        if not 0 <= self.hash_seed < 1 << 64:
            raise ConfigError(f"hash_seed {self.hash_seed} must be between 0 and 2**64 - 1")
        if self.interarrival not in ("restart", "public"):
            raise ConfigError(f"interarrival {self.interarrival!r} must be restart or public")
        for name in ("silence", "silence_factor", "silence_floor"):
            if not 0 < getattr(self, name) <= LONGEST:
                raise ConfigError(f"{name} {getattr(self, name)} must be > 0 and at most {LONGEST:g}")
        if self.silence_floor > self.silence:
            raise ConfigError(f"silence_floor {self.silence_floor} must be at most silence {self.silence}")

    @property
    def silences(self) -> Floats:
        """(3,) least seconds of silence that can restart a stream, those that always do, and the factor of its mean."""
        if self.interarrival == "public":
            return np.full(3, np.inf)
        return np.array([self.silence_floor, self.silence, self.silence_factor])

    @property
    def streams(self) -> int:
        """Capacity of one-dimensional records: a connection between known hosts adds one or two."""
        return self.flows * 5 // 2 + STREAMS_A_FLOW

    @property
    def pairs(self) -> int:
        """Capacity of pair records: a connection between known hosts adds one."""
        return self.flows * 5 // 4 + PAIRS_A_FLOW


FEATURES = feature_names(AfterImageConfig().lambdas)


class Chunk(NamedTuple):
    """Intermediate results for up to CHUNK packets."""

    keys: NDArray[np.uint64]  # (CHUNK, 7) key of the flow
    side: NDArray[np.int64]  # (CHUNK,) end of the flow that sent the packet
    hashes: NDArray[np.uint64]  # (CHUNK,)
    ids: NDArray[
        np.int64
    ]  # (CHUNK, 8) rows of the packet's records; the first is -1 if the packet has no features
    gap: Floats  # (CHUNK, 6) seconds since the last packet of each record
    x: Floats  # (CHUNK, 6, LANES) exponents, then decay factors
    joint: Floats  # (6, CHUNK * 2 * LANES) moments of the packet's two pairs
    results: Floats  # (4, CHUNK * 2 * LANES) statistics of them
    victim: NDArray[np.uint64]  # (7,) key of a flow being evicted


@kernel
def sort_ends(p: Packets, start: int, keys: NDArray[np.uint64], side: NDArray[np.int64]) -> None:
    """Write the keys of the flows of side.size packets. keys: (n, 7) smaller end first, in FLOW's order.

    side: (n,) 0 when the sender is the smaller end, else 1. Which end that is cannot be predicted, so it is computed
    without a branch, for all packets before the first look-up.
    """
    for j in range(side.size):
        i = start + j
        kind = p.kind[i] & KIND_MASK
        a_hi, a_lo, b_hi, b_lo = p.src_hi[i], p.src_lo[i], p.dst_hi[i], p.dst_lo[i]
        a_mac, b_mac = p.src_mac[i] << _16, p.dst_mac[i] << _16
        layer = LAYER_IP
        if kind == ARP:
            layer = LAYER_ARP
        elif kind == LINK:
            layer = LAYER_LINK
            a_hi, a_lo, b_hi, b_lo = _0, p.src_mac[i], _0, p.dst_mac[i]
        elif not (
            p.kind[i] & KIND_FRAGMENT or p.proto[i] == ICMP or p.proto[i] == ICMP6
        ):  # type and code: no ports
            a_mac |= np.uint64(p.sport[i])
            b_mac |= np.uint64(p.dport[i])
        swap = (a_lo > b_lo) | ((a_lo == b_lo) & ((a_hi > b_hi) | ((a_hi == b_hi) & (a_mac > b_mac))))
        side[j] = swap
        at = np.int64(swap) * 3
        key = keys[j]
        key[at] = a_hi
        key[at + 1] = a_lo
        key[at + 2] = a_mac
        key[3 - at] = b_hi
        key[4 - at] = b_lo
        key[5 - at] = b_mac
        key[6] = np.uint64(layer << 8) | np.uint64(p.proto[i])


@kernel
def resolve(t: Tables, p: Packets, start: int, c: Chunk) -> int:
    """Find the records of up to CHUNK packets, opening flows; gives the first packet left out.

    Stops early when a flow must be evicted: the packets before it still have to be added to its records.
    """
    n = min(CHUNK, p.ts.size - start)
    ids, records = c.ids, t.records
    sort_ends(p, start, c.keys, c.side[:n])
    for j in range(n):
        c.hashes[j] = flow_hash(t.seed[0], c.keys[j])
    for j in range(n):
        if p.kind[start + j] & KIND_MASK == UNREAD:
            ids[j, 0] = -1
            continue
        row = find_flow(t, c.hashes[j], c.keys[j])
        if row < 0:
            if full(t, 1):
                if j > 0:
                    return start + j
                make_room(t, c.victim)
            row = open_flow(t, c.hashes[j], c.keys[j])
        t.flows[row]["seen"] = t.registers[PACKETS]
        t.registers[PACKETS] += 1
        a = c.side[j]
        b = 1 - a
        host, peer = records[row, HOST + a], records[row, HOST + b]
        endpoint, peer_endpoint = records[row, ENDPOINT + a], records[row, ENDPOINT + b]
        ids[j, MAC_R] = records[row, MAC + a]
        ids[j, HOST_R] = host
        ids[j, JITTER_R] = records[row, JIT + a]
        ids[j, ENDPOINT_R] = endpoint
        ids[j, HOSTS_R] = records[row, HOSTS_PAIR]
        ids[j, ENDPOINTS_R] = records[row, ENDPOINTS_PAIR]
        ids[j, PEER_R] = peer if peer != host else NOBODY
        ids[j, PEER_ENDPOINT_R] = peer_endpoint if peer_endpoint != endpoint else NOBODY
    return start + n


@kernel
def stamp(t: Tables, ts: NDArray[np.int64], rates: Floats, follow: bool, c: Chunk) -> None:
    """Write each record's dt to c.gap and its exponent -rate * dt to c.x.

    follow: whether records follow event time (engine/clock.py). Then a time far ahead that is not confirmed counts as
    event time, since one wrong stamp must not let weights decay; and records go back with it. The public code takes
    each time as it comes.
    """
    ids, x, gap, stream_ts, pair_ts = c.ids, c.x, c.gap, t.stream_ts, t.pair_ts
    for i in range(ts.size):
        if ids[i, 0] < 0:
            x[i] = 0.0
            continue
        at: Any = ts[i]
        now: Any = np.int64(LATEST)
        if follow:
            step(t.clock, at)
            now = t.clock[NOW]
            at = min(at, now)
        for r in range(STAMPED):
            dt = elapsed(stream_ts if r < HOSTS_R else pair_ts, ids[i, r], at, now)
            gap[i, r] = dt
            for k in range(LANES):
                x[i, r, k] = -rates[k] * dt


@kernel
def advance(t: Tables, size: NDArray[np.uint32], silences: Floats, c: Chunk, out: Floats) -> None:
    """Add each packet to its records, in order, and write its features. silences: AfterImageConfig's."""
    streams, pairs, ids, x, gap = t.streams, t.pairs, c.ids, c.x, c.gap
    for i in range(size.size):
        if ids[i, 0] < 0:
            for k in range(out.shape[1]):
                out[i, k] = np.nan
            continue
        value = float(size[i])
        host, endpoint = ids[i, HOST_R], ids[i, ENDPOINT_R]
        peer, peer_endpoint = ids[i, PEER_R], ids[i, PEER_ENDPOINT_R]
        add(streams, ids[i, MAC_R], x, i, MAC_R, value, out, MI_AT, 3)
        add(streams, host, x, i, HOST_R, value, out, HH_AT, 7)
        between = gap[i, JITTER_R]
        if between > silences[FLOOR]:
            usual = (
                silences[FACTOR] * streams[ids[i, JITTER_R], MEAN + LANES - 1]
            )  # 0 before the second packet
            if between > silences[ALWAYS] or 0.0 < usual < between:
                forget(streams, ids[i, JITTER_R])
                between = 0.0
        for r in range(HOSTS_R, STAMPED):
            if gap[i, r] > silences[ALWAYS]:
                forget_pair(pairs, ids[i, r])
        add(streams, ids[i, JITTER_R], x, i, JITTER_R, between, out, JIT_AT, 3)
        add(streams, endpoint, x, i, ENDPOINT_R, value, out, HPHP_AT, 7)
        side, row = host > peer, ids[i, HOSTS_R]
        relate(streams, pairs, row, peer, side, x, i, HOSTS_R, value, out, HH_AT, c.joint, 2 * LANES * i)
        side = endpoint > peer_endpoint
        row = ids[i, ENDPOINTS_R]
        first = LANES * (2 * i + 1)
        relate(
            streams, pairs, row, peer_endpoint, side, x, i, ENDPOINTS_R, value, out, HPHP_AT, c.joint, first
        )
    n, results = size.size, c.results
    finish(c.joint, n * 2 * LANES, results)
    for i in range(n):
        if ids[i, 0] < 0:
            continue
        for k in range(LANES):
            e, at = 2 * LANES * i + k, 7 * k + 3
            for q in range(4):
                out[i, HH_AT + at + q] = results[q, e]
                out[i, HPHP_AT + at + q] = results[q, e + LANES]


@allocating
def extract(t: Tables, p: Packets, rates: Floats, silences: Floats, out: Floats) -> None:
    """Write the features of n packets and change the tables. out: (n, 100); NaN where a packet is unread.

    Stages over CHUNK packets: records, time stamps, all decay factors at once, statistics. The stages exist for the
    factors: thirty a packet, computed in one loop over the chunk.
    """
    c = Chunk(
        np.empty((CHUNK, 7), np.uint64),
        np.empty(CHUNK, np.int64),
        np.empty(CHUNK, np.uint64),
        np.empty((CHUNK, 8), np.int64),
        np.empty((CHUNK, STAMPED)),
        np.zeros((CHUNK, STAMPED, LANES)),
        np.ones((6, CHUNK * 2 * LANES)),
        np.empty((4, CHUNK * 2 * LANES)),
        np.empty(7, np.uint64),
    )
    x = c.x.reshape(-1)
    start = 0
    while start < p.ts.size:
        stop = resolve(t, p, start, c)
        stamp(t, p.ts[start:stop], rates, silences[ALWAYS] < np.inf, c)
        decay(x[: (stop - start) * STAMPED * LANES])
        advance(t, p.size[start:stop], silences, c, out[start:stop])
        start = stop


class AfterImage:
    """The statistics of one stream of packets. Cutting it into other blocks changes no feature."""

    def __init__(self, config: AfterImageConfig) -> None:
        self.config = config
        self._rates, self._silences = np.array(config.lambdas, np.float64), config.silences
        self.tables = new_tables(config.flows, config.streams, config.pairs, config.hash_seed)

    def update(self, p: Packets, out: Floats | None = None) -> Floats:
        """Features of p, (n, 100); row i is packet i, NaN where its kind is UNREAD. Changes the state.

        ``out``: an array of that shape for the features, for callers that need them only until the next call.
        """
        if out is None:
            out = np.empty((p.ts.size, 20 * LANES))
        if any(column.flags.writeable for column in p):
            p = Packets._make(_frozen(column) for column in p)
        with np.errstate(over="ignore"):  # hashes wrap; numpy would warn when the kernels run uncompiled
            extract(self.tables, p, self._rates, self._silences, out)
        return out

    @property
    def flows(self) -> int:
        """Connections remembered now."""
        return int(self.tables.counts[LIVE, FLOWS])

    @property
    def evicted(self) -> int:
        """Connections evicted because the tables were full, since the start."""
        return int(self.tables.registers[EVICTED])

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all state that later features depend on; plain arrays, rows as bytes."""
        t = self.tables
        used = t.counts[USED]
        return {
            "flows": as_bytes(t.flows[: used[FLOWS]]),
            "records": t.records[: used[FLOWS]].copy(),
            "streams": t.streams[: used[STREAMS]].copy(),
            "stream_keys": as_bytes(t.stream_keys[: used[STREAMS]]),
            "pairs": t.pairs[: used[PAIRS]].copy(),
            "pair_keys": as_bytes(t.pair_keys[: used[PAIRS]]),
            "counts": t.counts.copy(),
            "registers": t.registers.copy(),
            "clock": t.clock.copy(),
        }

    @classmethod
    def from_state(cls, config: AfterImageConfig, state: Mapping[str, NDArray[Any]]) -> AfterImage:
        """An object that continues from `state`; StateError when the state does not fit the configuration."""
        self = cls(config)
        t = self.tables
        for name, rows in t._asdict().items():
            if name not in state:
                continue
            saved = state[name]
            if rows.dtype.names:
                saved = from_bytes(saved, rows.dtype)
            if saved.shape[0] > rows.shape[0] or saved.shape[1:] != rows.shape[1:]:
                raise StateError(
                    f"state {name} has shape {saved.shape}, the configuration allows {rows.shape}"
                )
            rows[: saved.shape[0]] = saved
        with np.errstate(over="ignore"):
            reindex(t, np.empty(7, np.uint64))
        return self


def _frozen(column: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: numba treats a writable array as another type and would compile again."""
    view = np.ascontiguousarray(column).view()
    view.flags.writeable = False
    return view
