"""Metrics: batch histograms against prometheus-client's own, and what /metrics serves."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from connectors.prometheus import BatchCollector, MetricsServer, Series, registry_of
from engine.metrics import DEFAULT_BOUNDS, Metrics

BOUNDS = (0.1, 0.5, 1.0, 2.5)
samples = st.lists(st.sampled_from(BOUNDS) | st.floats(-1, 5) | st.just(float("inf")), max_size=40)


def shown(*series: Series) -> str:
    return generate_latest(registry_of(BatchCollector(series))).decode()


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of an exposition by name and labels."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in parse(text) for s in f.samples}


@given(batches=st.lists(samples, min_size=1, max_size=5))
def test_a_histogram_equals_prometheus_clients_own(batches: list[list[float]]) -> None:
    mine = Series("histogram", "wiresonde_test", "A test.", ("model",), BOUNDS)
    registry = CollectorRegistry()
    theirs = Histogram("wiresonde_test", "A test.", ["model"], buckets=BOUNDS, registry=registry)
    for batch in batches:
        mine.observe(("m",), np.array(batch, float))
        for value in batch:
            theirs.labels("m").observe(value)
    expected = {k: v for k, v in values(generate_latest(registry).decode()).items() if "_created" not in k[0]}
    got = values(shown(mine))
    if not any(batches):  # theirs has the series only once it was asked for
        got = {k: v for k, v in got.items() if k in expected}
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        # sums are of the same numbers in another order
        assert got[key] == (pytest.approx(value, rel=1e-12) if key[0].endswith("_sum") else value)


def test_values_that_are_not_numbers_are_left_out_of_a_histogram() -> None:
    series = Series("histogram", "wiresonde_test", "A test.", (), BOUNDS)
    series.observe((), np.array([np.nan, 0.3, np.nan]))
    assert values(shown(series))[("wiresonde_test_count", ())] == 1


def everything() -> Metrics:
    """Metrics with a value for every series."""
    metrics = Metrics(("task",))
    for series in metrics.series:
        labels = tuple(f'{name} "quoted"\n\\é' for name in series.labels)
        if series.kind == "histogram":
            series.observe(labels, np.array([0.1, 7.0]))
        elif series.kind == "gauge":
            series.set(labels, 2.5)
        else:
            series.add(labels, 3)
    return metrics


def test_the_exposition_of_every_metric_parses_with_its_type_help_and_labels() -> None:
    metrics = everything()
    for series in metrics.series:
        if series.name in (
            "wiresonde_unread_packets",
            "wiresonde_folded_label_values",
            "wiresonde_partition_changes",
        ):
            series.values = {
                k: v for k, v in series.values.items() if "quoted" in k[0]
            }  # not the zeros at first
    families = {f.name: f for f in parse(shown(*metrics.series))}
    assert set(families) == {series.name for series in metrics.series}
    for series in metrics.series:
        family = families[series.name]
        assert (family.type, family.documentation) == (series.kind, series.help)
        labels = {name: f'{name} "quoted"\n\\é' for name in series.labels}
        assert all({k: v for k, v in s.labels.items() if k != "le"} == labels for s in family.samples)


def test_the_exposition_is_also_good_openmetrics() -> None:
    text = generate_openmetrics(registry_of(everything().collector)).decode()  # type: ignore[no-untyped-call]
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert {f.name for f in families} == {series.name for series in everything().series}


def test_counters_end_in_total_and_no_metric_is_named_twice() -> None:
    metrics = everything()
    names = [series.name for series in metrics.series]
    assert len(set(names)) == len(names)
    text = shown(*metrics.series)
    for series in metrics.series:
        assert series.name.startswith("wiresonde_")
        assert series.help.endswith(".")
        assert not series.name.endswith("_total")
        assert (f"\n{series.name}_total" in text) == (series.kind == "counter")


def test_score_bounds_rise_and_have_short_names() -> None:
    assert list(DEFAULT_BOUNDS) == sorted(set(DEFAULT_BOUNDS))
    assert all(len(repr(bound)) <= 9 for bound in DEFAULT_BOUNDS)


def test_scores_are_counted_by_model_and_slice() -> None:
    metrics = Metrics(("task",))
    for task, score, alarm, new in (
        ("http", [0.1, 0.9, 0.2], [False, True, False], [True, True, False]), ("dns", [np.nan], [False], [True]),
        ("", [0.5], [True], [False]), ("http", [0.1], [False], [False]),
    ):  # fmt: skip
        metrics.scores(("kitsune", "v1", task), np.array(score), np.array(alarm), np.array(new))
    got = values(shown(*metrics.series))
    for name, alarms, scored in (("http", 1, 4), ("dns", 0, 0), ("", 1, 1)):
        labels = (("model", "kitsune"), ("task", name), ("version", "v1"))
        assert got[("wiresonde_alarms_total", labels)] == alarms
        assert got[("wiresonde_new_host_alarms_total", labels)] == (name == "http")
        assert got[("wiresonde_score_count", labels)] == scored


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain")
    return text


def test_a_server_on_a_free_port_serves_what_is_counted_now_and_closes() -> None:
    metrics = Metrics()
    server = MetricsServer(metrics.collector, "127.0.0.1", 0)
    try:
        assert "wiresonde_packets_total{" not in fetch(server.port)
        metrics.packets.add(("s",), 5)
        assert 'wiresonde_packets_total{sensor="s"} 5.0' in fetch(server.port)
    finally:
        server.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    MetricsServer(metrics.collector, "127.0.0.1", server.port).close()  # the port is free again


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            MetricsServer(Metrics().collector, "127.0.0.1", other.getsockname()[1])


def test_a_scrape_sees_whole_batches() -> None:
    """While a batch is added under the lock, alarms and scores of a scrape agree."""
    metrics, done = Metrics(), threading.Event()

    def count() -> None:
        one = np.zeros(1)
        while not done.is_set():
            with metrics.collector.lock:
                metrics.scores(("m", "v1"), one, one == 0, one == 0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(30):
            got: dict[Any, float] = values(generate_latest(registry_of(metrics.collector)).decode())
            labels = (("model", "m"), ("version", "v1"))
            assert got.get(("wiresonde_alarms_total", labels)) == got.get(("wiresonde_score_count", labels))
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(("healthy", "ready"), [(True, False), (False, True)])
def test_health_and_readiness_are_asked_at_each_request(healthy: bool, ready: bool) -> None:
    server = MetricsServer(Metrics().collector, "127.0.0.1", 0, lambda: healthy, lambda: ready)
    try:
        for path, good in (("healthz", healthy), ("readyz", ready), ("metrics", True)):
            url = server.url.replace("metrics", path)
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert (answer.status, good) == (200, True), path
            except urllib.error.HTTPError as error:
                assert (error.code, good) == (503, False), path  # noqa: PT017 -- what is asked for
                error.close()
    finally:
        server.close()
