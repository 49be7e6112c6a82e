"""The traffic lab for tests: runs of an entry, done by a real worker, with what came of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.commands.reading import read_connection_tables
from engine.config import Config
from engine.connections.record import json_lines
from probing.lab import catalog, check, labels, registry
from probing.lab.errors import LabError
from probing.lab.run import How
from probing.lab.settings import Corpus, Entry, Run


def needs(*programs: str) -> None:
    """Skip the test where the lab, or a program, cannot run."""
    if os.getuid() != 0:
        pytest.skip("only root may make private machines")
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    if missing := [p for p in ("unshare", "ip", *programs) if not check.there(p)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "true"],
        capture_output=True,
        timeout=20,
        check=False,
    ).returncode:
        pytest.skip("namespaces cannot be made here")


def needs_default_link() -> None:
    """Skip the test where `lab run` refuses its default link."""
    try:
        check.link("auto")
    except LabError as error:
        pytest.skip(str(error))


USUAL = How()
AFTER_SUDDEN_S = 0.3  # seconds that runs go on after a sudden termination, unless a test says otherwise
BUSY_MS = 200  # that a busy machine may add to a handshake or a request


def is_delayed(row: Mapping[str, Any], delay_ms: float) -> bool:
    """Whether a connection's handshake took the link's delay twice, and no more than a busy machine may add."""
    return bool(0 <= row["handshake_ms"] - 2 * delay_ms < BUSY_MS)


@dataclass(frozen=True)
class Done:
    """What came of one run."""

    run: Run
    folder: Path
    account: dict[str, Any]
    rows: list[dict[str, Any]]

    def capture(self, vantage: str = "client") -> Path:
        """Its capture."""
        return self.folder / f"{vantage}.pcap"

    def connections(self, vantage: str = "client") -> list[dict[str, Any]]:
        """What `wiresonde connections` says of the capture."""
        return connections_of(self.capture(vantage))

    def joined(self, vantage: str = "client") -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Label rows with their connections; every connection has exactly one row and the other way round."""
        found = {
            (c["id.orig_h"], c["id.orig_p"], c["id.resp_h"], c["id.resp_p"], c["proto"]): c
            for c in self.connections(vantage)
        }
        keys = [(r["src"], r["sport"], r["dst"], r["dport"], r["proto"]) for r in self.rows]
        assert Counter(keys) == Counter(found.keys()), "connections of the capture and label rows differ"
        return [(row, found[key]) for row, key in zip(self.rows, keys)]


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Every column is known, every word is of its vocabulary, and what must be there is."""
    columns = {c.name: c for c in labels.COLUMNS}
    for row in rows:
        assert row.keys() <= columns.keys()
        given = catalog.scenarios()[row["scenario"]]
        does = given.activities[row["activity"]]
        assert row["task"] == given.task
        assert row["client_impl"] in given.clients_of(row["activity"])
        assert row["server_impl"] in given.servers_of(row["activity"])
        assert (row["attack"], row["attack_kind"]) == (int(does.attack), does.attack_kind)
        assert {name for name, _ in json.loads(row["phases"])} <= set(does.phases)
        assert row["termination"] in (*does.terminations, "refused", "none")
        for name, column in columns.items():
            value = row.get(name)
            assert not column.values or value is None or str(value) in column.values, f"{name}: {value!r}"
            assert value is not None or column.kind == "measured" or name in ("sport", "dport"), name
    assert labels.table(rows).num_rows == len(rows)


def connections_of(capture: Path) -> list[dict[str, Any]]:
    """What `wiresonde connections` says of a capture."""
    tables = read_connection_tables([capture], Config())
    return [json.loads(line) for table in tables for line in json_lines(table)]


def perform(folder: Path, entry: dict[str, Any], *, seed: int = 1, how: How = USUAL) -> list[Done]:
    """Do all runs of an entry. Skips the test where a program of theirs is missing; fails it when a run fails."""
    short = {"after_sudden_s": AFTER_SUDDEN_S} | entry.get("parameters", {})
    entry = entry | {"parameters": short}
    corpus = Corpus(
        name="test", about="", seed=seed, vantage=("client", "server"), runs=(Entry.model_validate(entry),)
    )
    runs = catalog.expand(corpus)
    programs = {
        p for r in runs for p in registry.client(r.client).programs + registry.service(r.server).programs
    }
    needs(*sorted(programs))
    worker = subprocess.Popen(
        [sys.executable, "-m", "probing.lab.worker", *map(str, (folder, os.getpid(), *how))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    said, _ = worker.communicate("".join(run.model_dump_json() + "\n" for run in runs), timeout=600)
    problems = {line["id"]: line["problem"] for line in map(json.loads, said.splitlines())}
    done = []
    for run in runs:
        part = folder / f"{run.id}.part"
        logs = "".join(
            f"\n--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in part.glob("**/*.log")
        )
        assert problems.get(run.id, "no answer") == "", f"{run.id}: {problems.get(run.id)}{logs}"
        place = folder / run.id
        account = json.loads((place / "run.json").read_text())
        rows = json.loads((place / "rows.json").read_text())
        check_rows(rows)
        done.append(Done(run, place, account, rows))
    return done
