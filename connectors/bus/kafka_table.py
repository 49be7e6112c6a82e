"""A compacted Kafka topic as a dictionary: the latest value of each key."""

from __future__ import annotations

import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from connectors.bus.kafka_client import NO_TOPIC, KafkaBusError, KafkaSettings, connect, explain

SECONDS = 30.0  # seconds within which a refresh must reach the end


class KafkaTable:
    """Values by key, as of the last ``refresh``."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        """Raises KafkaBusError when the topic cannot be reached."""
        self.topic = settings.topic(topic)
        self.values: dict[bytes, bytes] = {}
        fixed = {
            "enable_auto_commit": False, "auto_offset_reset": "earliest", "group_id": None,
            "allow_auto_create_topics": False,
        }  # fmt: skip
        self._consumer = connect(KafkaConsumer, settings, **{**settings.consumer, **fixed})
        try:
            partitions, problem = self._consumer.partitions_for_topic(self.topic), NO_TOPIC
        except KafkaError as error:  # the broker went away between two requests
            partitions, problem = None, explain(error)
        if not partitions:
            self._consumer.close()
            raise KafkaBusError(f"topic {self.topic}: {problem}")
        self._at = [TopicPartition(self.topic, p) for p in sorted(partitions)]
        self._consumer.assign(self._at)
        for at in self._at:
            self._consumer.seek(at, 0)
        self._consumer.seek_to_beginning()

    def refresh(self) -> dict[bytes, bytes]:
        """Read up to the topic's current end; returns all values. Raises KafkaBusError."""
        until = time.monotonic() + SECONDS
        try:
            ends = self._consumer.end_offsets(self._at)
            while any(self._consumer.position(at) < ends[at] for at in self._at):
                if time.monotonic() > until:
                    raise KafkaBusError(f"topic {self.topic}: not read to its end within {SECONDS:.0f} s")
                for records in self._consumer.poll(200).values():
                    for record in records:
                        if record.value is None:
                            self.values.pop(record.key, None)
                        elif record.key is not None:
                            self.values[record.key] = record.value
        except KafkaError as error:
            raise KafkaBusError(f"topic {self.topic}: {explain(error)}") from None
        return self.values

    def close(self) -> None:
        """Disconnect from the cluster."""
        self._consumer.close()
