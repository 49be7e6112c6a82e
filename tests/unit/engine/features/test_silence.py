"""Streams and pairs that were silent for long begin again, unless the public code's rule is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.features.afterimage import FEATURES, AfterImage, AfterImageConfig
from engine.types import Floats, Kind, Packets, empty_packets

SECOND = 10**9
A, B, C = 1, 2, 3
COLUMN = {name: k for k, name in enumerate(FEATURES)}


def packets(rows: list[tuple[float, int, int, int]]) -> Packets:
    """Rows of seconds, sender, receiver, size."""
    p = empty_packets(len(rows))
    for i, (seconds, src, dst, size) in enumerate(rows):
        p.ts[i], p.kind[i], p.proto[i], p.size[i] = int(seconds * SECOND) + SECOND, Kind.IPV4, 17, size
        p.src_lo[i], p.dst_lo[i], p.src_mac[i], p.dst_mac[i] = src, dst, src, dst
        p.sport[i] = p.dport[i] = 53
    return p


def features(rows: list[tuple[float, int, int, int]], config: AfterImageConfig) -> Floats:
    return AfterImage(config).update(packets(rows))


def jitter(x: Floats, rate: str = "0.01") -> list[list[float]]:
    at = [COLUMN[f"HH_jit_{stat}_{rate}"] for stat in ("weight", "mean", "std")]
    found: list[list[float]] = x[:, at].tolist()
    return found


RESTART, PUBLIC = AfterImageConfig(), AfterImageConfig(interarrival="public")


@pytest.mark.parametrize(
    ("gaps", "restarts"),
    [
        ([0.1] * 9 + [60.5, 0.1], [10]),  # longer than ever allowed
        ([0.1] * 9 + [3599.0, 0.1, 0.1], [10]),
        ([0.1] * 9 + [86_400.0, 0.1, 0.1], [11]),  # a second packet must confirm such a leap
        ([0.1] * 9 + [5.5, 0.1], [10]),  # 30 times its mean, and more than 5 s
        ([0.1] * 9 + [4.9, 0.1], []),  # a second of silence is common
        ([1.0] * 9 + [20.0, 1.0], []),  # a slow stream may be slow
        ([59.0] * 5, []),
        ([6.0, 6.0, 6.0], []),  # the first time between packets has no mean before it
        ([70.0] * 4, [1, 2, 3, 4]),  # slower than the bound: never a time between packets
        ([0.1] * 5 + [100.0] + [0.1] * 5 + [100.0], [6, 12]),
    ],
)
def test_a_stream_restarts_after_silence(gaps: list[float], restarts: list[int]) -> None:
    times = np.cumsum([0.0, *gaps])
    rows = [(float(t), A, B, 100) for t in times]
    found = [i for i, row in enumerate(jitter(features(rows, RESTART))) if i and row == [1.0, 0.0, 0.0]]
    assert found == restarts
    assert [1.0, 0.0, 0.0] not in jitter(features(rows, PUBLIC))[1:]


def test_after_silence_a_stream_is_as_if_it_were_new() -> None:
    talk = [(k * 0.2, A, B, 100 + k) for k in range(20)]
    later = [(t + 1000, src, dst, size) for t, src, dst, size in talk]
    at = slice(JIT := COLUMN["HH_jit_weight_5"], JIT + 15)
    both = features([*talk, *later], RESTART)
    assert np.array_equal(both[20:, at], features(later, RESTART)[:, at])
    assert not np.allclose(features([*talk, *later], PUBLIC)[20:, at], both[20:, at])


def test_other_streams_of_a_host_are_not_restarted() -> None:
    rows = [(0.0, A, B, 100), (0.1, A, B, 100), (50.0, A, C, 100), (99.0, A, C, 100), (99.1, A, B, 100)]
    weights = [row[0] for row in jitter(features(rows, RESTART))]
    assert weights[3] > 1.0  # 49 s
    assert weights[4] == 1.0  # 99 s


@pytest.mark.parametrize("back", [True, False])
def test_a_pair_forgets_what_was_said_before_the_silence(back: bool) -> None:
    """Even if the host that speaks first has never sent to the other before."""
    talk = [(0.0, A, B, 100), (0.1, A, B, 900)]
    if back:
        talk += [(0.2, B, A, 500), (0.3, B, A, 50)]
    hello = [(300.0, B, C, 700), (300.1, B, A, 60)]  # a residual of B that is not 0
    cov = COLUMN["HH_cov_0.01"]
    assert features([*talk, *hello], RESTART)[-1, cov] == 0.0
    assert features([*talk, *hello], PUBLIC)[-1, cov] != 0.0


def test_the_last_of_the_rates_gives_the_usual_time_between_packets() -> None:
    gaps = [2.0] * 50 + [0.01] * 30 + [9.0]
    rows = [(float(t), A, B, 100) for t in np.cumsum([0.0, *gaps])]
    assert jitter(features(rows, RESTART))[-1][0] > 1.0  # 9 s is long for the last 30 packets, not for all
    quick = AfterImageConfig(lambdas=(0.01, 0.1, 1.0, 3.0, 5.0))
    assert features(rows, quick)[-1, COLUMN["HH_jit_weight_5"]] == 1.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"interarrival": "no"}, "interarrival 'no' must be restart or public"),
        ({"silence": 0.0}, "silence 0.0 must be > 0"),
        ({"silence": float("nan")}, "silence nan must be > 0"),
        ({"silence_factor": -1.0}, "silence_factor -1.0 must be > 0"),
        ({"silence_floor": float("inf")}, "silence_floor inf must be > 0"),
        ({"silence": 2.0}, "silence_floor 5.0 must be at most silence 2.0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        AfterImageConfig(**values)  # type: ignore[arg-type]


def weights(times: list[float]) -> list[float]:
    found: list[float] = features([(t, A, B, 100) for t in times], RESTART)[
        :, COLUMN["MI_dir_weight_0.1"]
    ].tolist()
    return found


@pytest.mark.parametrize("stray", [-3600.0, 7200.0, 1e9])
def test_one_packet_with_a_wrong_time_changes_no_later_weight(stray: float) -> None:
    times = [float(t) for t in range(60)]
    plain, odd = weights(times), weights([*times[:30], stray, *times[30:]])
    assert plain[-1] == pytest.approx(10 / (1 - 2**-0.1) / 10, rel=0.05)
    assert odd[31:] == pytest.approx([w + 2 ** (-0.1 * k) for k, w in enumerate(plain[30:], 1)], rel=0.1)


@pytest.mark.parametrize("back", [60.0, 3600.0, 1e8])
def test_streams_follow_a_time_that_goes_back_for_good(back: float) -> None:
    times = [1e8 + t for t in range(100)]
    found = weights([*times, *[t - back for t in times]])
    assert found[-1] == pytest.approx(found[99], rel=0.02)
    stuck = AfterImageConfig(interarrival="public")
    rows = [(t, A, B, 100) for t in [*times, *[t - back for t in times]]]
    assert features(rows, stuck)[-1, COLUMN["MI_dir_weight_0.1"]] > 50  # the public rule: no time passes


def test_streams_follow_a_clock_that_was_ahead_at_first() -> None:
    times = [1e9 + t for t in range(20)] + [1e8 + t for t in range(100)]
    assert weights(times)[-1] == pytest.approx(weights([float(t) for t in range(200)])[-1], rel=0.02)
