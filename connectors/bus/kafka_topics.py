"""The topics of a Kafka cluster: creates them with the settings that recovery needs, and checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from connectors.bus.kafka_client import NO_TOPIC, KafkaBusError, KafkaSettings, connect, explain

PACKETS, PROBES, SCORES, ALERTS, DEAD_LETTER = "packets", "probes", "scores", "alerts", "dead-letter"
TOPICS = (PACKETS, PROBES, SCORES, ALERTS, DEAD_LETTER)
MESSAGE_BYTES = 4 << 20  # a block of 8,192 packets that does not compress has 0.8 MB
HOUR = 3_600_000  # ms


@dataclass(frozen=True)
class Topic:
    """A topic as the cluster reports it."""

    name: str
    id: str
    partitions: int
    replicas: int
    settings: dict[str, str]

    def number(self, name: str) -> int:
        """A numeric setting."""
        return int(self.settings.get(name, -1))


class Admin:
    """Queries and changes a cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises KafkaBusError when the cluster cannot be reached."""
        self._settings = settings
        self._client = connect(KafkaAdminClient, settings)

    def close(self) -> None:
        """Disconnect from the cluster."""
        self._client.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, partitions: int, replicas: int, retention_hours: float) -> list[str]:
        """Create the missing topics; returns their names. Raises KafkaBusError."""
        wanted = {
            self._settings.topic(name): {
                "num_partitions": 1 if name in (PROBES, DEAD_LETTER) else partitions,
                "replication_factor": replicas,
                "configs": _settings_of(name, replicas, retention_hours),
            }
            for name in TOPICS
        }
        made = []
        for name, options in wanted.items():
            try:
                self._client.create_topics({name: options}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue
            except (KafkaError, ValueError) as error:
                raise KafkaBusError(f"topic {name}: {explain(error)}") from None
            made.append(name)
        return made

    def describe(self, names: Sequence[str] = TOPICS) -> list[Topic]:
        """The existing topics, in the given order. Raises KafkaBusError."""
        full = [self._settings.topic(name) for name in names]
        try:
            found = {t["name"]: t for t in self._client.describe_topics(full) if not t.get("error_code")}
            asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in full if name in found]
            answer = self._client.describe_configs(asked, config_filter="all") if asked else {}
        except (KafkaError, ValueError) as error:
            raise KafkaBusError(f"topics {', '.join(full)}: {explain(error)}") from None
        settings = {name: values for by_name in answer.values() for name, values in by_name.items()}
        return [_topic(found[name], settings.get(name, {})) for name in full if name in found]

    def packets(self) -> Topic:
        """The packets topic. Raises KafkaBusError if it is missing or its settings break recovery."""
        found = self.describe((PACKETS,))
        if not found:
            name = self._settings.topic(PACKETS)
            raise KafkaBusError(f"topic {name}: {NO_TOPIC}")
        problems = [p for p in problems_of(PACKETS, found[0]) if p.stops]
        if problems:
            raise KafkaBusError(f"topic {found[0].name}: {problems[0].text}")
        return found[0]


def describe(kind: str, topic: Topic | None, prefix: str = "") -> tuple[list[str], list[str]]:
    """Lines about a topic for people, and its problems that break recovery."""
    if topic is None:
        text = f"{prefix}{kind}: missing; create it with: wiresonde topics create"
        return [text], [text]
    shown = ("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas")
    settings = " ".join(f"{name}={topic.settings[name]}" for name in shown if name in topic.settings)
    lines = [
        f"{topic.name}: {topic.partitions} partitions, {topic.replicas} replicas, id {topic.id}",
        f"  {settings}",
    ]
    problems = problems_of(kind, topic)
    lines += [f"  {'breaks recovery' if p.stops else 'note'}: {p.text}" for p in problems]
    return lines, [f"topic {topic.name}: {p.text}" for p in problems if p.stops]


def _settings_of(name: str, replicas: int, retention_hours: float) -> dict[str, str]:
    settings = {"max.message.bytes": str(MESSAGE_BYTES)}
    if replicas > 1:
        settings |= {
            "min.insync.replicas": str(max(1, replicas - 1)),
            "unclean.leader.election.enable": "false",
        }
    if name == PROBES:
        return {**settings, "cleanup.policy": "compact"}
    return {**settings, "cleanup.policy": "delete", "retention.ms": str(round(retention_hours * HOUR))}


def _topic(found: dict[str, Any], settings: dict[str, Any]) -> Topic:
    parts = found["partitions"]
    values = {name: v.get("value") if isinstance(v, dict) else v for name, v in settings.items()}
    return Topic(
        name=found["name"],
        id=str(found.get("topic_id", "")),
        partitions=len(parts),
        replicas=min((len(p["replica_nodes"]) for p in parts), default=0),
        settings={name: str(value) for name, value in values.items() if value is not None},
    )


@dataclass(frozen=True)
class Problem:
    """A problem of a topic that its user should know; ``stops``: it breaks recovery."""

    text: str
    stops: bool


def problems_of(kind: str, topic: Topic) -> list[Problem]:
    """Problems of a topic of a kind (one of TOPICS)."""
    found = []
    policy = topic.settings.get("cleanup.policy", "")
    if kind == PROBES:
        if policy != "compact":
            found.append(
                Problem(f"cleanup.policy is {policy}, must be compact: labels would be forgotten", True)
            )
        return found
    if "compact" in policy:
        found.append(
            Problem(f"cleanup.policy is {policy}, must be delete: compaction deletes messages", True)
        )
    if kind != PACKETS:
        return found
    size = topic.number("max.message.bytes")
    if 0 <= size < 1 << 20:
        found.append(
            Problem(f"max.message.bytes is {size}, must be at least {1 << 20} to take a block", True)
        )
    retention = topic.number("retention.ms")
    if 0 <= retention < HOUR:
        text = f"retention.ms is {retention}, must be at least {HOUR}: a snapshot could be older than the log"
        found.append(Problem(text, True))
    kept = topic.number("retention.bytes")
    if 0 <= kept < 1 << 28:
        found.append(Problem(f"retention.bytes is {kept}, must be at least {1 << 28} or -1", True))
    if topic.replicas > 1:
        if topic.number("min.insync.replicas") < 2:
            found.append(Problem("min.insync.replicas is below 2: acks=all waits for one broker only", False))
        if topic.settings.get("unclean.leader.election.enable") == "true":
            text = "unclean.leader.election.enable is true, must be false: a new leader may lack messages"
            found.append(Problem(text, True))
    elif topic.replicas == 1:
        found.append(Problem("one replica: the broker's disk is the only copy", False))
    return found
