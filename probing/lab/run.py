"""One run in its private machine: hosts, link, servers, samples; then captures, label rows and an account."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from probing.lab import attribution, catalog, frames, load, pausing, registry, vantage
from probing.lab.attribution import Role, roles
from probing.lab.errors import LabError
from probing.lab.hosts import Host, Interface
from probing.lab.isolation import OUT, ROOM
from probing.lab.link.link import Link, Log
from probing.lab.link.netem import NetemLink, TbfLink
from probing.lab.session import Sample, Session, Site, Span, on_host
from probing.lab.settings import Link as LinkSetting
from probing.lab.settings import Run

logger = logging.getLogger(__name__)

LINKS: dict[str, type[Link]] = {"user": Link, "netem": NetemLink, "tbf": TbfLink}
FIRST_CLIENT = 10  # last number of the address of the first client
SETTLE_S = 0.05  # seconds between the start of the servers and the first sample
FAILED_SHARE = 0.5  # share of failed samples above which the run has failed


class How(NamedTuple):
    """The settings that all runs of a campaign share."""

    snap: int = vantage.FULL  # most bytes kept of a frame
    link: str = "user"  # name in LINKS


class Performance:
    """A run under way, inside its private machine."""

    def __init__(self, run: Run, folder: Path, group: str, how: How) -> None:
        """folder: for the results. group: name of a control group."""
        self.run, self.folder, self.group, self.how = run, folder, group, how
        self.logs = folder / "logs"
        self.roles = roles(run)
        self.spans: list[tuple[Role, Span]] = []
        self.held: list[Any] = []
        self.over = threading.Event()

    def go(self) -> None:
        """Do the run, from its hosts to its results."""
        began = time.time()
        self._hosts()
        link = self.link
        link.start()
        for server, (host, mine) in self.servers.items():
            self._serve(server, host, mine)
        load.apply(self.run.load, next(iter(self.servers.values()))[0], self.group)
        meter = load.Meter(next(iter(self.servers.values()))[0])
        meter.start()
        time.sleep(SETTLE_S)
        ready = time.time()
        self._samples()
        self._wait_for_the_last_attempts()
        self._wait_for_the_last_packets()
        log = link.stop()
        meter.stop()
        self._write(log, meter, began, ready)

    def _hosts(self) -> None:
        """Make a host for each service and for each user, and the link between them."""
        a, b = divmod(self.run.number, 256)
        block = f"10.{a}.{b}."
        self.servers: dict[str, tuple[Host, list[Role]]] = {}
        self.users: list[tuple[Role, list[Host]]] = []
        settings: list[LinkSetting] = []
        hosts: list[Host] = []
        header = any(role.link.segmentation_offload == "on" for role in self.roles)

        def add(name: str, last: int, link: LinkSetting, *, client: bool) -> Host:
            face = Interface(link.mtu, link.congestion_control, link.segmentation_offload == "on", header)
            host = Host(name, block + str(last), len(hosts) + 1, self.logs, client=client, interface=face)
            hosts.append(host)
            settings.append(link)
            return host

        for role in self.roles:
            if role.key not in self.servers:
                number = len(self.servers) + 1
                self.servers[role.key] = add(f"server{number}", number, role.link, client=False), []
            self.servers[role.key][1].append(role)
        last = FIRST_CLIENT
        for role in self.roles:
            for _ in range(role.users):
                group = [
                    add(f"client{last - FIRST_CLIENT + k + 1}", last + k, role.link, client=True)
                    for k in range(role.hosts)
                ]
                last += role.hosts
                self.users.append((role, group))
        self.hosts = hosts
        arp = any(catalog.scenario(role.scenario).arp for role in self.roles)
        if arp and self.how.link != "user":
            raise LabError(f"run {self.run.id}: only the link in user space carries ARP; use --link user")
        for host in hosts:
            host.connect(hosts, arp=arp)
        for host in hosts:
            (ROOM / "clients" / host.name).mkdir(parents=True)
        self.link = LINKS[self.how.link](hosts, settings, self.run.seed)

    def _serve(self, key: str, host: Host, mine: Sequence[Role]) -> None:
        folder = ROOM / "services" / host.name
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        clients = tuple(c for role, group in self.users if role in mine for c in group)
        activities = tuple(dict.fromkeys(role.activity for role in mine))
        site = Site(host, folder, mine[0].parameters, activities, clients, self.run.seed)
        registry.service(key).start(site)

    def _samples(self) -> None:
        """Let all users work; the background stops when the run's own users have finished."""
        own = [(role, group) for role, group in self.users if role.background is None]
        others = [(role, group) for role, group in self.users if role.background is not None]
        behind = [
            on_host(group[0], partial(self._background, role, group, k), f"background {k}")
            for k, (role, group) in enumerate(others)
        ]
        half = self.run.samples // 2 if self.run.pause_s else 0
        for begin, end in ((0, half), (half, self.run.samples)) if half else ((0, self.run.samples),):
            if begin:
                self._wait_for_the_last_packets()
            working = [
                on_host(
                    group[0], partial(self._user, role, group, range(begin + k, end, len(own))), f"user {k}"
                )
                for k, (role, group) in enumerate(own)
            ]
            for thread in working:
                while thread.is_alive():
                    thread.join(0.5)
                    self.link.check()
        self.over.set()
        for thread in behind:
            thread.join()  # its last samples belong to the capture; limit_s bounds them

    def _user(self, role: Role, group: list[Host], samples: Iterable[int]) -> None:
        for sample in samples:
            self._perform(role, group, Sample(role.activity, role.parameters, str(self.run.seed), sample))

    def _background(self, role: Role, group: list[Host], user: int) -> None:
        seed = f"{self.run.seed}/background/{user}"
        rng = Random(seed)
        number = 0
        assert role.background is not None
        while not self.over.wait(rng.expovariate(1e3 / max(1.0, role.background.pause_ms))):
            self._perform(role, group, Sample(role.activity, role.parameters, seed, number))
            number += 1

    def _perform(self, role: Role, group: list[Host], sample: Sample) -> None:
        session = Session(sample, group, self.servers[role.key][0], self.link, self.held)
        session.span.start = time.monotonic_ns()
        self.spans.append(
            (role, session.span)
        )  # before it begins: its connections are attributed from their first packet
        try:
            registry.client(role.client).perform(session)
        except Exception as error:
            session.span.problem = f"{type(error).__name__}: {error}"
            logger.warning("run=%s sample=%d failed: %s", self.run.id, sample.number, traceback.format_exc())
            if session.span.succeeded is None:
                session.span.succeeded = False
        session.span.end = time.monotonic_ns()

    def _wait_for_the_last_attempts(self) -> None:
        """Go on for after_sudden_s when the network has failed for a connection: its senders try again."""
        cut, wanted = self.link.last_cut(), max(role.parameters.after_sudden_s for role in self.roles)
        while cut and (left := cut + wanted - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self.link.check()

    def _wait_for_the_last_packets(self) -> None:
        """Wait for FINs and their acknowledgements to cross the slowest link, also when they are sent again."""
        links = [role.link for role in self.roles]
        slowest = max(
            x.delay_ms + 3 * (x.jitter_ms + x.ordered_jitter_ms) + min(x.outage_ms, 500) for x in links
        )
        lossy = any(
            x.loss_pct or x.burst_loss_pct or x.corrupt_pct or x.rate_kbit or x.delivery_trace or x.outage_ms
            for x in links
        )
        time.sleep(0.15 + 3 * slowest / 1e3 + (1.2 + 4 * slowest / 1e3 if lossy else 0.0))

    def _write(self, log: Log, meter: load.Meter, began: float, ready: float) -> None:
        rows = attribution.rows(self.run, self.users, self.spans, log, self.link.epoch_ns(0), meter)
        if self.run.pause_s:
            pausing.put(rows, log.records, pausing.moment(rows, self.run.id), self.run.pause_s)
        packets = {
            name: vantage.write_pcap(self.folder / f"{name}.pcap", log, name, self.how.snap)
            for name in self.run.vantage
        }
        algorithms = {host.address: host.congestion_control for host in self.hosts}
        for row in rows:
            if row["proto"] == "tcp":
                row["congestion_control_up"] = algorithms[row["src"]]
                row["congestion_control_down"] = algorithms[row["dst"]]
        for name in self.run.vantage:
            frames.write(self.folder / f"{name}.frames.parquet", log, name, rows, self.run.id)
        if log.unsent:
            raise LabError(
                f"run {self.run.id}: hosts did not accept {log.unsent} frames: too many at once; use fewer users"
            )
        failures = self._failures()
        released = log.records[log.records["out_ts"] > 0]
        late = np.sort(released["out_ts"] - released["due"]) / 1e6
        account = {
            "run": self.run.model_dump(mode="json"),
            "how": self.how._asdict(),
            "first_ns": int(log.records["in_ts"].min(initial=time.time_ns())),
            "last_ns": int(np.maximum(log.records["in_ts"], log.records["out_ts"]).max(initial=0)),
            "packets": packets,
            "connections": len(rows),
            "samples": sum(role.background is None for role, _ in self.spans),
            "problems": failures[:20],
            "failed_samples": len(failures),
            "link": {
                "frames": len(log.records), "unsent": log.unsent, "real_time": log.real_time,
                "began_ns": log.began,
                "late_ms_p50": _rank(late, 0.5), "late_ms_p99": _rank(late, 0.99), "late_ms_max": _rank(late, 1.0),
            },
            "versions": {
                **{role.client: registry.client(role.client).version() for role in self.roles},
                **{role.server: registry.service(role.server).version() for role in self.roles},
            },
            "began": began,
            "prepared_s": round(ready - began, 3),
            "took_s": round(time.time() - began, 3),
        }  # fmt: skip
        (self.folder / "rows.json").write_text(json.dumps(rows))
        (self.folder / "run.json").write_text(json.dumps(account, indent=1))

    def _failures(self) -> list[str]:
        """The problems of failed samples. Raises LabError when too many samples of one role failed."""
        problems = []
        for role in self.roles:
            spans = [span for mine, span in self.spans if mine is role]
            failed = [span.problem for span in spans if span.problem]
            if len(failed) > FAILED_SHARE * len(spans):
                raise LabError(f"run {self.run.id}: {len(failed)} of {len(spans)} samples of {role.client} "
                               f"{role.activity} failed; the first: {failed[0]}")  # fmt: skip
            problems += failed
        return problems


def _rank(ordered: Any, share: float) -> float:
    if not len(ordered):
        return 0.0
    return round(float(ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]), 4)


def perform(run: Run, folder: str, group: str, how: How) -> None:
    """Do a run as the first process of a private machine. folder: name of the run's folder in OUT."""
    logging.basicConfig(level=logging.WARNING, filename=OUT / folder / "lab.log", force=True,
                        format="%(asctime)s %(levelname)s %(name)s %(message)s")  # fmt: skip
    Performance(run, OUT / folder, group, how).go()
