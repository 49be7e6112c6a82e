"""How scoring with a bundle starts: carried streams, the warm-up without them, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KIND as KITSUNE
from engine.scoring.start import Age, StartConfig
from engine.types import PacketBlock, Packets, empty_packets, freeze, take
from models import bundle
from tests.property.test_laws import ROOMY, blocks
from tests.support.rows import said, scores_of, small
from tests.support.streams import stream

pytestmark = pytest.mark.compiled

LEARNED, N = 900, 600
HOURS = 3600 * 10**9
WARM = StartConfig(warmup_packets=200, warmup_seconds=1e9)


def starting(spec: ModelSpec, start: StartConfig) -> ModelSpec:
    return replace(spec, section=replace(spec.section, start=start))


def train(path: Path, kind: str = "kitsune", flows: int = 512, name: str | None = None) -> ModelSpec:
    """A bundle learned from a stream; with 0 flows it carries none."""
    spec = small(KINDS[kind], name)
    detector = build_detector(0, ROOMY, [spec])
    for block in blocks(stream(21, LEARNED, ordered=True), []):
        detector.process(block)
    scorer = detector.scorers[0]
    features = detector.features_of(scorer)
    assert features is not None
    path.write_bytes(pack_model(spec.kind, scorer, {}, features.carry(flows)))
    return starting(replace(spec, bundle=BundleFile(path)), WARM)


def rest(gap: int = 10**9, seed: int = 22, n: int = N) -> Packets:
    """Packets that begin so many ns after the learned ones."""
    p = stream(seed, n, ordered=True)
    return p._replace(ts=p.ts - p.ts[0] + stream(21, LEARNED, ordered=True).ts[-1] + gap)


def origin(spec: ModelSpec, p: Packets) -> str:
    detector = build_detector(0, ROOMY, [spec])
    for block in blocks(p, [100]):
        detector.process(block)
    features = detector.features_of(detector.scorers[0])
    assert features is not None
    return features.origin


@pytest.mark.parametrize("kind", ["kitsune", "baseline"])
def test_what_follows_the_training_is_scored_with_the_streams_as_they_were(kind: str, tmp_path: Path) -> None:
    """Equal to the last bit to scores of features that went on, after the first packets, which show whose they are."""
    spec, p = train(tmp_path / "m", kind), rest()
    assert origin(spec, p) == "carried"
    on = build_detector(0, ROOMY, [starting(small(KINDS[kind]), StartConfig(warmup_packets=0))])
    for block in blocks(stream(21, LEARNED, ordered=True), []):
        on.process(block)
    features: Any = on.features_of(on.scorers[0])
    carried: Any = build_detector(0, ROOMY, [spec])
    one = carried.features_of(carried.scorers[0])
    tracked: Any = None
    assert np.array_equal(one.update(p, tracked), features.update(p, tracked), equal_nan=True)


def test_packets_of_the_warm_up_have_no_score_and_those_behind_it_have_the_usual_one(tmp_path: Path) -> None:
    spec = train(tmp_path / "m", flows=0)
    cold = starting(spec, StartConfig(warmup_packets=0))
    p = rest()
    warm, all_of = (said([s], blocks(p, []), ROOMY).rows("kitsune") for s in (spec, cold))
    warm, all_of = (
        t.filter(t["final"]).sort_by([("ts", "ascending"), ("uid", "ascending")]) for t in (warm, all_of)
    )
    scored, packets = (pc.sum(t["scored_pkts"]).as_py() for t in (warm, all_of))
    read = int((p.kind[:200] & 15 != 0).sum())
    assert 0 < packets - scored <= read
    late = np.array(warm["scored_pkts"]) == np.array(all_of["scored_pkts"])
    assert late.any()
    assert np.array_equal(scores_of(warm)[late], scores_of(all_of)[late], equal_nan=True)
    silent = np.isnan(scores_of(warm))
    assert silent.any()
    assert {(bool(s), phase) for s, phase in zip(silent, warm["phase"].to_pylist())} == {
        (True, "warm"), (False, "score"),
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(at=st.lists(st.integers(0, N), max_size=6), seconds=st.sampled_from([0.0, 1e-3, 5.0, 200.0, 1e9]),
       packets=st.integers(0, 700), flows=st.sampled_from([0, 20, 512]), k=st.integers(0, 6))  # fmt: skip
def test_cuts_and_a_restored_state_change_no_score_of_a_model_that_warms_up(
    at: list[int], seconds: float, packets: int, flows: int, k: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = train(tmp_path_factory.mktemp("m") / "m", flows=flows)
    spec = starting(spec, StartConfig(warmup_packets=packets, warmup_seconds=seconds))
    tables = []
    for cut in ([], at):
        parts = blocks(rest(), cut)
        detector = build_detector(0, ROOMY, [spec])
        batches: list[Any] = []
        for i, block in enumerate(parts):
            if i == k:
                other = build_detector(0, ROOMY, [spec])
                other.restore(detector.state())
                detector = other
            batches += detector.process(block)
        batches += detector.flush()
        final = [(int(r["ts"]) if "ts" in b.rows.dtype.names else 0, *s.tolist()[:5], s["scored"], s["phase"])
                 for b in batches for r, s in zip(b.rows, b.scores) if s["final"]]  # fmt: skip
        tables.append(sorted(map(str, final)))
    assert tables[0] == tables[1]


def test_models_with_and_without_carried_streams_do_not_disturb_each_other(tmp_path: Path) -> None:
    warm = train(tmp_path / "warm", name="kitsune")
    bare = replace(train(tmp_path / "bare", flows=0), name="bare", shadow=True)
    learning = replace(small(KITSUNE), name="learning", shadow=True)
    alone = {s.name: said([replace(s, shadow=False)], blocks(rest(), [250]), ROOMY).rows(s.name)
             for s in (warm, bare, learning)}  # fmt: skip
    for models in ([warm, bare, learning], [learning, bare, warm], [bare, warm]):
        together = said(models, blocks(rest(), [250]), ROOMY)
        for spec in models:
            assert together.rows(spec.name).equals(alone[spec.name])
    detector = build_detector(0, ROOMY, [warm, bare, learning])
    assert len(detector.state()[1]["features"]) == 2  # those without carried streams share theirs
    assert alone["bare"]["score"].null_count > alone["kitsune"]["score"].null_count


def test_scoring_begins_with_the_same_packet_if_the_stream_is_cut_where_it_begins(tmp_path: Path) -> None:
    spec = starting(train(tmp_path / "m"), StartConfig(10**6, 1e9))
    first = set()
    for cut in ([], *([k] for k in range(126, 142))):
        detector = build_detector(0, ROOMY, [spec])
        for block in blocks(rest(n=250), cut):
            detector.process(block)
        first.add(detector.scorers[0].first)
    (number,) = first
    assert number is not None
    assert 128 <= number < 142


def test_a_shadow_that_joins_warm_features_needs_no_warm_up(tmp_path: Path) -> None:
    """Whether they are warm by the bundle's streams or by their age; also behind a restored state."""
    parts = blocks(rest(), [300])
    for flows, start in ((512, StartConfig(10**6, 1e9)), (0, WARM)):
        spec = starting(train(tmp_path / str(flows), flows=flows), start)
        detector = build_detector(0, ROOMY, [spec])
        detector.process(parts[0])
        assert detector.scorers[0].phase == "score"
        joined = build_detector(0, ROOMY, [spec, replace(spec, name="late", shadow=True)])
        joined.restore(detector.state())
        assert joined.cold == ["late"]
        first = detector.scorers[0].first
        assert first is not None
        assert joined.scorers[0].first == first < 300
        joined.process(parts[1])
        assert joined.scorers[1].first == 300


@pytest.mark.parametrize(
    ("gap", "said_"),
    [
        (0, "carried"),
        (119 * 10**9, "carried"),
        (121 * 10**9, "gap"),
        (-1, "older"),
        (-HOURS, "older"),
        (24 * HOURS, "gap"),
    ],
)
def test_streams_are_carried_only_over_a_short_gap(gap: int, said_: str, tmp_path: Path) -> None:
    assert origin(train(tmp_path / "m"), rest(gap)) == said_


def test_a_longer_gap_may_be_configured(tmp_path: Path) -> None:
    spec = starting(train(tmp_path / "m"), replace(WARM, max_gap=7200.0))
    assert origin(spec, rest(HOURS)) == "carried"


def test_streams_of_another_network_do_not_end_the_warm_up(tmp_path: Path) -> None:
    spec, p = train(tmp_path / "m"), rest()
    for other in (p._replace(src_mac=p.src_mac + 100), p._replace(src_lo=p.src_lo + 77)):
        assert origin(spec, other) == "strangers"
        rows = said([spec], blocks(other, []), ROOMY).rows("kitsune")
        assert "warm" in rows["phase"].to_pylist()


def test_a_pass_waits_for_packets_that_can_be_read(tmp_path: Path) -> None:
    spec, p = train(tmp_path / "m"), rest()
    kind = p.kind.copy()
    kind[:50] = 0
    p = p._replace(kind=kind)
    assert origin(spec, take(p, slice(50))) == "waiting"
    assert origin(spec, p) == "carried"


def test_hostile_streams_in_a_bundle_are_refused_when_it_is_loaded(tmp_path: Path) -> None:
    train(tmp_path / "m")
    good = bundle.load(tmp_path / "m")
    for name, value in (("streams.records", 1 << 20), ("streams.streams", -1.0), ("streams.flows", -1)):
        arrays = {k: a.copy() for k, a in good.arrays.items()}
        arrays[name][...] = value
        (tmp_path / "bad").write_bytes(bundle.pack(arrays, good.config, {}, kind=good.kind))
        with pytest.raises(InputError, match="bad: not an intact bundle: streams: "):
            BundleFile(tmp_path / "bad")
    arrays = {k: a for k, a in good.arrays.items() if k != "streams.pairs"}
    (tmp_path / "bad").write_bytes(bundle.pack(arrays, good.config, {}, kind=good.kind))
    with pytest.raises(InputError, match="streams: pairs missing"):
        BundleFile(tmp_path / "bad")


def test_a_bundle_without_a_rule_for_silent_streams_has_the_public_codes(tmp_path: Path) -> None:
    spec = train(tmp_path / "m", flows=0)
    good = bundle.load(tmp_path / "m")
    assert good.config["features"]["interarrival"] == "restart"
    assert spec.features is not None
    assert spec.features.config.interarrival == "restart"

    def loaded(**features: Any) -> ModelSpec:
        config = {**good.config, "features": {"lambdas": good.config["features"]["lambdas"], **features}}
        (tmp_path / "o").write_bytes(bundle.pack(good.arrays, config, {}, kind=good.kind))
        return replace(spec, bundle=BundleFile(tmp_path / "o"))

    old, own = loaded(), loaded(interarrival="restart", silence=77.0, silence_factor=9.0, silence_floor=1.0)
    assert old.features is not None
    assert own.features is not None
    assert old.features.config.interarrival == "public"
    assert (own.features.config.silence, own.features.config.silence_factor) == (77.0, 9.0)
    assert len({s.features.digest for s in (spec, old, own) if s.features}) == 3
    for wrong in ({"interarrival": "x"}, {"interarrival": ["public"]}, {"silence": "long"}, {"silence": True},
                  {"interarrival": "restart", "silence": -1.0}):  # fmt: skip
        with pytest.raises(InputError, match="o: "):
            build_detector(0, ROOMY, [loaded(**wrong)])
    config = {**good.config, "features": []}
    (tmp_path / "o").write_bytes(bundle.pack(good.arrays, config, {}, kind=good.kind))
    with pytest.raises(InputError, match="o: features in its config are not an object"):
        build_detector(0, ROOMY, [replace(spec, bundle=BundleFile(tmp_path / "o"))])


def test_a_heartbeat_ends_no_warm_up(tmp_path: Path) -> None:
    spec = starting(train(tmp_path / "m", flows=0), StartConfig(10**6, 5.0))
    detector = build_detector(0, ROOMY, [spec])
    p = rest(n=30)
    p = p._replace(ts=np.full(30, p.ts[0]))
    detector.process(PacketBlock("s", 0, 0, p, int(p.ts[-1])))
    detector.process(PacketBlock("s", 0, 30, empty_packets(), int(p.ts[-1]) + HOURS))
    assert detector.scorers[0].phase == "warm"
    later = p._replace(ts=p.ts + 6 * 10**9)
    detector.process(PacketBlock("s", 0, 30, later, int(later.ts[-1])))
    assert (detector.scorers[0].phase, detector.scorers[0].first) == ("score", 30)


def test_a_warm_up_ends_at_whichever_bound_comes_first() -> None:
    p = empty_packets(100)
    p.ts[:] = np.arange(100) * 10**9
    p.ts[50] = 0  # older than those before it: time does not go back
    for packets, seconds, row in (
        (0, 5, 0),
        (5, 0, 0),
        (10, 1e9, 10),
        (1000, 7, 7),
        (1000, 49.5, 51),
        (1000, 1e9, 100),
    ):
        age = Age()
        age.add(p)
        assert age.ready(StartConfig(packets, seconds)) == row
        if row == 100:
            age.add(p._replace(ts=p.ts + 10**12))
            assert age.ready(StartConfig(packets, 900)) == 0


def ready_at(seconds: list[float], config: StartConfig) -> int:
    age, p = Age(), empty_packets(len(seconds))
    p.ts[:] = [int((1000 + s) * 1e9) for s in seconds]
    age.add(freeze(p))
    return age.ready(config)


YEAR = 365 * 86_400.0


def test_a_warm_up_follows_event_time() -> None:
    config = StartConfig(warmup_packets=1000, warmup_seconds=50.0)
    steady = [float(k) for k in range(100)]
    assert ready_at(steady, config) == 50
    assert (
        ready_at([YEAR + k for k in range(10)] + steady, config) == 10 + 7 + 50
    )  # the eighth packet shows it
    assert ready_at([*steady[:20], YEAR, *steady[20:]], config) == 51  # one damaged stamp ends nothing
    assert ready_at([*steady[:20], -YEAR, *steady[20:]], config) == 51
    assert ready_at([*steady[:30], *(s - 500 for s in steady)], config) == 30 + 7 + 50


@pytest.mark.parametrize("cut", [1, 9, 30, 64])
def test_a_warm_up_ends_at_the_same_packet_wherever_its_stream_is_cut(cut: int) -> None:
    seconds = [YEAR + k for k in range(10)] + [float(k) for k in range(100)]
    config, age, p = StartConfig(1000, 50.0), Age(), empty_packets(110)
    p.ts[:] = [int((1000 + s) * 1e9) for s in seconds]
    age.add(freeze(take(p, slice(cut))))
    first = age.ready(config)
    again = Age()
    again.restore(age.state())
    again.add(freeze(take(p, slice(cut, None))))
    at = first if first < cut else cut + again.ready(config)
    assert at == ready_at(seconds, config)
