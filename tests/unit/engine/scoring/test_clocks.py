"""A bundle's alarms where the clock of a capture was wrong for a while, or is set back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.features.afterimage import AfterImageConfig
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.kinds import KINDS
from engine.scoring.start import StartConfig
from engine.types import PacketBlock, Packets, empty_packets
from tests.support.conversation import T0
from tests.support.detectors import ROOM, kitsune

pytestmark = pytest.mark.compiled

SECOND = 10**9
HOUR = 3600 * SECOND
V4 = 0xFFFF << 32


def questions(n: int, seed: int) -> Packets:
    """n questions of three hosts to one server, each with its answer, a second or so apart."""
    rng = np.random.default_rng(seed)
    p = empty_packets(2 * n)
    host = rng.integers(1, 4, n)
    at = T0 + np.cumsum(rng.exponential(0.5, n) * SECOND).astype(np.int64)
    port = rng.integers(32_768, 60_000, n)
    for k, (a, b) in enumerate((("src", "dst"), ("dst", "src"))):
        for side, lo, mac, number in (
            (a, V4 | (0x0A000000 + host), host, port),
            (b, np.full(n, V4 | 0x0A000009), np.full(n, 9), np.full(n, 53)),
        ):
            getattr(p, f"{side}_lo")[k::2], getattr(p, f"{side}_mac")[k::2] = lo, mac
            getattr(p, f"{side[0]}port")[k::2] = number
        p.ts[k::2] = at + k * rng.integers(10**6, 2 * 10**7, n)
        p.size[k::2] = rng.integers(60, 90, n) + k * 90
    p.kind[:], p.proto[:], p.ip_size[:], p.ip_id[:] = 0x83, 17, p.size - 14, 1 + np.arange(2 * n)
    return p


def spec() -> ModelSpec:
    section = replace(
        KINDS["kitsune"].learning(kitsune().section, 2600),
        features=AfterImageConfig(flows=4096), start=StartConfig(warmup_packets=200),
    )  # fmt: skip
    return ModelSpec("kitsune", KINDS["kitsune"], section)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    d = build_detector(0, ROOM, [spec()])
    p = questions(1400, 1)
    d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1])))
    path = tmp_path_factory.mktemp("clock") / "m.safetensors"
    path.write_bytes(pack_model(spec().kind, d.scorers[0], {}))
    return path


def alarms(bundle: Path, p: Packets) -> int:
    d = build_detector(0, ROOM, [replace(spec(), bundle=BundleFile(bundle))])
    found = d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1]))) + d.flush()
    return sum(int((b.scores["alarm"] & b.scores["final"]).sum()) for b in found)


@pytest.mark.parametrize(
    ("rows", "by"),
    [
        (slice(0, 20), 30 * 365 * 24 * HOUR), (slice(0, 20), 2 * HOUR), (slice(800, None), -HOUR),
        (slice(800, None), -3 * 60 * SECOND), (slice(1000, None), -24 * HOUR), (slice(900, 901), -HOUR),
        (slice(900, 901), 10 * HOUR), (slice(900, 901), -30 * 365 * 24 * HOUR),
    ],
)  # fmt: skip
def test_a_clock_that_was_wrong_or_is_set_back_makes_few_connections_alarm(
    bundle: Path, rows: slice, by: int
) -> None:
    p = questions(700, 2)
    plain = alarms(bundle, p)
    p.ts[rows] += by
    assert abs(alarms(bundle, p) - plain) <= 12  # eight packets until it is believed, and some beside them


def test_with_the_public_rule_a_clock_that_is_set_back_makes_most_connections_alarm(tmp_path: Path) -> None:
    public = replace(
        spec(), section=replace(spec().section, features=AfterImageConfig(flows=4096, interarrival="public"))
    )
    d = build_detector(0, ROOM, [public])
    p = questions(1400, 1)
    d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1])))
    path = tmp_path / "m.safetensors"
    path.write_bytes(pack_model(public.kind, d.scorers[0], {}))
    p = questions(700, 2)
    plain = alarms(path, p)
    p.ts[800:] -= HOUR
    assert alarms(path, p) > plain + 100
