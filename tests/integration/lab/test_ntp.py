"""Time in the lab."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from probing.lab.services.chrony import WITHOUT_CLOCK
from tests.support.lab import needs, perform

pytestmark = pytest.mark.lab

ENTRY: dict[str, Any] = {"scenario": "ntp", "samples": 3, "users": 3, "link": {"delay_ms": 10}}
CAP_SYS_TIME = 25  # capability.h


def test_requests_and_answers_are_packets_of_48_bytes(tmp_path: Path) -> None:
    runs = perform(tmp_path, ENTRY)
    given = catalog.scenario("ntp")
    assert {(d.run.activity, d.run.client) for d in runs} == {
        (a, c) for a in given.activities for c in given.clients
    }
    for done in runs:
        joined = done.joined()
        assert done.account["failed_samples"] == 0
        for row, connection in joined:
            assert (connection["id.resp_p"], row["proto"]) == (123, "udp")
            assert (row["termination"], connection["conn_state"]) == ("none", "SF")
            assert row["succeeded"] is True
            assert row["role"] == "main"
            assert connection["orig_bytes"] == connection["resp_bytes"] == 48 * row["packets_up"]
            ((phase, at),) = json.loads(row["phases"])
            assert phase == "query"
            assert row["sample_start"] <= at <= row["end"]
        requests = Counter[int]()
        for row, _ in joined:
            requests[row["sample"]] += row["packets_up"]
        burst = {"chronyd": 3}.get(done.run.client, 4)
        assert set(requests.values()) == {1 if done.run.activity == "query" else burst}
        drawn = 3 if done.run.client == "sntp" else sum(requests.values())
        assert drawn - 1 <= len(joined) <= drawn  # a port may be drawn twice


def test_our_own_client_asks_again_and_ntpdig_does_not(tmp_path: Path) -> None:
    link = {"delay_ms": 5, "loss_pct": 10}
    entry = ENTRY | {
        "client": ["sntp", "ntpdig"],
        "activity": "query",
        "samples": 12,
        "users": 12,
        "link": link,
    }
    for done in perform(tmp_path, entry):
        assert done.account["failed_samples"] == 0
        lost = sum(row["lost_up"] + row["lost_down"] for row in done.rows)
        failed = sum(not row["succeeded"] for row in done.rows)
        assert lost > 0
        sent = sum(row["packets_up"] for row in done.rows)
        assert sent == 12 + lost - failed  # whoever gives up does not ask again after the last loss
        assert (sent > 12) == (done.run.client == "sntp")
        assert failed == (0 if done.run.client == "sntp" else lost)


def test_no_program_of_this_family_may_set_the_clock() -> None:
    needs("setpriv")
    status = subprocess.run(
        [*WITHOUT_CLOCK, "cat", "/proc/self/status"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    masks = {
        line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")
    }
    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh"):
        assert not masks[name] >> CAP_SYS_TIME & 1, name
    assert masks["CapEff"]  # it is still root
