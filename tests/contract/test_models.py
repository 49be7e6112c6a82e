"""The contract of every kind of model. Kinds in KINDS are included automatically; two kinds only for tests hold packets
back, and score only connections at their end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.consumer.alerts import alert_documents
from engine.errors import InputError, StateError
from engine.features.afterimage import AfterImage, AfterImageConfig, feature_names
from engine.labels.rules import NO_PROBES
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.columns import as_dicts
from engine.scoring.kind import Kind
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KIND as KITSUNE
from engine.scoring.trace import Selection, Tracer
from engine.types import PacketBlock, empty_packets
from models import bundle
from tests.property.test_laws import ROOMY, SMALL, blocks
from tests.support.kinds import DELAYING, ENDS
from tests.support.rows import Recorder, bundled, outlet, said, scores_of, small
from tests.support.streams import stream

pytestmark = pytest.mark.compiled

ALL = [*KINDS.values(), DELAYING, ENDS]
every_kind = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(0, 600), max_size=8)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (DELAYING, ENDS):
        monkeypatch.setitem(KINDS, kind.name, kind)


def final(recorder: Recorder, model: str) -> pa.Table:
    """Rows of ended connections, without the identity that depends on how the stream was cut."""
    table = recorder.rows(model)
    table = table.filter(table["final"]).drop_columns(["partition", "offset", "row"])
    return table.sort_by([("ts", "ascending"), ("uid", "ascending")])


def begun(recorder: Recorder, model: str) -> list[tuple[Any, ...]]:
    """Connections whose alarm began before their end, with score and time of the packet that raised it."""
    table = recorder.rows(model)
    rows = table.filter(pc.invert(table["final"])).select(["ts", "uid", "score", "peak_at", "version"])
    return sorted(tuple(map(str, row.values())) for row in as_dicts(rows))


def scored(table: pa.Table) -> bool:
    """Whether a table has scores, rows with an alarm, and rows without one."""
    alarms = table["alarm"].to_pylist()
    return bool(np.isfinite(scores_of(table)).any()) and any(alarms) and not all(alarms)


def bare(table: pa.Table) -> pa.Table:
    """Rows without the name of their model."""
    return table.drop_columns(["model"])


@every_kind
@given(seed=seeds, leaps=st.booleans(), at=cuts)
@settings(max_examples=12, deadline=None)
def test_cutting_the_stream_elsewhere_changes_no_score_and_no_alarm(
    kind: Kind, seed: int, leaps: bool, at: list[int]
) -> None:
    p = stream(seed, 600, leaps=leaps)
    one, other = (said([small(kind)], blocks(p, cut), SMALL) for cut in ([], at))
    assert final(one, kind.name).equals(final(other, kind.name))
    assert begun(one, kind.name) == begun(other, kind.name)


@every_kind
def test_a_stream_gives_scores_and_alarms(kind: Kind) -> None:
    assert scored(final(said([small(kind)], blocks(stream(3, 900), [400]), ROOMY), kind.name))


@every_kind
@given(seed=seeds, at=st.lists(st.integers(0, 600), min_size=1, max_size=5), data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_restored_state_continues_bit_for_bit_even_with_evictions_and_reused_slots(
    kind: Kind, seed: int, at: list[int], data: st.DataObject
) -> None:
    parts = blocks(stream(seed, 600), at)
    k = data.draw(st.integers(0, len(parts)))
    one, other = (build_detector(0, SMALL, [small(kind)]) for _ in range(2))
    for block in parts[:k]:
        one.process(block)
    other.restore(one.state())
    rest = [said(d, parts[k:], SMALL) for d in (one, other)]
    assert rest[0].rows(kind.name).equals(rest[1].rows(kind.name))
    assert one.tracker.counters["evicted"] > 0


@every_kind
def test_a_connection_in_a_reused_slot_inherits_nothing(kind: Kind, tmp_path: Path) -> None:
    learned = bundled(small(kind), blocks(stream(5, 900), []), tmp_path / "m")
    parts = blocks(stream(6, 400, ordered=True), [100, 200, 300])
    far = parts[-1].packets.ts.max() + 10**13  # all connections have ended by then
    detector = build_detector(0, ROOMY, [learned])
    used = said(detector, parts, ROOMY)
    later = [
        replace(b, seq=b.seq + 400, packets=b.packets._replace(ts=b.packets.ts + far), now=b.now + far)
        for b in parts
    ]
    again = said(detector, later, ROOMY)
    if kind.features(learned.section) is None:  # otherwise features remember the hosts
        scores = [np.sort(scores_of(final(r, kind.name))) for r in (used, again)]
        assert np.array_equal(scores[0], scores[1], equal_nan=True)
    assert len(final(again, kind.name)) == len(final(used, kind.name)) > 0


@every_kind
def test_a_bundle_is_frozen_and_scores_like_its_model(kind: Kind, tmp_path: Path) -> None:
    spec, parts = small(kind), blocks(stream(7, 900), [300, 600])
    learned = bundled(spec, parts, tmp_path / "m")
    loaded = build_detector(0, ROOMY, [learned]).scorers[0]
    assert loaded.phase == "score"
    again = bundle.load(tmp_path / "m")
    assert again.kind == kind.name
    assert {"scorer", "threshold"} <= again.config.keys()
    one, other = (said([learned], blocks(stream(8, 600), cut), ROOMY) for cut in ([], [77, 333]))
    assert final(one, kind.name).equals(final(other, kind.name))
    assert set(final(one, kind.name)["phase"].to_pylist()) == {"score"}
    versions = set(final(one, kind.name)["version"].to_pylist())
    assert versions == {loaded.version}
    assert pack_model(kind, loaded, {}) == (tmp_path / "m").read_bytes()


@every_kind
@pytest.mark.parametrize("lacks", ["scorer", "threshold"])
def test_a_bundle_that_lacks_a_part_is_refused(kind: Kind, lacks: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    learned = bundled(small(kind), blocks(stream(9, 900), []), path)
    good = bundle.load(path)
    config = {name: value for name, value in good.config.items() if name != lacks}
    path.write_bytes(bundle.pack(good.arrays, config, {}, kind=kind.name))
    with pytest.raises(InputError, match=f"m: not an intact {kind.name} bundle: its config lacks {lacks}"):
        build_detector(0, ROOMY, [replace(learned, bundle=BundleFile(path))])


@every_kind
def test_a_bundle_of_another_kind_is_refused(kind: Kind, tmp_path: Path) -> None:
    other = next(k for k in ALL if k is not kind)
    bundled(small(other), blocks(stream(10, 900), []), tmp_path / "m")
    with pytest.raises(InputError, match=f"m: a bundle of kind {other.name}, but model x is a {kind.name}"):
        build_detector(0, ROOMY, [replace(small(kind, "x"), bundle=BundleFile(tmp_path / "m"))])


def beside(kind: Kind) -> list[list[ModelSpec]]:
    """A Kitsune alone, and with another model before it, after it, or as a shadow."""
    kitsune = small(KITSUNE)
    return [
        [kitsune],
        [small(kind, "other"), kitsune],
        [kitsune, small(kind, "other", shadow=True)],
    ]


@every_kind
@given(seed=seeds, leaps=st.booleans(), at=cuts, flush=st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_adding_a_model_changes_no_row_of_the_others(
    kind: Kind, seed: int, leaps: bool, at: list[int], flush: int
) -> None:
    parts = blocks(stream(seed, 600, leaps=leaps), at)
    tables = [said(models, parts, SMALL, flush).rows("kitsune") for models in beside(kind)]
    assert all(table.equals(tables[0]) for table in tables[1:])
    assert tables[0].num_rows > 0


@every_kind
def test_a_shadow_marks_alarms_but_raises_no_alerts(kind: Kind) -> None:
    parts = blocks(stream(11, 900), [300])
    kitsune = small(KITSUNE)
    earnest = said([small(kind, "m"), kitsune], parts, ROOMY).rows("m")
    shadow = said([small(kind, "m", shadow=True), kitsune], parts, ROOMY).rows("m")
    assert shadow.equals(earnest)
    assert any(shadow["alarm"].to_pylist())
    detector = build_detector(0, ROOMY, [small(kind, "m", shadow=True), kitsune])
    batches = [b for block in parts for b in detector.process(block)] + detector.flush()
    mine = [b for b in batches if b.model == "m"]
    assert any(b.scores["begins"].any() for b in mine)
    assert not any(alert_documents(b, NO_PROBES, "s") for b in mine)


@every_kind
def test_a_shadow_turned_on_and_off_starts_cold_and_does_not_affect_the_others(kind: Kind) -> None:
    parts = blocks(stream(12, 900), [300, 600])
    kitsune, shadow = small(KITSUNE), small(kind, "watcher", shadow=True)
    expected = said([kitsune], parts, SMALL).rows("kitsune")
    recorder = Recorder()
    out, state, cold = outlet(recorder), None, []
    for k, (block, models) in enumerate(zip(parts, ([kitsune], [kitsune, shadow], [kitsune]))):
        detector = build_detector(0, SMALL, models)
        if state is not None:
            detector.restore(state)
        cold += detector.cold
        out.keep(0, k, detector.process(block))
        state = detector.state()
    out.end(0, len(parts), detector.flush())
    out.flush()
    assert recorder.rows("kitsune").equals(expected)
    assert cold == ["watcher"]


@every_kind
def test_a_model_that_alarms_is_not_started_cold(kind: Kind) -> None:
    kitsune = small(KITSUNE)
    state = build_detector(0, SMALL, [kitsune]).state()
    with pytest.raises(StateError, match="model m: the snapshot has no model of that name"):
        build_detector(0, SMALL, [kitsune, small(kind, "m")]).restore(state)
    state = build_detector(0, SMALL, [kitsune, small(kind, "m")]).state()
    scorer = replace(small(kind).section.scorer, calibrate_packets=7)
    other = replace(small(kind, "m"), section=replace(small(kind).section, scorer=scorer))
    with pytest.raises(
        StateError, match="model m: the snapshot was made with another configuration or bundle"
    ):
        build_detector(0, SMALL, [kitsune, other]).restore(state)


def test_kitsunes_with_different_lambdas_have_separate_features_and_equal_ones_share_them() -> None:
    one = small(KITSUNE, "one")
    features = replace(one.section.features, lambdas=(4.0, 2.0, 1.0, 0.5, 0.25))
    other = ModelSpec("other", KITSUNE, replace(one.section, features=features))
    same = small(KITSUNE, "same", shadow=True)
    parts = blocks(stream(13, 900), [300])
    alone = {spec.name: said([spec], parts, SMALL).rows(spec.name) for spec in (one, other, same)}
    together = said([one, other, same], parts, SMALL)
    for name, table in alone.items():
        assert together.rows(name).equals(table)
    assert bare(alone["one"]).equals(bare(alone["same"]))
    assert not bare(alone["one"]).equals(bare(alone["other"]))
    detector = build_detector(0, SMALL, [one, other, same])
    assert sorted(detector.state()[1]["features"]) == sorted(
        {KITSUNE.features(spec.section).digest for spec in (one, other)}  # type: ignore[union-attr]
    )


def test_a_shadow_that_joins_existing_features_starts_warm() -> None:
    """It shares the warm features of the model beside it; separate features would start empty."""
    parts = blocks(stream(14, 900, ordered=True), [600])
    kitsune = small(KITSUNE)
    detector = build_detector(0, ROOMY, [kitsune])
    detector.process(parts[0])
    apart = replace(kitsune.section, features=AfterImageConfig(flows=2048))
    flows = []
    for section in (kitsune.section, apart):
        joined = build_detector(0, ROOMY, [kitsune, ModelSpec("s", KITSUNE, section, shadow=True)])
        joined.restore(detector.state())
        flows.append(joined.counters(joined.scorers[1])["flows"])
    assert flows[0] > 0
    assert flows[1] == 0


def test_a_model_that_scores_no_packet_has_rows_with_a_score_and_alerts_with_a_time() -> None:
    parts = blocks(stream(15, 900), [300])
    rows = said([small(ENDS)], parts, ROOMY).rows("ends")
    assert set(rows["scored_pkts"].to_pylist()) == {0}
    assert rows["peak_at"].null_count == len(rows)
    packets = pc.add(rows["orig_pkts"], rows["resp_pkts"])
    assert rows["score"].to_pylist() == packets.to_pylist()
    detector = build_detector(0, ROOMY, [small(ENDS)])
    batches = [b for block in parts for b in detector.process(block)] + detector.flush()
    alerts = [a for b in batches for a in alert_documents(b, NO_PROBES, "s")]
    assert len(alerts) == sum(rows["alarm"].to_pylist()) > 0
    assert all(a["@timestamp"] == a["event"]["end"] for a in alerts)


def test_a_packet_held_back_is_scored_at_its_connections_end_and_by_a_heartbeat() -> None:
    parts = blocks(stream(16, 400, ordered=True), [])
    last = int(parts[0].packets.ts.max())
    spec = small(DELAYING)
    p = final(said([spec], parts, ROOMY), "delaying")
    assert (p["scored_pkts"].to_numpy() == p["orig_pkts"].to_numpy() + p["resp_pkts"].to_numpy()).all()
    detector = build_detector(0, ROOMY, [spec])
    detector.process(parts[0])
    model: Any = detector.scorers[0].model
    waiting = len(model.held)
    detector.process(PacketBlock("s", 0, 400, empty_packets(), last + 3 * 10**9))
    assert waiting > 0
    assert len(model.held) == 0


@every_kind
@given(seed=seeds, at=cuts)
@settings(max_examples=8, deadline=None)
def test_a_trace_has_every_packet_with_its_score_wherever_the_stream_is_cut(
    kind: Kind, seed: int, at: list[int]
) -> None:
    p = stream(seed, 600)
    wanted = said([small(kind)], blocks(p, []), SMALL).rows(kind.name)
    uids = list(dict.fromkeys(wanted["uid"].to_pylist()))[::3]
    traces = []
    for cut in ([], at):
        tracer = Tracer(Selection(frozenset(uids)), [kind.name])
        said(build_detector(0, SMALL, [small(kind)], tracer), blocks(p, cut), SMALL)
        traces.append(tracer.drain().sort_by([("uid", "ascending"), ("number", "ascending")]))
    assert traces[0].equals(traces[1])
    rows = wanted.filter(wanted["final"])
    for uid in uids:
        packets = traces[0].filter(pc.equal(traces[0]["uid"], uid))
        mine = rows.filter(pc.equal(rows["uid"], uid))
        sent = pc.sum(pc.add(mine["orig_pkts"], mine["resp_pkts"])).as_py()
        assert len(packets) == sent
        assert len(packets) - packets[f"score.{kind.name}"].null_count == pc.sum(mine["scored_pkts"]).as_py()


INPUTS: dict[
    str, Callable[[Any], tuple[Callable[[Any], Any], Sequence[str]]]
] = {  # score of inputs, their names
    "kitsune": lambda m: (m.kitnet.score, feature_names(m.features.lambdas)),
    "baseline": lambda m: (m.baseline.score, feature_names(m.features.lambdas)),
    "delaying": lambda _: (lambda rows: rows.sum(axis=1), [f"x{i}" for i in range(100)]),
    "ends": lambda _: (lambda rows: rows.sum(axis=1), [f"x{i}" for i in range(100)]),
}


@pytest.mark.parametrize("kind", [k for k in ALL if k.explain is not None], ids=lambda kind: kind.name)
def test_taking_the_first_three_inputs_away_moves_the_score_most(kind: Kind) -> None:
    spec = small(kind)
    detector = build_detector(0, ROOMY, [spec])
    p = stream(17, 900)
    detector.process(*blocks(p, []))
    model = detector.scorers[0].model
    score, names = INPUTS[kind.name](model)
    rng = np.random.default_rng(2)
    rows = AfterImage(AfterImageConfig(flows=1024)).update(p)[300:]
    for x in rows[rng.choice(len(rows), 6, replace=False)]:
        assert kind.explain is not None
        order = kind.explain(model, x)
        assert sorted(m.name for m in order) == sorted(names)
        expected = np.array([{m.name: m.expected for m in order}[name] for name in names])

        def without(chosen: Sequence[int], x: Any = x, expected: Any = expected) -> float:
            changed = x.copy()
            changed[list(chosen)] = expected[list(chosen)]
            return float(score(changed[None])[0])

        first = without([list(names).index(m.name) for m in order[:3]])
        assert first == pytest.approx(float(score(x[None])[0]) - sum(m.drop for m in order[:3]))
        assert first <= min(without(rng.choice(x.size, 3, replace=False).tolist()) for _ in range(80)) + 1e-9


@given(seed=seeds, at=cuts)
@settings(max_examples=8, deadline=None)
def test_a_trace_by_probe_begins_with_the_first_packet_of_that_probe_wherever_the_stream_is_cut(
    seed: int, at: list[int]
) -> None:
    p = stream(seed, 600)
    marked = np.random.default_rng(seed).random(600) < 0.2
    p = p._replace(probe=np.where(marked, 7, 0).astype(np.uint32))
    traces = []
    for cut in ([], at):
        tracer = Tracer(Selection(probes=frozenset([7])), ["delaying"])
        said(build_detector(0, SMALL, [small(DELAYING)], tracer), blocks(p, cut), SMALL)
        traces.append(tracer.drain().sort_by([("uid", "ascending"), ("number", "ascending")]))
    assert traces[0].equals(traces[1])
    first: dict[str, int] = {}
    for uid, probe in zip(traces[0]["uid"].to_pylist(), traces[0]["probe"].to_pylist()):
        first.setdefault(uid, probe)
    assert set(first.values()) == {7}


@every_kind
def test_packets_that_cannot_be_read_are_scored_by_nobody(kind: Kind) -> None:
    p = stream(18, 600)
    unread = p._replace(kind=np.zeros_like(p.kind))
    detector = build_detector(0, ROOMY, [small(kind)])
    assert [b for block in blocks(unread, [100, 300]) for b in detector.process(block)] == []
    assert detector.flush() == []
    assert detector.packets == 600
    assert detector.scorers[0].model.counters().get("samples", 0) == 0


@every_kind
def test_connections_that_end_before_a_model_scores_have_no_score_and_no_alarm(kind: Kind) -> None:
    slow = replace(kind.learning(small(kind).section, 10_000), threshold=small(kind).section.threshold)
    rows = final(said([replace(small(kind), section=slow)], blocks(stream(19, 600), [300]), ROOMY), kind.name)
    assert rows.num_rows > 0
    assert not any(rows["alarm"].to_pylist())
    assert rows["threshold"].null_count == rows.num_rows
    assert set(rows["phase"].to_pylist()) <= {"learn", "calibrate"}


@pytest.mark.parametrize("same", [True, False], ids=["the same trace", "another trace"])
@pytest.mark.parametrize("flush", [True, False], ids=["the end of the log", "a heartbeat"])
def test_a_traced_detector_goes_on_after_a_restore_also_where_no_packet_comes(
    same: bool, flush: bool
) -> None:
    p = stream(20, 400, ordered=True)
    first = said([small(ENDS)], blocks(p, []), ROOMY).rows("ends")["uid"].to_pylist()
    one, other = frozenset(first), frozenset(first if same else first[:3])
    tracers = [Tracer(Selection(chosen), ["ends"]) for chosen in (one, other)]
    detectors = [build_detector(0, ROOMY, [small(ENDS)], tracer) for tracer in tracers]
    detectors[0].process(*blocks(p, []))
    detectors[1].restore(detectors[0].state())
    if flush:
        detectors[1].flush()
    else:
        detectors[1].process(PacketBlock("s", 0, 400, empty_packets(), int(p.ts.max()) + 10**13))
    assert (tracers[1].drain().num_rows > 0) == same


def test_a_trace_asks_for_the_labels_of_probes_that_it_does_not_know() -> None:
    p = stream(21, 400)
    p = p._replace(probe=np.full(400, 7, np.uint32))
    probes: dict[int, dict[str, str]] = {0: {}}

    def resolve(unknown: set[int]) -> None:
        probes.update({k: {"task": "http"} for k in unknown})

    tracer = Tracer(Selection(labels=frozenset([("task", "http")])), ["ends"], probes, resolve=resolve)
    rows = said(build_detector(0, ROOMY, [small(ENDS)], tracer), blocks(p, [50]), ROOMY).rows("ends")
    assert set(tracer.drain()["uid"].to_pylist()) == set(rows["uid"].to_pylist())


def test_a_trace_has_no_more_connections_than_it_may() -> None:
    p = stream(22, 400)
    p = p._replace(probe=np.full(400, 7, np.uint32))
    tracer = Tracer(Selection(probes=frozenset([7])), ["ends"], most=5)
    rows = said(build_detector(0, ROOMY, [small(ENDS)], tracer), blocks(p, [50]), ROOMY).rows("ends")
    assert len(set(tracer.drain()["uid"].to_pylist())) == 5
    assert tracer.refused == len(set(rows["uid"].to_pylist())) - 5


@pytest.mark.parametrize("columns", [2, 50])
def test_a_baseline_of_other_columns_than_its_features_is_refused(columns: int, tmp_path: Path) -> None:
    spec = small(KINDS["baseline"])
    learned = bundled(spec, blocks(stream(23, 900), []), tmp_path / "m")
    good = bundle.load(tmp_path / "m")
    arrays = {k: a if k == "counts" else a[..., :columns] for k, a in good.arrays.items()}
    config = {**good.config, "baseline": {**good.config["baseline"], "features": columns}}
    (tmp_path / "m").write_bytes(bundle.pack(arrays, config, {}, kind="baseline"))
    with pytest.raises(InputError, match=f"baseline.features {columns} must be 20 for each"):
        build_detector(0, ROOMY, [replace(learned, bundle=BundleFile(tmp_path / "m"))])
    with pytest.raises(ValueError, match=r"baseline\.features"):
        replace(spec.section, baseline=replace(spec.section.baseline, features=columns))


@pytest.mark.parametrize("counts", [np.zeros(0, np.int64), np.array([1e300])], ids=["none", "huge"])
def test_a_baseline_with_odd_counts_is_refused_in_a_line(counts: Any, tmp_path: Path) -> None:
    learned = bundled(small(KINDS["baseline"]), blocks(stream(24, 900), []), tmp_path / "m")
    good = bundle.load(tmp_path / "m")
    data = bundle.pack({**good.arrays, "counts": counts}, good.config, {}, kind="baseline")
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(InputError, match="m: not an intact baseline bundle"):
        build_detector(0, ROOMY, [replace(learned, bundle=BundleFile(tmp_path / "m"))])


def test_a_bundle_that_is_replaced_changes_no_model_that_was_loaded(tmp_path: Path) -> None:
    learned = bundled(small(KITSUNE), blocks(stream(25, 900), []), tmp_path / "m")
    before = build_detector(0, ROOMY, [learned])
    bundled(small(KITSUNE), blocks(stream(26, 900), []), tmp_path / "m")
    again = build_detector(1, ROOMY, [learned])
    assert again.scorers[0].version == before.scorers[0].version
    again.restore(before.state())
