"""Every metric there is, with type, unit and help; updated once a block, never once a packet.

Names, types and labels are an interface: dashboards and rules stand on them. Labels take few values: models,
reasons, and the slice labels that the configuration names; never an address, a port or a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from connectors.prometheus import BatchCollector, MetricsServer, Series
from engine.errors import OutputError
from engine.types import Reason

DEFAULT_BOUNDS = tuple(float(b) for b in np.round(np.geomspace(0.001, 100.0, 26), 6))
DELAY_BOUNDS = tuple(float(b) for b in np.round(np.geomspace(0.001, 100.0, 51), 6))
REASONS = tuple(reason.name.lower() for reason in Reason if reason)


def serve(
    collector: BatchCollector, host: str, port: int | None,
    healthy: Callable[[], bool] = lambda: True, ready: Callable[[], bool] = lambda: True,
) -> MetricsServer | None:  # fmt: skip
    """The endpoint, if there is to be one. Raises OutputError when the address is taken."""
    if port is None:
        return None
    try:
        return MetricsServer(collector, host, port, healthy, ready)
    except OSError as error:
        raise OutputError(f"metrics endpoint {host}:{port}: {error.strerror}") from error


class Metrics:
    """The engine's metrics. ``slices``: names of the slice labels."""

    def __init__(
        self, slices: tuple[str, ...] = (), bounds: Mapping[str, tuple[float, ...]] | None = None
    ) -> None:
        """All series, at first without values. ``bounds``: of the histogram of scores, by model."""
        self._bounds = dict(bounds or {})
        model = ("model", "version", *slices)
        self.packets = Series("counter", "wiresonde_packets", "Packets taken from the bus.", ("sensor",))
        self.blocks = Series("counter", "wiresonde_blocks", "Packet blocks taken from the bus.", ("sensor",))
        self.unread = Series(
            "counter", "wiresonde_unread_packets", "Packets that could not be read whole.", ("reason",)
        )
        self.dropped = Series(
            "counter", "wiresonde_dropped_packets", "Packets lost before the detector.", ("sensor", "where")
        )
        self.lost_packets = Series(
            "counter", "wiresonde_lost_packets", "Packet numbers missing between a sensor's blocks."
        )
        self.repeated_packets = Series(
            "counter", "wiresonde_repeated_packets", "Packets published again, recognised and skipped."
        )
        self.unreadable = Series(
            "counter", "wiresonde_unreadable_messages", "Messages of the bus that held no packet block."
        )
        self.late = Series("counter", "wiresonde_late_packets", "Packets older than one seen before.")
        self.live = Series("gauge", "wiresonde_live_connections", "Connections in the table.")
        self.opened = Series("counter", "wiresonde_opened_connections", "Connections ever opened.")
        self.evicted = Series(
            "counter", "wiresonde_evicted_connections", "Connections evicted because the table was full."
        )
        self.flows_evicted = Series(
            "counter",
            "wiresonde_evicted_flows",
            "Flows evicted because the feature tables were full.",
            ("model",),
        )
        self.out_of_range = Series(
            "counter", "wiresonde_out_of_range_inputs", "Model inputs outside the learned range.", ("model",)
        )
        self.phase = Series(
            "gauge", "wiresonde_phase", "Partitions in which a model is in this phase.", ("model", "phase")
        )
        self.threshold = Series(
            "gauge",
            "wiresonde_threshold",
            "Score above which a connection alarms; the greatest of the partitions' thresholds.",
            ("model",),
        )
        self.connections = Series(
            "counter",
            "wiresonde_connections",
            "Connections that ended, however many models scored them.",
            slices,
        )
        self.alarms = Series("counter", "wiresonde_alarms", "Connections that ended with an alarm.", model)
        self.score = Series("histogram", "wiresonde_score", "Scores of connections that ended.", model)
        self.folded = Series(
            "counter", "wiresonde_folded_label_values", "Connections whose slice value is other.", ("label",)
        )
        self.unknown_probes = Series(
            "counter", "wiresonde_unknown_probes", "Rows whose probe id no label dictionary explains."
        )
        partition = ("partition",)
        self.delay = Series(
            "histogram",
            "wiresonde_delay_seconds",
            "Time from a message's publishing to its rows.",
            (),
            DELAY_BOUNDS,
        )
        self.lag = Series(
            "gauge", "wiresonde_lag_messages", "Messages in the log and not yet taken.", partition
        )
        self.next_offset = Series("gauge", "wiresonde_next_offset", "Offset of the next message.", partition)
        self.rebalances = Series(
            "counter",
            "wiresonde_partition_changes",
            "Partitions that came to or left this process.",
            ("kind",),
        )
        self.restored_offset = Series(
            "gauge", "wiresonde_restored_offset", "Offset at which a partition was taken over.", partition
        )
        self.restore_seconds = Series(
            "gauge", "wiresonde_restore_seconds", "Time that taking a partition over took.", partition
        )
        self.cold_models = Series(
            "counter",
            "wiresonde_cold_models",
            "Partitions in which a shadow began without state.",
            ("model",),
        )
        self.cold_starts = Series(
            "counter", "wiresonde_cold_starts", "Partitions begun without the state of packets before."
        )
        self.snapshot_age = Series(
            "gauge",
            "wiresonde_snapshot_age_seconds",
            "Time since the last snapshot of a partition.",
            partition,
        )
        self.snapshot_seconds = Series(
            "gauge", "wiresonde_snapshot_seconds", "Time that writing the last snapshot took.", partition
        )
        self.snapshot_bytes = Series(
            "gauge", "wiresonde_snapshot_bytes", "Size of the last snapshot.", partition
        )
        self.snapshot_failures = Series(
            "counter", "wiresonde_snapshot_failures", "Snapshots that could not be written."
        )
        self.snapshots_unreadable = Series(
            "counter", "wiresonde_unreadable_snapshots", "Damaged snapshots that were passed over."
        )
        self.in_flight = Series(
            "gauge",
            "wiresonde_in_flight_bytes",
            "Bytes handed to Kafka and not yet acknowledged.",
            ("topic",),
        )
        self.series = [s for s in vars(self).values() if isinstance(s, Series)]
        self.collector = BatchCollector(self.series)
        for series in self.series:  # a counter that begins with its first event hides it from rate()
            if series.kind == "counter" and not series.labels:
                series.add((), 0)
        for kind in ("assigned", "revoked", "lost"):
            self.rebalances.add((kind,), 0)
        for reason in REASONS:
            self.unread.add((reason,), 0)
        for name in slices:
            self.folded.add((name,), 0)

    def scores(
        self, labels: tuple[str, ...], score: NDArray[np.float64], alarm: NDArray[np.bool_] | None
    ) -> None:
        """Add scores of ended connections of one model and slice. labels: model, version, and the slice's values.

        alarm: None for a shadow, which has no alarm metric.
        """
        if alarm is not None:
            self.alarms.add(labels, int(alarm.sum()))
        self.score.observe(labels, score, self._bounds.get(labels[0], DEFAULT_BOUNDS))


class SensorMetrics:
    """Metrics of a live capture, brought up to date once a second."""

    def __init__(self) -> None:
        """All series, at first without values."""
        where = ("sensor", "interface")
        self.received = Series(
            "counter", "wiresonde_sensor_received_packets", "Packets that the kernel handed over.", where
        )
        self.published = Series(
            "counter", "wiresonde_sensor_published_packets", "Packets that the bus has.", where
        )
        self.dropped = Series(
            "counter",
            "wiresonde_sensor_dropped_packets",
            "Packets lost before the ring (kernel), for want of room in the ring or the spill (queue), or by the bus.",
            (*where, "where"),
        )
        self.waiting = Series(
            "gauge", "wiresonde_sensor_waiting_packets", "Packets that wait for the bus.", where
        )
        self.spill = Series(
            "gauge", "wiresonde_sensor_spill_bytes", "What waits for the bus.", (*where, "where")
        )
        self.bus_up = Series("gauge", "wiresonde_sensor_bus_up", "Whether the bus takes messages.", where)
        self.skipped = Series(
            "counter", "wiresonde_sensor_skipped_packets", "Packets of a direction that is not wanted.", where
        )
        self.unstamped = Series(
            "counter", "wiresonde_sensor_unstamped_packets", "Packets without the hardware's time.", where
        )
        self.softnet = Series(
            "counter",
            "wiresonde_sensor_softnet_dropped_packets",
            "Packets of all interfaces that found a CPU's backlog full.",
        )
        self.clock_steps = Series(
            "counter", "wiresonde_sensor_clock_steps", "Times the clock was set.", where
        )
        self.correction = Series(
            "gauge", "wiresonde_sensor_clock_correction_seconds", "What is added to the clock since.", where
        )
        self.series = [s for s in vars(self).values() if isinstance(s, Series)]
        self.collector = BatchCollector(self.series)
