"""What a detector does when the log is not what its snapshot says, or holds what it cannot read."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import urllib.error
import urllib.request
from functools import partial

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaConnectionError

from connectors.bus import codec
from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaBusError
from connectors.bus.kafka_table import KafkaTable
from connectors.bus.kafka_topics import PROBES, Admin
from engine.consumer.segments import Merged, merge
from tests.integration.kafka.site import DEMO, LABELS, Site, assert_equal, final_rows, wait_for
from tests.integration.live.ring import tagged
from tests.support.capture_bytes import pcap

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]


def refused(site: Site, name: str, said: str) -> None:
    """A detector that ends with one line, exit 1."""
    detector = site.detect(name, "--stop-at-end")
    text = detector.ended(1)
    lines = [line for line in text.splitlines() if line.startswith("wiresonde: ")]
    assert len(lines) == 1, text[-2000:]
    assert said in lines[0]
    assert "Traceback" not in text


def test_a_snapshot_older_than_retention_stops_with_the_way_to_repair_it(empty_site: Site) -> None:
    empty_site.replay()
    empty_site.finish("first")
    empty_site.replay("--epoch", 2)
    ends = empty_site.offsets()
    held = {int(p.parent.name): int(p.stem) for p in empty_site.snapshots()}
    admin = KafkaAdminClient(bootstrap_servers=empty_site.address)
    gone = {TopicPartition(f"{empty_site.prefix}packets", 2): ends[2] - 5}
    admin.delete_records(gone)
    admin.close()
    refused(
        empty_site,
        "second",
        f"the snapshot continues at offset {held[2]}, but the log begins at {ends[2] - 5}",
    )
    text = (empty_site.folder / "second.log").read_text()
    assert f"move {empty_site.state}/{empty_site.prefix}packets/2 away" in text
    (empty_site.state / f"{empty_site.prefix}packets" / "2").rename(empty_site.folder / "away")
    third = empty_site.finish("third")
    assert "starting cold at" in (empty_site.folder / "third.log").read_text()
    rows = merge([third]).table.filter(pa.compute.equal(merge([third]).table["partition"], 2))
    assert rows.num_rows > 0
    assert all(rows["midstream"].to_pylist())


def test_a_detector_without_a_snapshot_whose_log_is_whole_is_exact(site: Site, wanted: Merged) -> None:
    first = site.finish("first", group="bare")
    for path in site.snapshots():
        path.unlink()
    again = site.finish("again", group="bare")
    assert "no snapshot, reading the log from its start" in (site.folder / "again.log").read_text()
    assert_equal(merge([first, again]), wanted)
    assert merge([first, again]).repeated > 0


def test_a_topic_made_anew_is_noticed(empty_site: Site) -> None:
    empty_site.replay()
    empty_site.finish("first")
    old = empty_site.topic_id()
    admin = KafkaAdminClient(bootstrap_servers=empty_site.address)
    admin.delete_topics([f"{empty_site.prefix}packets"])
    ends = time.monotonic() + 30
    while any(
        t["name"].endswith("packets") for t in admin.describe_topics() if empty_site.prefix in t["name"]
    ):
        assert time.monotonic() < ends
        time.sleep(0.1)
    admin.close()
    empty_site.make_topics()
    new = empty_site.topic_id()
    assert new != old
    refused(
        empty_site, "second", f"a snapshot of topic id {old}, but the topic was created again and has {new}"
    )


def test_another_number_of_partitions_is_noticed_at_the_start(empty_site: Site) -> None:
    empty_site.replay()
    empty_site.finish("first")
    admin = KafkaAdminClient(bootstrap_servers=empty_site.address)
    admin.create_partitions({f"{empty_site.prefix}packets": 6})
    admin.close()
    wait_for(lambda: partitions(empty_site) == 6, "six partitions")
    refused(empty_site, "second", "a snapshot of a topic with 4 partitions, which now has 6")


def partitions(site: Site) -> int:
    with Admin(site.kafka) as admin:
        return admin.packets().partitions


def test_another_number_of_partitions_is_noticed_while_running(empty_site: Site) -> None:
    consumer = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 500, "metadata_max_age_ms": 1000}
    bus = {
        "url": f"kafka://{empty_site.address}",
        "kafka": {"prefix": empty_site.prefix, "block_packets": 64, "consumer": consumer},
    }
    empty_site.configure(bus=bus)
    empty_site.replay()
    running = empty_site.detect("running")
    wait_for(empty_site.snapshots, "a snapshot")
    admin = KafkaAdminClient(bootstrap_servers=empty_site.address)
    admin.create_partitions({f"{empty_site.prefix}packets": 6})
    admin.close()
    text = running.ended(1)
    assert "the topic has 6 partitions now and had 4" in text


def test_another_configuration_is_noticed(site: Site) -> None:
    site.finish("first", group="configured")
    site.configure(connections={"capacity": 4096, "udp_timeout": 30.0})
    refused(site, "second", "a snapshot of another configuration")


def test_a_capture_published_twice_is_recognised(empty_site: Site, wanted: Merged) -> None:
    empty_site.replay()
    empty_site.replay()
    out = empty_site.finish("both")
    log = (empty_site.folder / "both.log").read_text()
    assert "packets published again, skipped 22,124" in log
    got, once = final_rows(merge([out])), final_rows(wanted)
    columns = [c for c in once.column_names if c not in ("offset", "row", "partition")]
    order = [("uid", "ascending"), ("ts", "ascending")]
    assert got.select(columns).sort_by(order).equals(once.select(columns).sort_by(order))


def test_a_replay_that_was_cut_off_can_be_given_again(empty_site: Site, wanted: Merged) -> None:
    first = empty_site.start(
        empty_site.command("replay", DEMO, "--labels", LABELS, "--speed", "20x"),
        empty_site.folder / "replay.log",
    )
    wait_for(lambda: sum(empty_site.offsets().values()) > 20, "some messages")
    first.kill()
    first.wait()
    empty_site.replay()
    out = empty_site.finish("whole")
    got, once = final_rows(merge([out])), final_rows(wanted)
    columns = [c for c in once.column_names if c not in ("offset", "row", "partition")]
    order = [("uid", "ascending"), ("ts", "ascending")]
    assert got.select(columns).sort_by(order).equals(once.select(columns).sort_by(order))


def test_a_looped_replay_is_new_traffic_each_time(empty_site: Site) -> None:
    done = empty_site.replay("--loop", 3)
    assert f"published    {3 * 22124:,} packets" in done.stdout
    out = empty_site.finish("looped")
    assert "packets published again" not in (empty_site.folder / "looped.log").read_text()
    rows = final_rows(merge([out]))
    packets = sum(rows["orig_pkts"].to_pylist()) + sum(rows["resp_pkts"].to_pylist())
    assert packets > 2 * 22124
    assert len(set(rows["uid"].to_pylist())) == rows.num_rows


def send(site: Site, partition: int, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=site.address)
    producer.send(f"{site.prefix}packets", value, partition=partition)
    producer.flush()
    producer.close()


def read_all(site: Site, topic: str) -> list[object]:
    """Everything in a topic."""
    consumer = KafkaConsumer(
        f"{site.prefix}{topic}",
        bootstrap_servers=site.address,
        auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )
    try:
        return list(consumer)
    finally:
        consumer.close()


def test_a_poison_message_goes_to_the_dead_letters_and_processing_goes_on(empty_site: Site) -> None:
    empty_site.replay()
    at = empty_site.offsets()[1]
    send(empty_site, 1, b"\x00not arrow")
    empty_site.replay("--epoch", 2)
    out = empty_site.finish("past")
    letters = read_all(empty_site, "dead-letter")
    assert [letter.value for letter in letters] == [b"\x00not arrow"]  # type: ignore[attr-defined]
    headers = dict(letters[0].headers)  # type: ignore[attr-defined]
    assert headers["partition"] == b"1"
    assert headers["offset"] == str(at).encode()
    assert b"not a wiresonde message" in headers["reason"]
    merged = merge([out])
    assert merged.spans[1] == [(0, empty_site.offsets()[1])]
    assert max(merged.table.filter(pa.compute.equal(merged.table["partition"], 1))["offset"].to_pylist()) > at


def test_a_message_of_a_newer_schema_stops_and_is_not_skipped(
    empty_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "FORMAT", codec.FORMAT + 1)
    newer = codec.encode({}, {})
    empty_site.replay()
    at = empty_site.offsets()[0]
    send(empty_site, 0, newer)
    refused(empty_site, "older", f"partition=0 offset={at}: message format 3; this version reads up to 2")
    assert read_all(empty_site, "dead-letter") == []


def test_scores_and_alerts_of_the_topics_are_those_of_the_files(empty_site: Site) -> None:
    empty_site.replay()
    out = empty_site.finish("topics")
    merged = merge([out])
    tables = [pa.ipc.open_stream(m.value).read_all() for m in read_all(empty_site, "scores")]  # type: ignore[attr-defined]
    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata(None)
    order = [("partition", "ascending"), ("offset", "ascending"), ("row", "ascending")]
    assert table.num_rows == merged.table.num_rows
    for name in merged.table.column_names:
        if not name.startswith("label."):
            a, b = (t.sort_by(order)[name].combine_chunks() for t in (table, merged.table))
            assert a.equals(b), name
    lines = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    alerts = [json.loads(m.value) for m in read_all(empty_site, "alerts")]  # type: ignore[attr-defined]
    assert sorted(a["event"]["id"] for a in alerts) == sorted(a["event"]["id"] for a in lines)
    of_ip = [a for a in alerts if a["network"]["type"] != "arp"]  # no label matches a row of ARP
    assert of_ip
    assert {a["labels"]["task"] for a in of_ip} <= {"scan", "ssh", "http", "dns", "ping"}
    assert all({"partition", "offset", "row"} <= a["wiresonde"].keys() for a in alerts)
    tagged = table.filter(pa.compute.not_equal(table["probe"], 0))
    assert tagged.num_rows > 0
    assert None not in tagged["label.task"].to_pylist()


def test_a_detector_refuses_a_topic_whose_settings_break_recovery(
    kafka_address: str, empty_site: Site
) -> None:
    bad = dataclasses.replace(empty_site, prefix=empty_site.prefix + "bad.", folder=empty_site.folder / "bad")
    with Admin(bad.kafka) as admin:
        admin._client.create_topics(
            {
                f"{bad.prefix}packets": {
                    "num_partitions": 2,
                    "replication_factor": 1,
                    "configs": {"cleanup.policy": "compact"},
                }
            },
            wait_for_metadata=True,
        )
    refused(bad, "refusing", "cleanup.policy is compact, must be delete")
    done = bad.run("topics", "describe", code=1)
    assert "breaks recovery: cleanup.policy is compact" in done.stdout
    done = bad.replay(code=1)
    assert "cleanup.policy is compact" in done.stderr
    assert kafka_address in bad.config.read_text()


def test_a_paced_replay_keeps_the_times_and_says_how_late_it_was(empty_site: Site) -> None:
    began = time.monotonic()
    done = empty_site.replay("--speed", "40x")
    assert time.monotonic() - began > 85.0 / 40
    found = re.search(r"pacing       late by ([\d.]+) ms on average, ([\d.]+) at worst", done.stdout)
    assert found, done.stdout
    assert 0 <= float(found[1]) <= float(found[2]) < 2000
    assert "pacing" not in empty_site.replay().stdout


def test_a_replay_takes_folders_and_filters_and_bounds_pauses(empty_site: Site) -> None:
    folder = empty_site.folder / "captures"
    folder.mkdir()
    begin = 1_700_000_000_000_000
    for name, second in (("b.pcap", 0), ("a.pcap", 4000)):  # each pauses for 1,000 s
        times = [begin + (second + k) * 1_000_000 for k in (0, 1, 1001, 1002)]
        (folder / name).write_bytes(pcap([(ts, tagged(), 60) for ts in times] + [(times[-1], b"x" * 60, 60)]))
    done = empty_site.run("replay", folder, "--speed", "10x", "--max-gap", "2", "--filter", "udp port 53")
    assert "published    8 packets" in done.stdout
    assert "pauses       3 pauses shortened by --max-gap, by 4,992.0 s of the capture" in done.stdout
    assert "2 packets left out by --filter" in done.stderr.splitlines()
    report = empty_site.run(
        "detect", "--group", "g", "--state", folder, "--stop-at-end", "--json", "--learn", 10
    )
    assert json.loads(report.stdout)["packets"] == 8


def test_a_detector_says_the_same_of_what_it_could_not_read(empty_site: Site) -> None:
    path = empty_site.folder / "w.pcap"
    path.write_bytes(pcap([(k, b"x" * 60, 60) for k in range(12)], link_type=147))
    assert "12 packets not read: no decoder for link type 147" in empty_site.run("replay", path).stderr
    report = empty_site.run(
        "detect", "--group", "g", "--state", empty_site.folder, "--stop-at-end", "--json", "--learn", 10
    )
    said = "12 packets not read: no decoder for their link type"
    assert said in json.loads(report.stdout)["notes"]
    assert said in report.stderr.splitlines()


def test_a_detector_says_when_it_is_ready_and_what_it_is_behind(empty_site: Site) -> None:
    empty_site.replay()
    detector = empty_site.detect("served", "--metrics-port", 0)
    address = wait_for(lambda: re.search(r"metrics at (\S+)/metrics", detector.said()), "an address")[1]
    wait_for(lambda: status(f"{address}/readyz") == 200, "ready")
    assert status(f"{address}/healthz") == 200
    ends = empty_site.offsets()

    def value(name: str) -> float | None:
        found = re.search(rf"^{re.escape(name)} (\S+)$", get(f"{address}/metrics"), re.MULTILINE)
        return float(found[1]) if found else None

    labels = {partition: f'{{partition="{partition}"}}' for partition in ends}
    wait_for(
        lambda: {p: value(f"wiresonde_next_offset{label}") for p, label in labels.items()} == ends,
        "all messages",
    )
    wait_for(lambda: all(value(f"wiresonde_lag_messages{at}") == 0 for at in labels.values()), "no lag")
    wait_for(
        lambda: all((value(f"wiresonde_snapshot_bytes{at}") or 0) > 1000 for at in labels.values()),
        "snapshots",
    )
    for at in labels.values():
        assert value(f"wiresonde_restored_offset{at}") == 0
        assert (value(f"wiresonde_snapshot_age_seconds{at}") or 0) < 60
    assert value("wiresonde_packets_total") is None  # it has a label
    assert value('wiresonde_packets_total{sensor="wiresonde"}') == 22124
    assert value('wiresonde_partition_changes_total{kind="assigned"}') == 4
    assert value('wiresonde_in_flight_bytes{topic="scores"}') is not None
    assert value("wiresonde_delay_seconds_count") == sum(ends.values())
    tasks = re.compile(r'wiresonde_connections_total\{.*task="(\w*)"')
    wait_for(lambda: {"http", "dns", "scan"} <= set(tasks.findall(get(f"{address}/metrics"))), "a last flush")
    detector.stop()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def test_a_subscriber_that_polls_for_moments_gets_through_every_join(empty_site: Site) -> None:
    settings = dataclasses.replace(empty_site.kafka, consumer={"metadata_max_age_ms": 300})
    subscriber = KafkaSubscriber(settings, "packets", "hasty")
    admin = KafkaAdminClient(bootstrap_servers=empty_site.address)
    try:
        held: set[int] = set()

        def joins(count: int) -> bool:
            """Without time between polls: the client throws away what is answered then."""
            ends = time.monotonic() + 0.5
            while time.monotonic() < ends:
                subscriber.poll(0.01)
                held.update(c.partition for c in subscriber.changes() if c.kind == "assigned")
            return len(held) == count and subscriber.joined and subscriber.commit(0, count)

        for count in range(4, 8):
            if count > 4:
                admin.create_partitions({f"{empty_site.prefix}packets": count})
            wait_for(partial(joins, count), f"{count} partitions", seconds=30)
    finally:
        admin.close()
        subscriber.close()


def test_a_subscriber_that_pauses_stays_in_the_group_and_goes_on_where_it_was(empty_site: Site) -> None:
    publisher = KafkaPublisher(empty_site.kafka, "packets")
    subscriber = KafkaSubscriber(empty_site.kafka, "packets", "pausing", most=2)
    try:
        got: list[int] = []

        def read(seconds: float) -> int:
            before, ends = len(got), time.monotonic() + seconds
            while time.monotonic() < ends:
                got.extend(m.offset for m in subscriber.poll(0.1) or () if m.partition == 0)
                for change in subscriber.changes():
                    assert change.kind == "assigned"
                    subscriber.seek(change.partition, 0)
            return len(got) - before

        for k in range(10):
            publisher.publish(0, bytes([k]))
        publisher.flush()
        wait_for(lambda: read(0.1) or got, "messages")
        subscriber.pause()
        read(0.5)
        for k in range(10):
            publisher.publish(0, bytes([k]))
        publisher.flush()
        assert read(1.5) == 0
        subscriber.resume()
        wait_for(lambda: read(0.1) is not None and len(got) >= 20, "the rest")
        assert got == list(range(20))
        assert subscriber.rebalances == 1
    finally:
        subscriber.close()
        publisher.close()


def test_a_broker_that_goes_away_between_two_questions_is_an_error_in_one_line(
    empty_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> set[int]:
        raise KafkaConnectionError("111 ECONNREFUSED")

    monkeypatch.setattr(KafkaConsumer, "partitions_for_topic", gone)
    with pytest.raises(KafkaBusError, match=rf"^topic {empty_site.prefix}probes: .*ECONNREFUSED"):
        KafkaTable(empty_site.kafka, PROBES)
