"""Every metric there is, with type, unit and help; updated once a block, never once a packet.

Names, types and labels are an interface: dashboards and rules stand on them. Labels take few values: models,
reasons, and the slice labels that the configuration names; never an address, a port or a connection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from connectors.prometheus import BatchCollector, Series

SCORE_BOUNDS = tuple(float(b) for b in np.round(np.geomspace(0.001, 100.0, 26), 6))


class Metrics:
    """The engine's metrics. ``slices``: names of the slice labels."""

    def __init__(self, slices: tuple[str, ...] = ()) -> None:
        """All series, at first without values."""
        model = ("model", *slices)
        self.packets = Series("counter", "wiresonde_packets", "Packets taken from the bus.", ("sensor",))
        self.blocks = Series("counter", "wiresonde_blocks", "Packet blocks taken from the bus.", ("sensor",))
        self.unread = Series(
            "counter", "wiresonde_unread_packets", "Packets that could not be read whole.", ("reason",)
        )
        self.dropped = Series(
            "counter", "wiresonde_dropped_packets", "Packets lost before the detector.", ("sensor", "where")
        )
        self.lost_blocks = Series(
            "counter", "wiresonde_lost_blocks", "Block numbers missing between a sensor's blocks."
        )
        self.repeated_blocks = Series(
            "counter", "wiresonde_repeated_blocks", "Blocks that had been seen before and were skipped."
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
            "gauge", "wiresonde_threshold", "Score above which a connection alarms.", ("model",)
        )
        self.connections = Series("counter", "wiresonde_connections", "Connections that ended.", model)
        self.alarms = Series("counter", "wiresonde_alarms", "Connections that ended with an alarm.", model)
        self.score = Series(
            "histogram", "wiresonde_score", "Scores of connections that ended.", model, SCORE_BOUNDS
        )
        self.folded = Series(
            "counter", "wiresonde_folded_label_values", "Connections whose slice value is other.", ("label",)
        )
        self.series = [s for s in vars(self).values() if isinstance(s, Series)]
        self.collector = BatchCollector(self.series)

    def scores(
        self, model: str, slices: NDArray[np.int64], names: list[tuple[str, ...]],
        score: NDArray[np.float64], alarm: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Count ended connections. slices: (n,) index into names, the values of the slice labels."""
        for k in np.unique(slices).tolist():
            mine = slices == k
            labels = (model, *names[k])
            self.connections.add(labels, int(mine.sum()))
            self.alarms.add(labels, int(alarm[mine].sum()))
            self.score.observe(labels, score[mine])
