"""Settings and secrets of Kafka clients, without a broker."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.net.transport import KafkaTCPTransport

from connectors.bus.kafka_client import KafkaBusError, KafkaSettings, Secret, explain
from connectors.bus.kafka_topics import Topic, problems_of


def test_secrets_are_read_when_a_client_is_made_and_stand_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("sesame\n")
    secrets = {
        "sasl_plain_password": Secret(file=tmp_path / "password"),
        "ssl_password": Secret(env="KEY_WORD"),
    }
    settings = KafkaSettings(("a:1", "b:2"), client={"security_protocol": "SASL_SSL"}, secrets=secrets)
    assert "sesame" not in repr(settings)
    with pytest.raises(KafkaBusError, match="ssl_password: the environment variable KEY_WORD is not set"):
        settings.connection()
    monkeypatch.setenv("KEY_WORD", "key")
    made = settings.connection()
    assert (made["sasl_plain_password"], made["ssl_password"]) == ("sesame", "key")
    assert made["bootstrap_servers"] == ["a:1", "b:2"]
    (tmp_path / "password").unlink()
    with pytest.raises(KafkaBusError, match=r"sasl_plain_password: .*password: No such file or directory"):
        settings.connection()


def test_a_token_is_read_anew_at_each_connection(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    provider = KafkaSettings(("a:1",), secrets={"token": Secret(file=tmp_path / "token")}).connection()[
        "sasl_oauth_token_provider"
    ]
    assert provider.token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert provider.token() == "second"


def test_errors_are_one_line_with_their_name_once() -> None:
    assert explain(KafkaTimeoutError("no answer\nafter 3 s")) == "KafkaTimeoutError: no answer after 3 s"
    assert explain(KafkaTimeoutError()) == "KafkaTimeoutError"


def test_what_a_broker_says_before_it_hangs_up_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    theirs.sendall(b"wrong password")
    theirs.close()
    with ours:
        ours.setblocking(False)
        transport = KafkaTCPTransport(None, ours)
        assert transport._sock_recv() == (b"wrong password", None)
        heard, error = transport._sock_recv()
    assert heard == b""
    assert isinstance(error, KafkaConnectionError)


def topic(replicas: int = 3, **settings: object) -> Topic:
    good = {
        "cleanup.policy": "delete", "retention.ms": 86_400_000, "retention.bytes": -1, "max.message.bytes": 4 << 20,
        "min.insync.replicas": 2, "unclean.leader.election.enable": "false",
    }  # fmt: skip
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return Topic("t", "id", 4, replicas, {k: str(v) for k, v in {**good, **named}.items()})


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("packets", {"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        ("packets", {"cleanup_policy": "compact,delete"}, "cleanup.policy is compact,delete"),
        ("packets", {"retention_ms": 60_000}, "retention.ms is 60000"),
        ("packets", {"retention_bytes": 1000}, "retention.bytes is 1000"),
        ("packets", {"max_message_bytes": 1000}, "max.message.bytes is 1000"),
        ("packets", {"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true"),
        ("probes", {"cleanup_policy": "delete"}, "cleanup.policy is delete"),
        ("scores", {"cleanup_policy": "compact"}, "cleanup.policy is compact"),
    ],
)  # fmt: skip
def test_settings_that_break_recovery_are_named(kind: str, settings: dict[str, object], said: str) -> None:
    found = [p for p in problems_of(kind, topic(**settings)) if p.stops]  # type: ignore[arg-type]
    assert len(found) == 1
    assert said in found[0].text


def test_good_topics_have_no_problem_and_lesser_ones_a_note() -> None:
    assert problems_of("packets", topic()) == []
    assert problems_of("packets", topic(retention_ms=-1)) == []
    assert [p.stops for p in problems_of("packets", topic(replicas=1))] == [False]
    assert [p.stops for p in problems_of("packets", topic(min_insync_replicas=1))] == [False]
