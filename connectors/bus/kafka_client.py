"""How Kafka is reached: addresses, settings of the client, secrets; and its errors in one line.

Secrets are named in the configuration (an environment variable or a file) and read when a client is made; they
never stand in a settings object, a log line or ``config show``.
"""

from __future__ import annotations

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

NO_TOPIC = "no such topic; make it with: wiresonde topics create"
CONNECT_SECONDS = 6.0  # until a broker must have answered for the first time
SECRET_SETTINGS = ("sasl_plain_password", "ssl_password", "token")
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

    kafka-python 3.0 throws such bytes away when both come at once, and a broker that refuses a password does just
    that: answers, and closes.
    """

    def received(transport: KafkaTCPTransport) -> tuple[bytes, Exception | None]:
        data, error = receive(transport)
        return data, None if data else error

    return received


for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = _last_words(_transport._sock_recv)


class KafkaBusError(Exception):
    """Kafka cannot be reached or refuses; the message says which broker and why."""


@dataclass(frozen=True)
class Secret:
    """Where a secret is found: an environment variable or a file, whose last line break is left off."""

    env: str | None = None
    file: Path | None = None

    def read(self, name: str) -> str:
        """The secret. KafkaBusError says where it should have been."""
        if self.env is not None:
            if self.env not in os.environ:
                raise KafkaBusError(f"{name}: the environment has no {self.env}")
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KafkaBusError(f"{name}: {self.file}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True)
class KafkaSettings:
    """Everything a client is made with. ``client`` is for all of them, the others for their kind."""

    servers: tuple[str, ...]
    prefix: str = ""  # of the names of all topics
    client: Mapping[str, Any] = field(default_factory=dict)
    producer: Mapping[str, Any] = field(default_factory=dict)
    consumer: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def topic(self, name: str) -> str:
        """The name of a topic in this cluster."""
        return self.prefix + name

    def connection(self) -> dict[str, Any]:
        """Settings of the connection, secrets included: for a client's constructor and nothing else."""
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
    """OAUTHBEARER token that something else renews in its file or environment: read at each connection."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def token(self) -> str:
        """The token as it is now."""
        return self._secret.read("token")


def check_settings(
    client: Mapping[str, Any],
    producer: Mapping[str, Any],
    consumer: Mapping[str, Any],
    secrets: Iterable[str],
) -> None:
    """Raise ValueError for settings that kafka-python does not have, or that are not the user's to set."""
    for section, given in (("client", client), ("producer", producer), ("consumer", consumer)):
        known = set().union(*(kind.DEFAULT_CONFIG for kind in KINDS[section]))
        for name in given:
            if name in SECRET_SETTINGS:
                raise ValueError(
                    f"{section}.{name}: a secret does not belong here; name its env or file in secrets"
                )
            if name in OURS:
                raise ValueError(f"{section}.{name}: set otherwise (the bus' URL, secrets)")
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
    """What kafka-python logs of failed connections: its exception at the end only says that time was up."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("kafka.net"), Listener(logging.WARNING)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    if logger.getEffectiveLevel() > logging.WARNING:  # nobody else wants to hear it
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
        ("socket disconnected", "the broker closes the connection (security_protocol, or it is starting)"),
    ):
        if any(sign in line for line in said):
            return words
    return explain(error)


def explain(error: BaseException) -> str:
    """An error of kafka-python in one line, without the name of its class twice."""
    name, text = type(error).__name__, " ".join(str(error).split())
    text = text.removeprefix(f"{name}: ").removeprefix(name)
    return f"{name}: {text}" if text else name
