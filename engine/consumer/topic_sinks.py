"""Sinks on the bus: scores as Arrow tables, alerts as ECS JSON; and the topic for unreadable messages.

All rows of a connection go in order to one partition of ``scores`` and ``alerts``: the packets' partition modulo the
topic's number of partitions. Rows carry (partition, offset, model, row), the first two of the packets topic, so that a
repeat is recognised.
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

ROWS = 2048  # most rows in a message, about a megabyte
KEPT_BYTES = 1 << 19  # most bytes kept of an unreadable message; the broker might refuse a larger one


class Topic(Protocol):
    """The topic that messages go to."""

    partitions: int

    def publish(
        self, partition: int, value: bytes | None, key: bytes | None = None, *,
        about: str = "", headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        """Append a message; may wait for room. Raises KafkaBusError after a failed delivery."""

    def flush(self) -> None:
        """Wait until all messages are in the log. Raises KafkaBusError."""


class ScoreTopic:
    """Sink: all rows, as messages of the scores topic."""

    def __init__(self, topic: Topic, probes: Probes) -> None:
        self._topic, self._probes = topic, probes

    def write(self, batch: ScoreBatch) -> None:
        """Publish a batch, in messages of at most 2,048 rows of one partition."""
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
        """Do nothing: messages are already sent."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- waits for all
        """Wait until all messages are in the log."""
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
        """Do nothing: messages are already sent."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- waits for all
        """Wait until all messages are in the log."""
        _settle(self._topic)


class DeadLetter:
    """Publishes messages that are not packet blocks; headers give the reason and the original place."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def __call__(self, message: Message, reason: str) -> None:
        """Publish the beginning of a message, unchanged."""
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
