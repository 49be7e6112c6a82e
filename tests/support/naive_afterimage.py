"""AfterImage from the definition: each weight a sum over all earlier packets, nothing decayed in steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from engine.features.afterimage import AfterImageConfig
from engine.types import KIND_FRAGMENT, KIND_MASK, Floats, Kind, Packets

Key = tuple[Hashable, ...]


class Log:
    """Times and values of one stream, or times and products of residuals of one pair."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: list[list[float]] = []  # a value for each rate

    def add(self, ts: int, values: list[float]) -> None:
        """An older packet counts as simultaneous with the newest."""
        self.times.append(max(ts, self.times[-1]) if self.times else ts)
        self.values.append(values)

    def weights(self, rate: float) -> Floats:
        """Of each entry, at the time of the last."""
        return np.array([2.0 ** (-rate * ((self.times[-1] - t) * 1e-9)) for t in self.times])

    def statistics(self, k: int, rate: float) -> tuple[float, float, float]:
        """Weight, mean and variance."""
        if not self.times:
            return 0.0, 0.0, 0.0
        w, x = self.weights(rate), np.array([values[k] for values in self.values])
        mean = (w * x).sum() / w.sum()
        return w.sum(), mean, (w * (x - mean) ** 2).sum() / w.sum()


def keys(p: Packets, i: int) -> tuple[Key, Key, Key, Key, int, int]:
    """Hosts and endpoints of both ends, and both MACs."""
    kind = p.kind[i] & KIND_MASK
    macs = int(p.src_mac[i]), int(p.dst_mac[i])
    src, dst = (p.src_hi[i], p.src_lo[i]), (p.dst_hi[i], p.dst_lo[i])
    if kind == Kind.LINK:
        return ("mac", macs[0]), ("mac", macs[1]), ("mac", macs[0]), ("mac", macs[1]), *macs
    if kind == Kind.ARP:
        return ("ip", *src), ("ip", *dst), ("mac", macs[0]), ("mac", macs[1]), *macs
    ports: tuple[int, int] = int(p.sport[i]), int(p.dport[i])
    if p.proto[i] in (1, 58) or p.kind[i] & KIND_FRAGMENT:
        ports = 0, 0
    return ("ip", *src), ("ip", *dst), (*src, p.proto[i], ports[0]), (*dst, p.proto[i], ports[1]), *macs


def naive(p: Packets, config: AfterImageConfig) -> Floats:
    """The 100 features of each packet."""
    rates = config.lambdas
    streams: dict[Key, Log] = defaultdict(Log)
    pairs: dict[frozenset[Key], Log] = defaultdict(Log)
    residuals: dict[tuple[Key, Key], list[float]] = {}  # of the last packet from one to the other
    out = np.full((p.ts.size, 100), np.nan)
    for i in range(p.ts.size):
        if p.kind[i] & KIND_MASK == Kind.UNREAD:
            continue
        ts, size = int(p.ts[i]), float(p.size[i])
        src, dst, endpoint, other, mac, _ = keys(p, i)
        jitter = streams["jitter", src, dst]
        gap = max(0, ts - jitter.times[-1]) * 1e-9 if jitter.times else 0.0
        if config.interarrival == "restart" and silent(jitter, gap, config):
            jitter.times, jitter.values, gap = [], [], 0.0
        jitter.add(ts, [gap] * 5)
        for stream in (streams["mi", mac, src], streams["h", src], streams["e", endpoint]):
            stream.add(ts, [size] * 5)
        out[i, :15] = one(streams["mi", mac, src], rates)
        out[i, 50:65] = one(jitter, rates)
        for at, a, b in ((15, ("h", src), ("h", dst)), (65, ("e", endpoint), ("e", other))):
            out[i, at : at + 35] = two(streams, pairs, residuals, a, b, ts, size, config)
    return out


def silent(jitter: Log, gap: float, config: AfterImageConfig) -> bool:
    """Whether a stream was silent for longer than ever allowed, or much longer than usual."""
    if gap <= config.silence_floor:
        return False
    mean = jitter.statistics(4, config.lambdas[4])[1]
    return gap > config.silence or (mean > 0 and gap > config.silence_factor * mean)


def one(stream: Log, rates: tuple[float, ...]) -> Floats:
    return np.array([stream.statistics(k, rate) for k, rate in enumerate(rates)]).ravel()


def two(
    streams: dict[Key, Log], pairs: dict[frozenset[Key], Log], residuals: dict[tuple[Key, Key], list[float]],
    a: Key, b: Key, ts: int, size: float, config: AfterImageConfig,
) -> NDArray[np.float64]:  # fmt: skip
    """Adds the packet to the pair's log; statistics of a, and of a with b."""
    rates = config.lambdas
    mine = [streams[a].statistics(k, rate) for k, rate in enumerate(rates)]
    theirs = [streams[b].statistics(k, rate) if a != b else (0.0, 0.0, 0.0) for k, rate in enumerate(rates)]
    last = residuals.get((b, a), [0.0] * 5) if a != b else [0.0] * 5
    pair = pairs[frozenset((a, b))]
    if config.interarrival == "restart" and pair.times and (ts - pair.times[-1]) * 1e-9 > config.silence:
        pair.times, pair.values, last = [], [], [0.0] * 5
        residuals.pop((b, a), None)
    residuals[a, b] = [size - mean for _, mean, _ in mine]
    pair.add(ts, [residuals[a, b][k] * last[k] for k in range(5)])
    rows = []
    for k, rate in enumerate(rates):
        (w, mean, var), (_, other_mean, other_var) = mine[k], theirs[k]
        cov = pair.statistics(k, rate)[1]
        pcc = cov / np.sqrt(var * other_var) if var * other_var > 1e-24 else 0.0
        rows.append([w, mean, var, np.hypot(var, other_var), np.hypot(mean, other_mean), cov, pcc])
    return np.array(rows).ravel()
