"""How commands reach a Kafka cluster, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.errors import KafkaError

from connectors.bus.kafka_client import KafkaBusError, KafkaSettings, Secret, explain
from engine.config import Config
from engine.errors import ConfigError, OutputError


def settings_of(config: Config) -> KafkaSettings:
    """How Kafka is reached. ConfigError when the configuration names no cluster."""
    if config.bus.url is None:
        raise ConfigError("bus.url: no Kafka is named; give --bus kafka://HOST:PORT")
    k = config.bus.kafka
    return KafkaSettings(
        servers=tuple(config.bus.url.removeprefix("kafka://").split(",")),
        prefix=k.prefix,
        client=k.client,
        producer=k.producer,
        consumer=k.consumer,
        secrets={name: Secret(s.env, s.file) for name, s in k.secrets.items()},
    )


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Errors of the cluster as ours."""
    try:
        yield
    except KafkaBusError as error:
        raise OutputError(str(error)) from error
    except KafkaError as error:  # what no call expected
        raise OutputError(f"kafka: {explain(error)}") from error
