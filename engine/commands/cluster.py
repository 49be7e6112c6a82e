"""Connection settings of a Kafka cluster, and its errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.errors import KafkaError

from connectors.bus.kafka_client import KafkaBusError, KafkaSettings, Secret, explain
from engine.config import Config
from engine.errors import ConfigError, OutputError


def settings_of(config: Config) -> KafkaSettings:
    """Connection settings of Kafka. Raises ConfigError when the configuration names no cluster."""
    if config.bus.url is None:
        raise ConfigError("bus.url: no Kafka cluster is named; give --bus kafka://HOST:PORT")
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
    """Raise errors of the cluster as OutputError."""
    try:
        yield
    except KafkaBusError as error:
        raise OutputError(str(error)) from error
    except KafkaError as error:  # not expected by any call
        raise OutputError(f"kafka: {explain(error)}") from error
