"""Connecting to Kafka: addresses, settings of the client, secrets; and its errors in one line.

The configuration names secrets (an environment variable or a file). They are read when a client is made, and never
appear in a settings object, a log line or ``config show``.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

NO_TOPIC = "no such topic; create it with: wiresonde topics create"
CONNECT_SECONDS = 6.0  # seconds within which a broker must answer for the first time
SECRET_SETTINGS = ("sasl_plain_password", "ssl_password", "token")
MOST_SECRET = 1 << 16  # most bytes taken of a file with a secret
OURS = ("bootstrap_servers", "bootstrap_timeout_ms", "sasl_oauth_token_provider", *SECRET_SETTINGS)

KINDS = {
    "client": (KafkaAdminClient, KafkaConsumer, KafkaProducer),
    "producer": (KafkaProducer,),
    "consumer": (KafkaConsumer,),
}

Client = TypeVar("Client", KafkaAdminClient, KafkaConsumer, KafkaProducer)


Receive = Callable[[KafkaTCPTransport], tuple[bytes, Exception | None]]


def _last_words(receive: Receive) -> Receive:
    """Deliver what a broker sent before it closed the connection; the next read meets the end again.

    kafka-python 3.0 discards such bytes when both come at once. A broker that refuses a password does just that: it
    answers and closes.
    """

    def received(transport: KafkaTCPTransport) -> tuple[bytes, Exception | None]:
        data, error = receive(transport)
        return data, None if data else error

    return received


for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = _last_words(_transport._sock_recv)


class KafkaBusError(Exception):
    """Kafka cannot be reached or refuses; the message names the broker and the reason."""


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_SECRET)


@functools.cache
def _piped(path: Path) -> bytes:
    """The contents of a pipe, which is empty when it is read for the next connection."""
    return _read(path)


@dataclass(frozen=True)
class Secret:
    """The place of a secret: an environment variable or a file, whose last line break is left off."""

    env: str | None = None
    file: Path | None = None

    def read(self, name: str) -> str:
        """The secret. KafkaBusError names the place when it is not there."""
        if self.env is not None:
            if self.env not in os.environ:
                raise KafkaBusError(f"{name}: the environment variable {self.env} is not set")
            return os.environ[self.env]
        try:
            path = Path(self.file or "")
            text = _piped(path) if path.exists() and not path.is_file() else _read(path)
            return text.decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KafkaBusError(f"{name}: {self.file}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True)
class KafkaSettings:
    """All settings for clients. ``client`` is for all of them, the others for their kind."""

    servers: tuple[str, ...]
    prefix: str = ""  # start of the names of all topics
    client: Mapping[str, Any] = field(default_factory=dict)
    producer: Mapping[str, Any] = field(default_factory=dict)
    consumer: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def topic(self, name: str) -> str:
        """The topic's name in this cluster."""
        return self.prefix + name

    def connection(self) -> dict[str, Any]:
        """Settings of the connection, secrets included: only for a client's constructor."""
        settings: dict[str, Any] = {
            "bootstrap_timeout_ms": round(CONNECT_SECONDS * 1000),
            **self.client,
            "bootstrap_servers": list(self.servers),
        }
        for name, secret in self.secrets.items():
            if name == "token":
                settings["sasl_oauth_token_provider"] = Token(secret)
            else:
                settings[name] = secret.read(name)
        return settings


class Token(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """OAUTHBEARER token that another program renews in its file or environment: read at each connection."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def token(self) -> str:
        """The current token."""
        return self._secret.read("token")


def check_settings(
    client: Mapping[str, Any],
    producer: Mapping[str, Any],
    consumer: Mapping[str, Any],
    secrets: Iterable[str],
) -> None:
    """Raise ValueError for settings that kafka-python does not have, or that the user may not set."""
    for section, given in (("client", client), ("producer", producer), ("consumer", consumer)):
        known = set().union(*(kind.DEFAULT_CONFIG for kind in KINDS[section]))
        for name in given:
            if name in SECRET_SETTINGS:
                raise ValueError(
                    f"{section}.{name}: secrets do not belong here; name the secret's env or file in secrets"
                )
            if name in OURS:
                raise ValueError(f"{section}.{name}: cannot be set here (use the bus URL or secrets)")
            if name not in known:
                raise ValueError(f"{section}.{name}: kafka-python has no such setting")
    for name in secrets:
        if name not in SECRET_SETTINGS:
            raise ValueError(f"secrets.{name}: not one of {', '.join(SECRET_SETTINGS)}")


def connect(kind: type[Client], settings: KafkaSettings, **more: Any) -> Client:
    """A client that has reached the cluster. Raises KafkaBusError with the brokers' addresses and the reason."""
    with _complaints() as said:
        try:
            own = {k: v for k, v in settings.connection().items() if k in kind.DEFAULT_CONFIG}
            return kind(**{**own, **more})
        except (KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
            where = ",".join(settings.servers)
            raise KafkaBusError(f"kafka://{where}: {_reason(said, error)}") from None


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """kafka-python's log of failed connections: its final exception only reports that time was up."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("kafka.net"), Listener(logging.WARNING)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    if logger.getEffectiveLevel() > logging.WARNING:  # nobody else wants these lines
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def _reason(said: list[str], error: Exception) -> str:
    for sign, words in (
        ("SaslAuthenticationFailed", "authentication failed: wrong user, password or token"),
        ("UnsupportedSaslMechanism", "the broker does not offer this sasl_mechanism"),
        ("CERTIFICATE_VERIFY_FAILED", "the broker's certificate could not be verified (ssl_cafile)"),
        ("WRONG_VERSION_NUMBER", "the broker does not speak TLS here (security_protocol)"),
        ("ECONNREFUSED", "connection refused"),
        (
            "socket disconnected",
            "the broker closes the connection (wrong security_protocol, or it is still starting)",
        ),
    ):
        if any(sign in line for line in said):
            return words
    return explain(error)


def explain(error: BaseException) -> str:
    """An error of kafka-python in one line, with the name of its class once."""
    name, text = type(error).__name__, " ".join(str(error).split())
    text = text.removeprefix(f"{name}: ").removeprefix(name)
    return f"{name}: {text}" if text else name
