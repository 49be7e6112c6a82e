"""What the page says of the captures is so; corpora keep their labels by packet."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detection import sources
from benchmarks.detection.cases import infected_codes
from benchmarks.detection.features import connections_of
from benchmarks.detection.sources import Corpus, Source
from engine.types import KIND_MASK, Kind
from tests.support.captures import needs_captures

pytestmark = pytest.mark.compiled


@needs_captures
@pytest.mark.captures
def test_519_packets_of_the_attack_phase_are_not_the_infected_hosts_and_the_scan_is_arp() -> None:
    attack, benign = sources.attack_lab(), sources.benign_lab()
    codes = infected_codes(attack, sources.INFECTED)
    assert np.count_nonzero(codes != 1) == 519
    arp = (attack.kind & KIND_MASK) == Kind.ARP
    assert np.count_nonzero(arp & (codes == 1)) > 3000
    assert (connections_of(attack)[0][arp] >= 0).all()
    assert attack.ts[0] - benign.ts.max() > 3600 * 10**9


@needs_captures
@pytest.mark.captures
def test_every_source_has_packets_and_those_with_a_pair_only_of_it() -> None:
    for source in (*sources.VALIDATION, *sources.ATTACKS, *sources.CONTROLS):
        p = sources.packets_of(source)
        assert p.ts.size > 10, source
        if source.pair is not None:
            ends = {address & 0xFFFF_FFFF for address in (*p.src_lo.tolist(), *p.dst_lo.tolist())}
            assert ends == set(source.pair)


def test_attacks_that_choose_the_feature_are_not_those_of_the_test() -> None:
    names, files = ([getattr(s, k) for s in sources.ATTACKS] for k in ("name", "file"))
    assert not {s.name for s in sources.VALIDATION} & set(names)
    assert not {s.file for s in sources.VALIDATION} & set(files)
    assert len({*names, *(s.name for s in sources.CONTROLS)}) == len(sources.ATTACKS) + len(sources.CONTROLS)
    assert all(s.control for s in sources.CONTROLS)
    assert not any(s.control for s in (*sources.ATTACKS, *sources.VALIDATION))


def test_packets_of_a_corpus_have_the_codes_of_their_label_rows() -> None:
    corpus = Corpus.load("small")
    p, labels = corpus.packets, corpus.labels
    assert np.count_nonzero(p.probe == 0) < 0.01 * p.ts.size
    assert set(np.unique(p.probe).tolist()) - {0} <= set(range(1, labels.num_rows + 1))
    seen = np.bincount(p.probe, minlength=labels.num_rows + 1)[1:]
    assert np.count_nonzero(seen == 0) == 0
    attacks = corpus.codes("attack", 1)
    assert len(attacks) == 573
    assert corpus.runs.size == labels.num_rows + 1
    scans = corpus.codes("attack_kind", "port-scan") & corpus.codes("activity", "syn-scan")
    assert len(scans) == 151
    assert scans < attacks


def test_controls_of_our_own_are_benign_and_named_apart() -> None:
    given = dict(sources.own_controls())
    assert [s.name for s in given] == [*(f"lab: {task}" for task in sources.OWN_CONTROLS), "demo"]
    assert all(s.control and p.ts.size > 100 for s, p in given.items())


def test_a_file_that_is_not_there_is_named() -> None:
    assert sources.missing("") is None
    assert sources.missing("no/such.pcap") == "no no/such.pcap in WIRESONDE_CAPTURES"
    assert not Source("x", "scan", "f").control
