"""The users of a run, and the label row of each connection that the link saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probing.lab import catalog, labels, registry
from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.link.link import Log
from probing.lab.load import Meter
from probing.lab.session import Span, phases
from probing.lab.settings import Activity, Background, Parameters, Run
from probing.lab.settings import Link as LinkSetting


@dataclass(frozen=True)
class Role:
    """A group of users that do the same: the run's own, or a group of its background."""

    scenario: str
    server: str
    client: str
    activity: str
    parameters: Parameters
    link: LinkSetting
    users: int
    background: Background | None = None

    @property
    def does(self) -> Activity:
        """The activity as its scenario describes it."""
        return catalog.scenario(self.scenario).activities[self.activity]

    @property
    def hosts(self) -> int:
        """The number of client hosts of one user."""
        return catalog.hosts_of(self.scenario, self.parameters)

    @property
    def key(self) -> str:
        """The name of the server's host among those of the run: users of one server program share a host."""
        return self.server


def roles(run: Run) -> list[Role]:
    """The roles of a run: its own users first, then the background."""
    own = Role(run.scenario, run.server, run.client, run.activity, run.parameters, run.link, run.users)
    others = []
    for k, other in enumerate(run.background):
        parameters = catalog.role_parameters(other, f"run {run.id}: background.{k}")
        others.append(Role(other.scenario, other.server, other.client, other.activity, parameters, other.link,
                           other.users, other))  # fmt: skip
    return [own, *others]


EVERYBODY = "ff:ff:ff:ff:ff:ff"  # the samples of all hosts are known by it
Users = Sequence[tuple[Role, Sequence[Host]]]
Known = list[tuple[Role, int, Span]]  # samples of a host: their role, the user's index, and their span


def rows(
    run: Run, users: Users, spans: Sequence[tuple[Role, Span]], log: Log, epoch: int, meter: Meter
) -> list[dict[str, Any]]:
    """The label rows of all connections. epoch: ns from the monotonic clock to the log's.

    Raises LabError when a connection belongs to no sample: it would be in the capture without a label.
    """
    known: dict[str, Known] = {}
    owners = {host.address: (number, group) for number, (_, group) in enumerate(users) for host in group}
    for role, span in spans:
        number, group = owners[span.address]
        for name in (EVERYBODY, *(name for host in group for name in (host.address, host.mac_text))):
            known.setdefault(name, []).append((role, number, span))
    result = []
    passed = _passed(spans, log)
    for index, flow in enumerate(log.flows):
        row = labels.flow_row(flow, log.ports["mac"].tolist(), epoch, meter)
        found = _span_of(row, known, epoch)
        if found is None:
            raise LabError(f"run {run.id}: no sample made the {row['proto']} connection {row['src']}:{row['sport']} to "
                           f"{row['dst']}:{row['dport']}")  # fmt: skip
        through = {name for name, flows in passed.items() if index in flows}
        claimed = _claimed(found[2], row, epoch, through)
        result.append(row | _labels(run, flow, row, found, epoch, claimed))
    return result


def _span_of(row: dict[str, Any], known: dict[str, Known], epoch: int) -> tuple[Role, int, Span, bool] | None:
    """The sample that a connection is part of, and whether its client opened it: the sample that claimed its port;
    else one that was under way; else, for what comes late, the last that began before."""
    ends = [(row["src"], row["sport"], True), (row["dst"], row["dport"], False)]
    if row["proto"] == "arp":  # a server asks all for an address
        ends.append((EVERYBODY, None, False))
    for address, port, opened in ends:
        before = [s for s in known.get(address, ()) if s[2].start + epoch <= row["start"]]
        during = [s for s in before if not s[2].end or row["start"] <= s[2].end + epoch]
        claimed = [s for s in during if port in s[2].ports]
        if before:
            role, number, span = (claimed or during or [max(before, key=lambda s: s[2].start)])[0]
            return role, number, span, opened
    return None


def _labels(
    run: Run,
    flow: Any,
    row: dict[str, Any],
    found: tuple[Role, int, Span, bool],
    epoch: int,
    own: dict[str, Any],
) -> dict[str, Any]:
    """The part of a row that was set for the connection, or reported by its client."""
    role, number, span, opened = found
    given, does = catalog.scenario(role.scenario), role.does
    port, own_port = (row["dport"], row["sport"]) if opened else (row["sport"], row["dport"])
    part = registry.service(role.server).roles.get(port or 0, "main" if port is None else "data")  # ICMP: 0
    wanted: str = role.parameters.termination
    if wanted not in does.terminations:
        wanted = does.terminations[0]
    ours = role.background is None
    loaded = role.key == run.server  # a load is the first server's
    result = {
        "scenario": role.scenario, "task": given.task, "activity": role.activity, "role": part,
        "background": int(not ours), "client_impl": role.client, "server_impl": role.server,
        "attack": int(does.attack), "attack_kind": does.attack_kind if does.attack else "none",
        "content_kind": role.parameters.content_kind, "cache": role.parameters.cache,
        **labels.link_labels(role.link),
        "load": run.load.name if loaded else "none", "users": run.users, "pause_s": 0.0,
        "group": run.group if ours else "",
        "part": run.part, "run": run.id, "user": number, "sample": span.sample,
        "pair": f"{run.pair}-{span.sample}" if run.pair and ours else "", "twin": run.twin if ours else "",
        "content_bytes": span.content_bytes, "succeeded": span.succeeded, "problem": span.problem or None,
        "carries_attack": does.attack, "mirrored": False,
        "phases": phases([(name, at + epoch) for name, at in span.marks]), "sample_start": span.start + epoch,
    }  # fmt: skip
    if not loaded:
        result["load_waiting_pct"] = None
    own = own | (span.by_port.get(own_port, {}) if own_port is not None else {})
    if "attack" in own:
        own.setdefault("carries_attack", bool(own["attack"]))
    result["termination"] = labels.termination(flow, own.pop("termination", wanted))
    return result | own


def _passed(spans: Sequence[tuple[Role, Span]], log: Log) -> dict[str, set[int]]:
    """The flows whose frames passed through a host that a claim names, by the host's MAC."""
    hosts = {
        claim.via.mac_text: claim.via for _, span in spans for claim in span.claims if claim.via is not None
    }
    macs, r, result = log.ports["mac"], log.records, {}
    for name, host in hosts.items():
        here = macs == int.from_bytes(host.mac, "big")
        result[name] = set(r["flow"][here[r["origin"]] | here[r["target"]]].tolist())
    return result


def _claimed(span: Span, row: dict[str, Any], epoch: int, through: set[str]) -> dict[str, Any]:
    """The labels that a session claimed for the connections of a host; later claims count more.

    through: MACs of the hosts that the connection's frames passed.
    """
    found: dict[str, Any] = {}
    arp = row["proto"] == "arp"
    when = row["end"] if arp else row["start"]  # ARP goes on in the conversation that has begun
    for claim in span.claims:
        ends = (row["src"], row["dst"]) if arp else (row["src"],)
        name = claim.host.mac_text if arp else claim.host.address
        if claim.via is not None and claim.via.mac_text not in through:
            continue
        if claim.arp == arp and name in ends and claim.since + epoch <= when:
            found |= claim.labels
    return found
