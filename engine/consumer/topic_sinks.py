"""Sinks on the bus: scores as Arrow tables, alerts as ECS JSON; and the topic for what could not be read.

All rows of a connection are on one partition of ``scores`` and ``alerts``, that of the packets modulo their number of
partitions, and in order. Rows carry (partition, offset, row) of the packets topic, so a repeat is recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import orjson

from connectors.bus.kafka_client import KafkaBusError
from connectors.bus.memory import Message
from engine.consumer.alerts import alert_documents
from engine.consumer.outlet import Spans
from engine.errors import OutputError
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch
from engine.scoring.columns import by_partition, encode_scores

ROWS = 2048  # of a message, about a megabyte at most
KEPT_BYTES = 1 << 19  # of a message that cannot be read; a larger one might be refused, again and again


class Topic(Protocol):
    """Where messages go."""

    partitions: int

    def publish(
        self, partition: int, value: bytes | None, key: bytes | None = None, *,
        about: str = "", headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        """Append a message; may wait for room. Raises KafkaBusError once one could not be delivered."""

    def flush(self) -> None:
        """Wait until all is in the log. Raises KafkaBusError."""


class ScoreTopic:
    """Sink: every row."""

    def __init__(self, topic: Topic, probes: Probes) -> None:
        self._topic, self._probes = topic, probes

    def write(self, batch: ScoreBatch) -> None:
        """Publish a batch, a message for each partition and 2,048 rows."""
        try:
            for partition, table in by_partition(batch, self._probes):
                for begin in range(0, table.num_rows, ROWS):
                    data = encode_scores(table.slice(begin, ROWS).combine_chunks())
                    to = partition % self._topic.partitions
                    self._topic.publish(
                        to, data, str(partition).encode(), about=f"scores of partition {partition}"
                    )
        except KafkaBusError as error:
            raise OutputError(str(error)) from error

    def flush(self, spans: Spans) -> None:
        """Nothing: messages are on their way."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- waits for all
        """Wait until all is in the log."""
        _settle(self._topic)


class AlertTopic:
    """Sink: an ECS document for each alarm, when it begins."""

    def __init__(self, topic: Topic, probes: Probes, observer: str) -> None:
        self._topic, self._probes, self._observer = topic, probes, observer

    def write(self, batch: ScoreBatch) -> None:
        """Publish the alarms that begin in a batch."""
        try:
            for document in alert_documents(batch, self._probes, self._observer):
                own = document["wiresonde"]
                to, key = own["partition"] % self._topic.partitions, own["uid"]
                self._topic.publish(
                    to, orjson.dumps(document), key.encode(), about=f"alert of connection {key}"
                )
        except KafkaBusError as error:
            raise OutputError(str(error)) from error

    def flush(self, spans: Spans) -> None:
        """Nothing: messages are on their way."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- waits for all
        """Wait until all is in the log."""
        _settle(self._topic)


class DeadLetter:
    """Takes messages that hold no packet block, with the reason and where they stood in headers."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def __call__(self, message: Message, reason: str) -> None:
        """Publish a message as it was."""
        where = f"{message.partition}/{message.offset}"
        headers = [
            ("reason", reason.encode()), ("partition", str(message.partition).encode()),
            ("offset", str(message.offset).encode()), ("size", str(len(message.value)).encode()),
        ]  # fmt: skip
        try:
            self._topic.publish(
                0, message.value[:KEPT_BYTES], where.encode(), about=f"dead letter {where}", headers=headers
            )
        except KafkaBusError as error:
            raise OutputError(str(error)) from error


def _settle(topic: Topic) -> None:
    try:
        topic.flush()
    except KafkaBusError as error:
        raise OutputError(str(error)) from error
