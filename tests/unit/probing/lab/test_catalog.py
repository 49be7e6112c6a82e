"""Scenario and corpus files, and the runs that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from probing.lab import catalog, registry
from probing.lab.errors import LabError
from probing.lab.settings import Corpus, Entry, Parameters, Run


def corpus(**entry: object) -> Corpus:
    return Corpus(name="c", about="", runs=(Entry.model_validate({"scenario": "http", **entry}),))


ONE = {"server": "nginx", "client": "asyncio", "activity": "get"}


def test_every_scenario_names_what_there_is() -> None:
    for name, given in catalog.scenarios().items():
        assert given.name == name
        for server in given.servers:
            assert registry.service(server).programs is not None
        for client in given.clients:
            assert registry.client(client).programs is not None
        assert given.about.strip().endswith(".")
        for activity, does in given.activities.items():
            assert does.about, f"{name}: {activity}"
            assert (does.attack_kind != "none") == does.attack, f"{name}: {activity}"


def test_every_corpus_expands_and_its_runs_have_names_and_addresses_of_their_own() -> None:
    assert {"small", "probe", "train"} <= set(catalog.corpora())
    for name in catalog.corpora():
        found = catalog.find(name)
        assert found.name == name
        runs = catalog.expand(found)
        assert len({run.id for run in runs}) == len({run.number for run in runs}) == len(runs)


def test_lists_are_grids() -> None:
    runs = catalog.expand(
        corpus(**ONE, link={"delay_ms": [1, 2, 3], "loss_pct": 1}, parameters={"requests": [1, 2]}, copies=2)
    )
    assert len(runs) == 12
    assert sorted({(r.link.delay_ms, r.parameters.requests) for r in runs}) == [
        (d, n) for d in (1, 2, 3) for n in (1, 2)
    ]
    assert len({run.seed for run in runs}) == 12


def test_all_means_what_fits() -> None:
    given = catalog.scenario("http")
    runs = catalog.expand(corpus())
    assert {(r.activity, r.server, r.client) for r in runs} == {
        (a, s, c) for a in given.activities for s in given.servers_of(a) for c in given.clients_of(a)
    }


def test_twins_differ_in_the_link_only() -> None:
    runs = catalog.expand(
        corpus(**ONE, link={"delay_ms": [5, 7]}, twins=[{}, {"loss_pct": 3}], copies=2, samples=4)
    )
    assert len(runs) == 8
    pairs: dict[str, list[Run]] = {}
    for run in runs:
        pairs.setdefault(run.pair, []).append(run)
    assert len(pairs) == 4
    for a, b in (sorted(pair, key=lambda r: r.twin) for pair in pairs.values()):
        assert (a.twin, b.twin, a.link.loss_pct, b.link.loss_pct) == ("a", "b", 0, 3)
        same = {"id": "", "number": 0, "twin": "", "link": a.link}
        assert a.model_copy(update=same) == b.model_copy(update=same)


def test_a_share_of_the_samples_keeps_every_run() -> None:
    given = corpus(**ONE, samples=20, users=8, copies=3, link={"delay_ms": [1, 2]})
    runs = catalog.expand(catalog.thinned(given, 0.3))
    assert len(runs) == 6
    assert {(r.samples, r.users) for r in runs} == {(6, 6)}
    assert [(r.id, r.seed) for r in runs] == [(r.id, r.seed) for r in catalog.expand(given)]
    assert {r.samples for r in catalog.expand(catalog.thinned(given, 0.001))} == {1}
    assert catalog.thinned(given, 1.0) == given
    for share in (0, 1.5, -1):
        with pytest.raises(LabError, match="share"):
            catalog.thinned(given, share)


def test_the_same_corpus_gives_the_same_runs_and_another_seed_others() -> None:
    given = corpus(copies=3)
    assert catalog.expand(given) == catalog.expand(given)
    other = catalog.expand(given.model_copy(update={"seed": 2}))
    assert {r.seed for r in other}.isdisjoint({r.seed for r in catalog.expand(given)})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"scenario": "nothing"}, "scenario 'nothing' is not one of"),
        ({"activity": "fly"}, r"corpus c: runs.0 \(http\): activity: 'fly' is not one of get"),
        ({"server": ["nginx", "iis"]}, "server: 'iis' is not one of"),
        ({"link": {"delay_ms": -1}}, r"link: delay_ms: .*greater than or equal to 0 \(got -1\)"),
        ({"link": {"lag": 1}}, r"link: lag: Extra inputs are not permitted"),
        ({"link": {"reorder_pct": 5}}, "reorder_pct needs delay_ms"),
        ({"parameters": {"content_bytes": "9-3"}}, "content_bytes 9-3 must lie between 0"),
        ({"parameters": {"content_bytes": "many"}}, "content_bytes"),
        ({"load": {"quota_pct": 101}}, "quota_pct: .*less than or equal to 100"),
        ({"twins": [{}]}, "twins: 1 link settings, must be 2 to 26"),
        ({"copies": 10_000}, "at most 65536"),
    ],
)
def test_what_is_wrong_is_named(entry: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        catalog.expand(corpus(**entry))


def test_a_wrong_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(LabError, match=r"c.yaml: No such file"):
        catalog.find(str(path))
    path.write_text("name: [")
    with pytest.raises(LabError, match=r"c.yaml: not YAML"):
        catalog.find(str(path))
    path.write_text("name: c\nabout: x\nruns: []\n")
    with pytest.raises(LabError, match=r"c.yaml: runs: .*at least 1"):
        catalog.find(str(path))
    path.write_text("name: c\nabout: x\nrun: 1\nruns: [{scenario: http, samples: 0}]\n")
    with pytest.raises(LabError, match=r"c.yaml: runs.0.samples: .*\(got 0\) \(and \d more\)"):
        catalog.find(str(path))
    with pytest.raises(LabError, match="'nothing' is not a corpus"):
        catalog.find("nothing")


def test_a_client_that_cannot_do_an_activity_is_told_apart_from_all() -> None:
    def guess(**entry: object) -> Corpus:
        return Corpus(
            name="c", about="", runs=(Entry.model_validate({"scenario": "password-guessing", **entry}),)
        )

    with pytest.raises(
        LabError, match="form-guess can only be done by form-guesser, hydra at sql-injectable, sql-prepared"
    ):
        catalog.expand(guess(activity="form-guess", client="ssh-guesser"))
    with pytest.raises(LabError, match="no activity fits this server and this client"):
        catalog.expand(guess(client="ssh-guesser", server="vsftpd"))
    with pytest.raises(LabError, match="ftp-guess can only be done by"):
        catalog.expand(guess(activity="ftp-guess", server="openssh"))
    assert len(catalog.expand(guess(activity="ftp-guess"))) == 2


def test_a_client_gets_only_servers_that_it_can_talk_to() -> None:
    runs = catalog.expand(Corpus(name="c", about="", runs=(Entry(scenario="sync", activity="put"),)))
    assert {(run.client, run.server) for run in runs} == {("rsync", "rsyncd"), ("unison", "unison")}


BEHIND = {"scenario": "dns", "server": "dnsmasq", "client": "dig", "activity": "lookup"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"background": [BEHIND | {"activity": "fly"}]}, r"background.0: activity: 'fly' is not one of"),
        ({"background": [BEHIND | {"client": "curl"}]}, r"background.0: curl cannot do dns lookup at dnsmasq"),
        ({"background": [BEHIND, BEHIND | {"parameters": {"x": 1}}]}, r"background.1: parameters: x: Extra inputs"),
        ({"background": [BEHIND | {"users": 64}] * 4}, r"257 client and 2 server hosts; at most 240 and 9"),
        ({"activity": "get", "parameters": {"termination": "none"}}, r"parameters.termination none: get can end by"),
        ({"load": {"quota_pct": 0.1}}, r"quota_pct 0.1 must be 0 \(no limit\) or at least 0.2"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_before_anything_is(entry: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        catalog.expand(corpus(**(ONE | entry)))


def test_sizes_are_a_number_or_a_range() -> None:
    assert Parameters(content_bytes=5).size_range == (5, 5)
    assert Parameters(content_bytes="5-70").size_range == (5, 70)
