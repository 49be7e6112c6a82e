"""Brokers that restart, lose a leader, cannot be reached, or ask for a password."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from engine.consumer.segments import merge
from tests.integration.kafka.site import DEMO, Site, final_rows, wait_for
from tests.support import broker as brokers

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]

SECRET = "open-sesame-4711"


def test_a_replay_survives_a_restart_of_the_broker_once_and_in_order(tmp_path: Path) -> None:
    with brokers.running(tmp_path / "broker") as broker, Site(broker.address, tmp_path / "site") as site:
        site.make_topics()
        replay = site.start(site.command("replay", DEMO, "--speed", "10x"), site.folder / "replay.log")
        wait_for(lambda: sum(site.offsets().values()) > 30, "some messages")
        broker.restart()
        assert replay.wait(timeout=120) == 0, (site.folder / "replay.log").read_text()[-2000:]
        out = site.finish("all")
        assert "published    22,124 packets" in (site.folder / "replay.log").read_text()
        log = (site.folder / "all.log").read_text()
        assert "lost packets" not in log
        assert "packets published again" not in log
        whole = final_rows(merge([out]))
    total = sum(whole["orig_pkts"].to_pylist()) + sum(whole["resp_pkts"].to_pylist())
    assert total > 20_000


def test_a_replay_to_a_broker_that_stays_away_names_the_first_packet_not_published(tmp_path: Path) -> None:
    with brokers.running(tmp_path / "broker") as broker, Site(broker.address, tmp_path / "site") as site:
        kafka = {
            "prefix": site.prefix, "block_packets": 64,
            "producer": {"delivery_timeout_ms": 3000, "request_timeout_ms": 1000, "max_block_ms": 3000},
        }  # fmt: skip
        site.configure(bus={"url": f"kafka://{broker.address}", "kafka": kafka})
        site.make_topics()
        replay = site.start(site.command("replay", DEMO, "--speed", "10x"), site.folder / "replay.log")
        wait_for(lambda: sum(site.offsets().values()) > 30, "some messages")
        broker.kill()
        assert replay.wait(timeout=60) == 1
        said = (site.folder / "replay.log").read_text()
        found = re.search(
            r"wiresonde: packet ([\d,]+) of the stream \(partition \d\) was not published \((\d+) mess", said
        )
        assert found, said
        assert 30 * 64 / 4 < int(found[1].replace(",", "")) < 22_124


def test_bytes_on_their_way_to_a_broker_that_hangs_are_bounded(tmp_path: Path) -> None:
    with (
        brokers.running(tmp_path / "broker") as broker,
        Site(broker.address, tmp_path / "site", block_packets=4096) as site,
    ):
        kafka = {"prefix": site.prefix, "in_flight_bytes": 1 << 20}
        site.configure(bus={"url": f"kafka://{broker.address}", "kafka": kafka})
        site.make_topics()
        assert broker.process
        replay = site.start(site.command("replay", DEMO, "--loop", 200), site.folder / "replay.log")
        wait_for(lambda: sum(site.offsets().values()) > 5, "some messages")
        broker.process.send_signal(19)  # SIGSTOP
        try:
            before = resident(replay.pid)
            ends = time.monotonic() + 5  # unbounded, a gigabyte would be queued by then
            while time.monotonic() < ends:
                assert resident(replay.pid) < before + (64 << 20)
                time.sleep(0.2)
            assert replay.poll() is None
        finally:
            broker.process.send_signal(18)  # SIGCONT
            replay.terminate()
        assert replay.wait(timeout=60) == 0


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_leader_killed_in_a_cluster_of_three_loses_nothing(tmp_path: Path) -> None:
    with (
        brokers.cluster(tmp_path / "cluster") as three,
        Site(",".join(b.address for b in three), tmp_path / "site") as site,
    ):
        site.make_topics(replicas=3)
        described = site.run("topics", "describe").stdout
        assert "min.insync.replicas=2" in described
        detector = site.detect("first")
        replay = site.start(site.command("replay", DEMO, "--speed", "8x"), site.folder / "replay.log")
        wait_for(lambda: detector.said().count("restored") >= 4, "partitions")
        leader = leader_of(site, 0)
        victim = three[leader - 1]
        victim.kill()
        alive = next(b for b in three if b is not victim)
        site.address = alive.address
        wait_for(lambda: leader_of(site, 0) not in (leader, -1), "a new leader")
        assert replay.wait(timeout=120) == 0, (site.folder / "replay.log").read_text()[-2000:]
        detector.stop()
        last = site.finish("last")
        merged = merge([detector.out, last])
        assert merged.gaps == {}
        log = (site.folder / "last.log").read_text()
        assert "lost packets" not in log
        reference = site.undisturbed()
        assert merged.table.equals(reference.table)


def leader_of(site: Site, partition: int) -> int:
    admin = KafkaAdminClient(bootstrap_servers=site.address.split(","))
    try:
        topic = admin.describe_topics([f"{site.prefix}packets"])[0]
        return int(next(p["leader_id"] for p in topic["partitions"] if p["partition_index"] == partition))
    except KafkaError:  # asked the broker that is gone
        return -1
    finally:
        admin.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A broker that wants TLS and SCRAM, and its certificate."""
    folder = tmp_path_factory.mktemp("secured")
    make = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    )
    make += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    (folder / "store.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    jaas = (
        f'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="{SECRET}";'
    )
    properties = (
        "ssl.keystore.type=PEM", f"ssl.keystore.location={folder}/store.pem", "ssl.truststore.type=PEM",
        f"ssl.truststore.location={folder}/cert.pem", "sasl.enabled.mechanisms=SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512",
        f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={jaas}",
        "connection.failed.authentication.delay.ms=0",  # refusal and end of the connection come at once
    )  # fmt: skip
    scram = ("--add-scram", f"SCRAM-SHA-512=[name=u,password={SECRET}]")
    with brokers.running(
        folder / "broker", protocol="SASL_SSL", properties=properties, format_options=scram
    ) as broker:
        yield broker.address, folder / "cert.pem"


def secured_site(secured: tuple[str, Path], folder: Path, secret: dict[str, Any], **client: Any) -> Site:
    address, certificate = secured
    site = Site(address, folder, verbose=())
    kafka = {
        "prefix": site.prefix, "block_packets": 1024, "secrets": {"sasl_plain_password": secret},
        "client": {
            "security_protocol": "SASL_SSL", "ssl_cafile": str(certificate), "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "u",
        } | client,
    }  # fmt: skip
    site.configure(bus={"url": f"kafka://{address}", "kafka": kafka})
    return site


def test_tls_and_scram_work_and_no_secret_is_shown(
    secured: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = secured_site(secured, tmp_path, {"env": "TEST_KAFKA_PASSWORD"})
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", SECRET)
    shown = [site.run("config", "show").stdout]
    shown.append(site.run("topics", "create").stdout)
    site.verbose = ("-vv",)
    done = site.replay()
    shown += [done.stdout, done.stderr]
    detector = site.detect("secret", "--stop-at-end")
    shown.append(detector.ended())
    assert "22,124" in shown[-1]
    assert "env: TEST_KAFKA_PASSWORD" in shown[0]
    assert all(SECRET not in text for text in shown)


def test_a_password_from_a_file_works_too(secured: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET + "\n")
    site = secured_site(secured, tmp_path, {"file": str(tmp_path / "password")})
    assert "packets: created" in site.run("topics", "create").stdout


def test_a_wrong_password_is_a_clear_error_before_the_client_gives_up(
    secured: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", "wrong-4712")
    site = secured_site(secured, tmp_path, {"env": "TEST_KAFKA_PASSWORD"})
    done = site.run("topics", "describe", code=1)  # the client alone would try for ever
    assert done.stderr.splitlines() == [
        f"wiresonde: kafka://{secured[0]}: authentication failed: wrong user, password or token"
    ]
    assert "wrong-4712" not in done.stderr


def test_an_unknown_certificate_is_named(
    secured: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", SECRET)
    site = secured_site(secured, tmp_path, {"env": "TEST_KAFKA_PASSWORD"}, ssl_cafile=None)
    done = site.run("topics", "describe", code=1)
    assert "certificate could not be verified" in done.stderr


def test_a_missing_secret_is_named(secured: tuple[str, Path], tmp_path: Path) -> None:
    site = secured_site(secured, tmp_path, {"env": "TEST_KAFKA_NOT_SET"})
    done = site.run("topics", "describe", code=1)
    assert (
        done.stderr
        == "wiresonde: sasl_plain_password: the environment variable TEST_KAFKA_NOT_SET is not set\n"
    )


def test_a_secret_in_the_settings_is_refused_and_not_repeated(tmp_path: Path) -> None:
    site = Site("127.0.0.1:9", tmp_path)
    kafka = {"client": {"sasl_plain_password": SECRET}}
    site.configure(bus={"url": "kafka://127.0.0.1:9", "kafka": kafka})
    done = site.run("topics", "describe", code=2)
    assert "client.sasl_plain_password: secrets do not belong here" in done.stderr
    assert SECRET not in done.stderr


def test_a_broker_that_is_not_there_is_named_within_ten_seconds(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
        site = Site(address, tmp_path, verbose=())
        began = time.monotonic()
        done = site.run("topics", "describe", code=1)
    assert time.monotonic() - began < 10
    assert done.stderr == f"wiresonde: kafka://{address}: connection refused\n"
