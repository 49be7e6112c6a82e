"""A live source as configured: its sensor identity, and a feed for the embedded bus."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from connectors.bus.kafka_client import KafkaBusError, Secret
from connectors.bus.memory import MemoryBus
from connectors.live.settings import CaptureLostError
from engine.config import Config
from engine.errors import ConfigError, InputError
from engine.labels.rules import Labels
from engine.sensor.live import Source, publish_live
from engine.sensor.pseudonyms import Pseudonymiser, read_key
from engine.sensor.publisher import Publisher, Sensor
from engine.sensor.tally import Tally
from engine.types import Packets


def live_sensor(config: Config, block_packets: int, labels: Labels | None = None) -> Sensor:
    """The sensor identity for an interface. Each start is a separate run, identified by its time."""
    epoch = config.sensor.epoch
    return Sensor(
        config.sensor.name,
        time.time_ns() if epoch is None else epoch,
        block_packets,
        config.decode,
        labels,
        _hide(config),
    )


def _hide(config: Config) -> Callable[[Packets], Packets] | None:
    secret = config.privacy.pseudonym_key
    if secret is None:
        return None
    try:
        return Pseudonymiser(read_key(Secret(secret.env, secret.file).read("privacy.pseudonym_key"))).apply
    except (ValueError, KafkaBusError) as error:
        raise ConfigError(
            f"privacy.pseudonym_key: {str(error).removeprefix('privacy.pseudonym_key: ')}"
        ) from None


def spill_directory(config: Config, interface: str) -> Path | None:
    """Directory for an interface's packets while they wait for the bus; None: no disk is used."""
    return None if config.spill.directory is None else config.spill.directory / interface


class Tap:
    """A live source that publishes to the embedded bus; while the bus is full, packets wait in the kernel's ring."""

    endless = True
    labelled = None

    def __init__(self, source: Source, interface: str, config: Config, labels: Labels | None) -> None:
        """Its name is made of the start time in UTC, the interface and the process id."""
        self.source = source
        self.name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{interface}-{os.getpid()}"
        self.tally = Tally()
        self._sensor = live_sensor(config, config.bus.block_packets, labels)
        self.published = 0

    def publish(self, bus: MemoryBus) -> None:
        """Publish until stopped. Raises InputError if the interface disappears."""
        publisher = Publisher(self._sensor, bus, self.tally)
        try:
            publish_live(self.source, publisher)
        except CaptureLostError as error:
            raise InputError(str(error)) from None
        finally:
            self.published = publisher.packets

    def stop(self) -> None:
        """Take no more packets and end."""
        self.source.stop()
