"""A publisher that never makes a tap wait: messages that the bus does not take are spilled and sent later.

A thread of its own moves messages from the spill to the bus, in order. When the bus fails to deliver one, all
messages that are not in the log are published again over a new connection; readers recognise duplicates by their
numbers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from connectors.bus.disk_queue import Held
from connectors.bus.kafka import UndeliveredError
from connectors.bus.kafka_client import KafkaBusError
from connectors.bus.spill import Spill

logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between attempts to reach a bus that is down
LOOK = 0.05  # seconds between checks for messages that have arrived


class Bus(Protocol):
    """The final destination of messages, while it is up."""

    partitions: int

    @property
    def acknowledged(self) -> int:
        """Number of messages that have arrived together with all before them."""

    def publish(self, partition: int, value: bytes, *, about: str) -> object:
        """Append a message; may block. Raises KafkaBusError once a message could not be delivered."""

    def check(self) -> None:
        """Raise KafkaBusError when a message could not be delivered."""

    def close(self, timeout: float = 5.0) -> None:
        """Close; messages still in flight after ``timeout`` are dropped."""


@dataclass(frozen=True, slots=True)
class Spilled:
    """Packets of all messages so far, by what became of them."""

    published: int = 0  # in the log
    queue: int = 0  # dropped because the spill was full
    bus: int = 0  # refused by the bus, or left at the end
    waiting: int = 0  # still queued or in flight
    memory_bytes: int = 0
    disk_bytes: int = 0


class SpillingPublisher:
    """Takes messages at once and publishes them when the bus accepts them."""

    def __init__(self, connect: Callable[[], Bus], spill: Spill) -> None:
        """``connect``: connects to the bus; called again after a failure. The first call's errors are raised here."""
        self._connect, self._spill = connect, spill
        self._bus: Bus | None = connect()
        self.partitions = self._bus.partitions
        self._released = 0  # messages of this connection
        self._published = self._refused = 0  # packets
        self._changed = threading.Condition()
        self._ends: float | None = None  # time to give up
        self._closed: Spilled | None = None  # the counters at the end
        self.up = True
        self.problem: Exception | None = None  # error that ended the thread early
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def publish(self, partition: int, value: bytes, *, about: str, packets: int = 0) -> None:
        """Take a message at once. ``packets``: packets in it, for the counters."""
        with self._changed:
            self._spill.put(Held(partition, packets, value, about))
            self._changed.notify_all()

    def spilled(self) -> Spilled:
        """The counters."""
        with self._changed:
            s = self._spill
            return Spilled(
                self._published,
                s.dropped_packets,
                self._refused,
                s.waiting_packets,
                s.memory_bytes,
                s.disk_bytes,
            )

    def _run(self) -> None:
        try:
            while not self._is_over():
                if self._bus is None:
                    self._reconnect()
                    continue
                try:
                    self._send(self._bus)
                    self._bus.check()
                except KafkaBusError as error:
                    self._fail(self._bus, error)
        except Exception as error:  # packets pile up from here on, whatever the error
            logger.exception("the sender thread ended")
            self.up, self.problem = False, error
        if self._bus is not None:
            self._bus.close(0.0 if self._spill.unreleased else 5.0)

    def _is_over(self) -> bool:
        with self._changed:
            if self._ends is None:
                return False
            return (self._spill.empty and not self._spill.unreleased) or time.monotonic() > self._ends

    def _send(self, bus: Bus) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._spill.empty or self._ends is not None, LOOK)
            message = self._spill.take()
        if message is not None:
            try:
                bus.publish(message.partition, message.value, about=message.about)
            except ValueError as error:  # kept since before the topic was created again with fewer partitions
                logger.warning("message dropped: %s: %s", message.about, error)
                with self._changed:
                    self._refused += self._spill.give_up(-1)
        else:
            time.sleep(LOOK / 5)
        self._release(bus)

    def _release(self, bus: Bus) -> None:
        arrived = bus.acknowledged - self._released
        if not arrived:
            return
        with self._changed:
            self._published += self._spill.release(arrived)
        self._released += arrived
        if not self.up:
            logger.info("bus is up again")
            self.up = True

    def _fail(self, bus: Bus, error: KafkaBusError) -> None:
        self._release(bus)
        logger.warning("bus: %s", error)
        bus.close(0.0)
        self._release(bus)
        self.up, self._bus = False, None
        with self._changed:
            if isinstance(error, UndeliveredError) and error.refused:
                self._refused += self._spill.give_up(error.number - 1 - self._released)
            self._spill.rewind()

    def _reconnect(self) -> None:
        try:
            self._bus, self._released = self._connect(), 0
        except KafkaBusError as error:
            if self.up:
                logger.warning("bus is down: %s", error)
            self.up = False
            with self._changed:
                self._changed.wait_for(self._is_late, PAUSE)

    def _is_late(self) -> bool:
        return self._ends is not None and time.monotonic() > self._ends

    def close(self, timeout: float = 10.0) -> Spilled:
        """Publish queued messages for ``timeout`` seconds; the rest stays on disk, or counts as lost by the bus."""
        if self._closed is not None:
            return self._closed
        with self._changed:
            self._ends = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            bus = self._bus
            if bus is not None:
                bus.close(0.0)  # releases a waiting publish
            self._thread.join()
        before = self.spilled()
        lost = self._spill.close()
        self._refused += lost
        self._closed = replace(before, bus=self._refused, waiting=before.waiting - lost, memory_bytes=0)
        return self._closed
