"""Every metric, with type, unit and help; updated once per block, never once per packet.

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
HOLD_BOUNDS = (0.001, 0.01, 0.1, 1.0)  # seconds that packets wait for one missing before them
REASONS = tuple(reason.name.lower() for reason in Reason if reason)


def serve(
    collector: BatchCollector, host: str, port: int | None,
    healthy: Callable[[], bool] = lambda: True, ready: Callable[[], bool] = lambda: True,
) -> MetricsServer | None:  # fmt: skip
    """Start the metrics endpoint; None without a port. Raises OutputError when the address is taken."""
    if port is None:
        return None
    try:
        return MetricsServer(collector, host, port, healthy, ready)
    except OSError as error:
        raise OutputError(f"cannot listen on {host}:{port} for metrics: {error.strerror}") from error


class Metrics:
    """The engine's metrics. ``slices``: names of the slice labels."""

    def __init__(
        self, slices: tuple[str, ...] = (), bounds: Mapping[str, tuple[float, ...]] | None = None
    ) -> None:
        """All series, at first without values. ``bounds``: upper bounds of the score histogram's buckets, by model."""
        self._bounds = dict(bounds or {})
        self._of_stream()
        self._of_models(slices)
        self._of_sequences()
        self._of_partitions()
        self.series = [s for s in vars(self).values() if isinstance(s, Series)]
        self.collector = BatchCollector(self.series)
        # a counter that first appears with its first event hides that event from rate()
        for series in self.series:
            if series.kind == "counter" and not series.labels:
                series.add((), 0)
        for kind in ("assigned", "revoked", "lost"):
            self.rebalances.add((kind,), 0)
        for reason in REASONS:
            self.unread.add((reason,), 0)
        for name in slices:
            self.folded.add((name,), 0)
        for name in self._bounds:
            self.cold_models.add((name,), 0)

    def _of_stream(self) -> None:
        """Packets, messages and connections."""
        self.packets = Series("counter", "wiresonde_packets", "Packets taken from the bus.", ("sensor",))
        self.blocks = Series("counter", "wiresonde_blocks", "Packet blocks taken from the bus.", ("sensor",))
        self.unread = Series(
            "counter", "wiresonde_unread_packets", "Packets whose headers could not all be read.", ("reason",)
        )
        self.dropped = Series(
            "counter", "wiresonde_dropped_packets", "Packets lost before the detector.", ("sensor", "where")
        )
        self.lost_packets = Series(
            "counter", "wiresonde_lost_packets", "Packet numbers missing between a sensor's blocks."
        )
        self.repeated_packets = Series(
            "counter", "wiresonde_repeated_packets", "Packets published twice and skipped the second time."
        )
        self.unreadable = Series(
            "counter", "wiresonde_unreadable_messages", "Messages on the bus that are not packet blocks."
        )
        self.late = Series(
            "counter", "wiresonde_late_packets", "Packets with a time before that of an earlier packet."
        )
        self.copies = Series("counter", "wiresonde_capture_copies", "Copies that captures made of packets.")
        self.steps_back = Series(
            "counter", "wiresonde_time_steps_back", "Times that a partition's event time went back."
        )
        self.live = Series("gauge", "wiresonde_live_connections", "Connections in the table.")
        self.opened = Series("counter", "wiresonde_opened_connections", "Connections opened.")
        self.evicted = Series(
            "counter", "wiresonde_evicted_connections", "Connections evicted because the table was full."
        )

    def _of_models(self, slices: tuple[str, ...]) -> None:
        """What models do and say, and the labels of what they say it of."""
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
            "gauge",
            "wiresonde_phase",
            "Partitions in which a model is in this phase.",
            ("model", "version", "phase"),
        )
        self.threshold = Series(
            "gauge",
            "wiresonde_threshold",
            "Score above which a connection raises an alarm; the highest of all partitions.",
            ("model", "version"),
        )
        model = ("model", "version", *slices)
        self.connections = Series(
            "counter",
            "wiresonde_connections",
            "Connections that ended, however many models scored them.",
            slices,
        )
        self.alarms = Series("counter", "wiresonde_alarms", "Ended connections that raised an alarm.", model)
        self.new_alarms = Series(
            "counter",
            "wiresonde_new_host_alarms",
            "Ended connections that raised an alarm, with a host that was not there when the model learned.",
            model,
        )
        self.score = Series("histogram", "wiresonde_score", "Scores of ended connections.", model)
        self.folded = Series(
            "counter",
            "wiresonde_folded_label_values",
            "Connections counted under the slice value other.",
            ("label",),
        )
        self.unknown_probes = Series(
            "counter", "wiresonde_unknown_probes", "Rows with a probe id that has no labels."
        )

    def _of_sequences(self) -> None:
        """What sequence models are given, and what waits for it."""
        self.tokens = Series("counter", "wiresonde_tokens", "Packets given to a sequence model.", ("model",))
        self.tokenless = Series(
            "counter",
            "wiresonde_tokenless_packets",
            "Packets without a token: not a connection's TCP (not_tcp), or left out by the model's policy.",
            ("model", "reason"),
        )
        self.waiting = Series(
            "gauge",
            "wiresonde_waiting_packets",
            "Packets that wait for one missing before them in their stream.",
            ("model",),
        )
        self.hold = Series(
            "histogram",
            "wiresonde_hold_seconds",
            "Event time that packets waited for one missing before them.",
            ("model",),
            HOLD_BOUNDS,
        )
        self.stream_holes = Series(
            "counter",
            "wiresonde_stream_holes",
            "Missing ranges let go: acknowledged by the peer, or not filled in time.",
            ("model", "reason"),
        )
        self.stream_fallbacks = Series(
            "counter",
            "wiresonde_stream_fallbacks",
            "Connections over a bound of reassembly, continued without it.",
            ("model",),
        )

    def _of_partitions(self) -> None:
        """What a member of a group has, and how it keeps its state."""
        partition = ("partition",)
        self.delay = Series(
            "histogram",
            "wiresonde_delay_seconds",
            "Time from publishing a message to writing its rows.",
            (),
            DELAY_BOUNDS,
        )
        self.lag = Series("gauge", "wiresonde_lag_messages", "Messages in the log, not yet read.", partition)
        self.next_offset = Series(
            "gauge", "wiresonde_next_offset", "Offset of the next message to read.", partition
        )
        self.rebalances = Series(
            "counter",
            "wiresonde_partition_changes",
            "Partitions assigned to or taken from this process.",
            ("kind",),
        )
        self.restored_offset = Series(
            "gauge",
            "wiresonde_restored_offset",
            "Offset at which this process took over the partition.",
            partition,
        )
        self.restore_seconds = Series(
            "gauge", "wiresonde_restore_seconds", "Time taken to take over the partition.", partition
        )
        self.cold_models = Series(
            "counter",
            "wiresonde_cold_models",
            "Partitions in which a shadow model started without state.",
            ("model",),
        )
        self.cold_starts = Series(
            "counter", "wiresonde_cold_starts", "Partitions started without the state of earlier packets."
        )
        self.snapshot_age = Series(
            "gauge",
            "wiresonde_snapshot_age_seconds",
            "Time since the partition's last snapshot.",
            partition,
        )
        self.snapshot_seconds = Series(
            "gauge", "wiresonde_snapshot_seconds", "Time taken to write the last snapshot.", partition
        )
        self.snapshot_bytes = Series(
            "gauge", "wiresonde_snapshot_bytes", "Size of the last snapshot.", partition
        )
        self.snapshot_failures = Series(
            "counter", "wiresonde_snapshot_failures", "Snapshots that could not be written."
        )
        self.snapshots_unreadable = Series(
            "counter", "wiresonde_unreadable_snapshots", "Damaged snapshots that were skipped."
        )
        self.in_flight = Series(
            "gauge",
            "wiresonde_in_flight_bytes",
            "Bytes sent to Kafka and not yet acknowledged.",
            ("topic",),
        )

    def scores(
        self, labels: tuple[str, ...], score: NDArray[np.float64], alarm: NDArray[np.bool_] | None,
        new: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Add scores of ended connections of one model and slice. labels: model, version, and the slice's values.

        alarm: None for a shadow, which has no alarm metric. new: whether the connection has a host new to the model.
        """
        if alarm is not None:
            self.alarms.add(labels, int(alarm.sum()))
            self.new_alarms.add(labels, int((alarm & new).sum()))
        self.score.observe(labels, score, self._bounds.get(labels[0], DEFAULT_BOUNDS))


class SensorMetrics:
    """Metrics of a tap, updated once a second."""

    def __init__(self) -> None:
        """All series, at first without values."""
        where = ("sensor", "interface")
        self.received = Series(
            "counter", "wiresonde_sensor_received_packets", "Packets received from the kernel.", where
        )
        self.published = Series(
            "counter", "wiresonde_sensor_published_packets", "Packets acknowledged by the bus.", where
        )
        self.dropped = Series(
            "counter",
            "wiresonde_sensor_dropped_packets",
            "Packets lost before the ring (kernel), because the ring or the spill (queue) was full, or by the bus.",
            (*where, "where"),
        )
        self.waiting = Series(
            "gauge", "wiresonde_sensor_waiting_packets", "Packets waiting for the bus.", where
        )
        self.spill = Series(
            "gauge", "wiresonde_sensor_spill_bytes", "Bytes waiting for the bus.", (*where, "where")
        )
        self.bus_up = Series(
            "gauge", "wiresonde_sensor_bus_up", "1 while the bus accepts messages, else 0.", where
        )
        self.skipped = Series(
            "counter",
            "wiresonde_sensor_skipped_packets",
            "Packets in a direction that is not captured.",
            where,
        )
        self.unstamped = Series(
            "counter", "wiresonde_sensor_unstamped_packets", "Packets without a hardware time stamp.", where
        )
        self.softnet = Series(
            "counter",
            "wiresonde_sensor_softnet_dropped_packets",
            "Packets of all interfaces dropped because a CPU's backlog was full.",
        )
        self.clock_steps = Series(
            "counter", "wiresonde_sensor_clock_steps", "Times the machine's clock was set.", where
        )
        self.correction = Series(
            "gauge",
            "wiresonde_sensor_clock_correction_seconds",
            "Seconds added to packet times after clock steps.",
            where,
        )
        self.series = [s for s in vars(self).values() if isinstance(s, Series)]
        self.collector = BatchCollector(self.series)
