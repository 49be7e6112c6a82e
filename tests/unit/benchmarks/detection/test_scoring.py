"""Scores by packet and by connection are the engine's, for every way to start."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detection import features
from benchmarks.detection.cases import infected_codes
from benchmarks.detection.parts import MANY, Part, cut, joined, pairs_of_packets, pairs_of_rows, part_of, row
from benchmarks.detection.quick import BASE, INFECTED, SERVER, chat, flood
from benchmarks.detection.scoring import Scored, Trained, Watcher, blocks, greatest, score, train
from benchmarks.detection.streams import SECOND, coded, merged, part
from benchmarks.detection.variants import Variant
from engine.connections.layout import CONNECTION, SIDE
from engine.connections.tracker import Tracked
from engine.features.afterimage import FEATURES, AfterImage, AfterImageConfig
from engine.scoring.scorer import Ended
from engine.types import Kind, concatenate, take
from probing.analysis.roc import Bootstrap

pytestmark = pytest.mark.compiled

VARIANTS = (
    Variant("bundle", options={"start.warmup_packets": 0}, start="bundle"), Variant("continued"),
    Variant("baseline", "baseline"), Variant("chance", "chance"),
)  # fmt: skip
HOW = Bootstrap(rounds=50)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(part(chat(6000, 6, 1), 0, 0.7), VARIANTS, (1, 2))


@pytest.fixture(scope="module")
def scored(trained: Trained) -> Scored:
    rest = part(chat(6000, 6, 1), 0.7, 1)
    return score(trained, merged(rest, flood(300, 2), int(rest.ts[0]), 1))


def test_every_variant_has_a_score_of_every_packet_and_connection_for_each_seed(scored: Scored) -> None:
    assert list(scored.scores) == ["bundle", "continued", "baseline", "chance"]
    for name, models in (("bundle", 2), ("continued", 2), ("baseline", 1), ("chance", 1)):
        own = scored.scores[name]
        assert own.packet.shape == (models, scored.packets.ts.size)
        assert own.connection.shape == (models, scored.rows.size)
        assert np.isfinite(own.packet).all()
        assert np.isfinite(own.thresholds).all()
    assert not np.array_equal(*scored.scores["continued"].packet)


def test_a_connections_score_is_the_greatest_of_its_packets(scored: Scored) -> None:
    for own in scored.scores.values():
        assert np.array_equal(greatest(own.packet, scored.of, scored.rows.size), own.connection)


def test_packets_are_of_the_connection_with_their_ends(scored: Scored) -> None:
    p, rows = scored.packets, scored.rows[scored.of]
    assert (scored.of >= 0).all()
    ends = np.sort(np.stack([p.src_lo, p.dst_lo]), axis=0)
    assert np.array_equal(ends, np.sort(np.stack([rows["a_lo"], rows["b_lo"]]), axis=0))
    assert np.array_equal(rows["probe"], p.probe)
    ports = np.sort(np.stack([p.sport, p.dport]), axis=0)
    assert np.array_equal(ports, np.sort(np.stack([rows["a_port"], rows["b_port"]]), axis=0))


def test_connections_that_end_in_another_order_and_reuse_slots_keep_their_packets(trained: Trained) -> None:
    p = chat(40, 1, 3)
    times = np.arange(40, dtype=np.int64) * 10 * SECOND  # a connection of another port ends after a minute
    port = np.full(40, 1000)
    port[[1, 2]], port[[21, 22]], port[[30]] = 2000, 3000, 4000
    up = p.dst_lo == SERVER
    sport, dport = (np.where(side, port, 53).astype(np.uint16) for side in (up, ~up))
    p = p._replace(ts=trained.packets.ts.max() + SECOND + times, sport=sport, dport=dport)
    made = score(trained, p)
    assert made.rows.size == 4
    for k, own in enumerate(port):
        row = made.rows[made.of[k]]
        assert own in (row["a_port"], row["b_port"])
    for scores in made.scores.values():
        assert np.array_equal(greatest(scores.packet, made.of, 4), scores.connection)


def test_a_slot_that_is_used_again_is_another_connection() -> None:
    watcher, p, none = Watcher([], 5, 100), chat(5, 1, 1), np.zeros(0, np.int32)
    watcher.allocate(3)

    def see(first: int, *slots: int) -> None:
        n = len(slots)
        zeros = np.zeros(n, np.uint8)
        seen = Tracked(
            0,
            n,
            np.array(slots, np.int32),
            zeros,
            zeros,
            zeros.astype(np.uint32),
            none,
            none.astype(np.int64),
            100 + first,
        )
        watcher.packets(take(p, slice(first, first + n)), seen, np.zeros(3, CONNECTION))

    see(0, 2, -1)
    watcher.end(Ended(np.array([2], np.int32), np.zeros(1, CONNECTION), np.zeros((1, 2), SIDE)))
    see(2, 2, 0, 2)
    assert watcher.connection.tolist() == [0, -1, 1, 2, 1]


def test_a_model_that_goes_on_remembers_and_one_from_a_bundle_begins_empty(scored: Scored) -> None:
    went_on, empty = (
        scored.scores[name].packet[:, scored.packets.probe == 0] for name in ("continued", "bundle")
    )
    apart = np.abs(went_on - empty).mean(axis=0)
    assert apart[:100].mean() > 10 * apart[-100:].mean()


def test_scoring_changes_nothing_in_what_was_trained(trained: Trained) -> None:
    rest = part(chat(6000, 6, 1), 0.7, 1)
    one, other = score(trained, rest), score(trained, rest)
    for name, own in one.scores.items():
        assert np.array_equal(own.packet, other.scores[name].packet)


def test_packets_without_a_connection_give_no_threshold_and_an_error_that_says_so() -> None:
    nobody = np.zeros(600, np.uint64)
    p = chat(600, 6, 1)._replace(kind=np.full(600, Kind.LINK, np.uint8), src_mac=nobody, dst_mac=nobody)
    with pytest.raises(ValueError, match=r"600 packets are too few: m0s1, .* found no threshold"):
        train(p, VARIANTS, (1,))


def test_blocks_are_numbered_through() -> None:
    given = blocks(chat(9000, 3, 1), 17)
    assert [b.seq for b in given] == [17, 17 + 4096, 17 + 8192]
    assert sum(len(b) for b in given) == 9000


def test_parts_are_chosen_by_code_and_joined_units_stay_apart(scored: Scored) -> None:
    flooded = part_of(scored, "continued", "connections", cut(1))
    rest = part_of(scored, "continued", "connections", cut(0))
    assert flooded.size + rest.size == scored.rows.size
    assert np.unique(flooded.unit).size == 1
    assert np.unique(joined([flooded, flooded, rest]).unit).size == 2 + np.unique(rest.unit).size
    assert joined([flooded, rest]).scores.shape == (2, scored.rows.size)


def test_host_pairs_are_equal_in_both_directions(scored: Scored) -> None:
    p = scored.packets
    swapped = p._replace(src_lo=p.dst_lo, dst_lo=p.src_lo, src_hi=p.dst_hi, dst_hi=p.src_hi)
    assert np.array_equal(pairs_of_packets(p), pairs_of_packets(swapped))
    assert np.unique(pairs_of_packets(p)).size == 7  # six hosts and their server, the flood's pair
    assert np.unique(pairs_of_rows(scored.rows)).size == 7


def _part(n: int, units: int, low: float) -> Part:
    values = low + np.linspace(0, 1, n)[None]
    return Part(values, np.array([0.5]), np.arange(n) % units, np.arange(n), 1.0)


@pytest.mark.parametrize(("units", "what"), [(MANY - 1, "connections"), (MANY, "host pairs")])
def test_a_class_of_few_host_pairs_is_resampled_by_connection_and_said_so(units: int, what: str) -> None:
    made = row(_part(40, units, 0.0), _part(100, 50, 0.0), HOW)
    assert made["units"] == [[40 if what == "connections" else units, what], [50, "host pairs"]]


def test_false_alarms_an_hour_are_of_connections_and_of_enough_time() -> None:
    positive, negative = _part(40, 20, 0.0), _part(100, 50, 0.0)
    made = row(positive, negative, HOW)
    assert made["hourly"][0] == pytest.approx(50.0)  # half of 100 are above, in an hour
    assert row(positive, negative, HOW, "packets")["hourly"] is None
    brief = Part(negative.scores, negative.thresholds, negative.unit, negative.own, 0.01)
    assert row(positive, brief, HOW)["hourly"] is None


def test_samples_without_a_score_are_left_out_and_counted() -> None:
    positive, negative = _part(40, 20, 0.0), _part(100, 50, 0.0)
    negative.scores[0, :7] = np.nan
    made = row(positive, negative, HOW)
    assert (made["positives"], made["negatives"], made["unscored"]) == (40, 93, 7)
    assert "area" not in row(_part(0, 1, 0.0), negative, HOW)


def test_an_infected_host_is_told_from_those_it_speaks_to() -> None:
    p = concatenate([chat(60, 6, 1), flood(10, 1, INFECTED)])
    codes = infected_codes(p, INFECTED)
    assert np.array_equal(codes == 1, p.src_lo == INFECTED)
    assert np.array_equal(codes == 2, p.dst_lo == INFECTED)
    assert set(codes.tolist()) == {1, 2, 3}


def test_the_best_feature_is_the_one_that_tells_apart_what_it_is_chosen_on(trained: Trained) -> None:
    before, last = part(trained.packets, 0, 0.8), part(trained.packets, 0.8, 1)
    given = merged(last, flood(300, 4), int(last.ts[0]), 1)
    choices = features.choose(trained, before, [given])
    for choice in choices.values():
        assert choice.area == pytest.approx(1.0, abs=1e-3)
    other = given._replace(probe=(1 - given.probe).astype(np.uint32))  # benign is what is looked for
    low = features.choose(trained, before, [other])["packets"]
    assert low.text == f"{FEATURES[low.column]} {'high' if low.sign > 0 else 'low'}"
    assert low.area == pytest.approx(1.0, abs=1e-3)
    assert (low.column, low.sign) != (choices["packets"].column, choices["packets"].sign)


def test_packets_with_other_codes_have_no_say_in_the_choice(trained: Trained) -> None:
    before, last = part(trained.packets, 0, 0.8), part(trained.packets, 0.8, 1)
    given = merged(last, flood(300, 4), int(last.ts[0]), 1)
    half = given._replace(probe=np.where(np.arange(given.ts.size) % 7 == 3, 2, given.probe).astype(np.uint32))
    assert features.choose(trained, before, [half])["packets"].area > 0.999


def test_a_features_scores_are_its_values_after_what_was_learned(trained: Trained) -> None:
    rest = coded(part(chat(6000, 6, 1), 0.7, 1), 0)
    choice = features.Choice(0, -1.0, 1.0)
    made = features.with_feature(trained, score(trained, rest), {"packets": choice, "connections": choice})
    through = AfterImage(AfterImageConfig()).update(concatenate([trained.packets, rest]))[
        trained.packets.ts.size :
    ]
    assert np.allclose(made.scores[features.NAME].packet[0], -through[:, 0], rtol=1e-9)
    assert made.scores[features.NAME].connection.shape == (1, made.rows.size)


def test_hosts_of_the_small_case_are_who_they_seem() -> None:
    p = take(chat(60, 6, 1), np.arange(60) % 2 == 0)
    assert (p.dst_lo == SERVER).all()
    assert set(p.src_lo.tolist()) <= set(range(BASE, BASE + 6))
