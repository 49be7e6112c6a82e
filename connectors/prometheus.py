"""Metrics kept as plain arrays and served at /metrics through a custom collector.

A histogram takes a whole batch at once (searchsorted and bincount, 15 ns a value); ``observe`` of prometheus-client
costs over a microsecond for each value and is never called.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Labels = tuple[str, ...]


@dataclass
class Series:
    """One metric with all its label combinations."""

    kind: str  # counter, gauge or histogram
    name: str  # name without the _total that exposition adds to a counter
    help: str
    labels: Labels = ()
    bounds: tuple[
        float, ...
    ] = ()  # upper bounds of a histogram's buckets unless observed with others; without +Inf
    values: dict[Labels, Any] = field(default_factory=dict)

    def add(self, labels: Labels, value: float) -> None:
        """Increase a counter."""
        self.values[labels] = self.values.get(labels, 0.0) + value

    def set(self, labels: Labels, value: float) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        self.values[labels] = value

    def observe(
        self, labels: Labels, sample: NDArray[np.float64], bounds: tuple[float, ...] | None = None
    ) -> None:
        """Add all values of a batch to a histogram, without NaN. ``bounds``: of these labels, if they have others."""
        sample = sample[~np.isnan(sample)]
        if labels not in self.values:
            own = self.bounds if bounds is None else bounds
            self.values[labels] = (own, np.zeros(len(own) + 1, np.int64), 0.0)
        own, counts, total = self.values[labels]
        places = np.searchsorted(own, sample, side="left")
        counts = counts + np.bincount(places, minlength=len(own) + 1)
        self.values[labels] = (own, counts, total + float(sample.sum()))

    def family(self) -> Metric:
        """The series in prometheus-client's form."""
        if self.kind == "histogram":
            shown = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, (bounds, counts, total) in list(self.values.items()):
                edges = [*(repr(float(b)) for b in bounds), "+Inf"]
                shown.add_metric(labels, list(zip(edges, np.cumsum(counts).tolist())), total)
            return shown
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        plain = family(self.name, self.help, labels=self.labels)
        for labels, value in list(self.values.items()):
            plain.add_metric(labels, value)
        return plain


class BatchCollector:
    """All series of one process, for a prometheus-client registry."""

    def __init__(self, series: Sequence[Series]) -> None:
        """``series``: in the order of the page; the caller goes on changing them."""
        self._series = series
        self.lock = threading.Lock()  # held while a batch is added, so that a scrape never sees half a batch

    def collect(self) -> Iterator[Metric]:
        """The current families."""
        with self.lock:
            families = [series.family() for series in self._series]
        yield from families


def registry_of(collector: BatchCollector) -> CollectorRegistry:
    """A registry with this collector and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request; the threads do not keep the process alive."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class MetricsServer:
    """Serves /metrics, /healthz and /readyz until closed."""

    def __init__(
        self, collector: BatchCollector, host: str, port: int,
        healthy: Callable[[], bool] = lambda: True, ready: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        """Listen on host:port; port 0 takes a free one. Raises OSError when the address is taken.

        healthy, ready: called at each request; false answers 503.
        """
        metrics = make_wsgi_app(registry_of(collector))
        checks = {"/healthz": healthy, "/readyz": ready}

        def app(environ: dict[str, Any], start: Any) -> Any:
            check = checks.get(environ.get("PATH_INFO", ""))
            if check is None:
                return metrics(environ, start)
            good = check()
            start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"ok\n" if good else b"not ok\n"]

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = type("Server", (_Server,), {"address_family": family})
        self._server: WSGIServer = make_server(host, port, app, kind, _Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port = int(self._server.server_port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
