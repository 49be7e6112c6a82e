"""Which connections in the captures of one of DetGen's attacks are the attack.

A capture also has what the containers do besides: name resolution, clocks and discovery, a web server's questions to
its database, and in the SQL scenarios an administrator who fills the list of users. Only connections to the services
that a scenario attacks can be attacks, and of these not the administrator's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probing.imports.detgen_scenarios import Scenario

Row = dict[str, Any]
BENIGN = {
    "attack": 0,
    "attack_kind": "none",
    "activity": None,
    "client_impl": None,
}  # labels of what is no attack


@dataclass
class AttackRun:
    """The captures of one run of an attack."""

    scenario: Scenario
    captures: list[tuple[str, Sequence[Row]]] = field(default_factory=list)  # container, rows of connections

    def attackers(self) -> set[str]:
        """Addresses from which attacked services are used, and not by an administrator.

        Where the attacker's container was captured, its own alone; a scenario whose composition has an administrator
        and no attacker has none without such a capture.
        """
        known = self._clients("attacker")
        if not known and not self.scenario.administered:
            known = self._clients("")
        return known - self._clients("admin")

    def _clients(self, role: str) -> set[str]:
        """Addresses that use the attacked services in captures of the containers named so."""
        found = (client(self.scenario, row) for host, rows in self.captures if role in host for row in rows)
        return {who for who in found if who is not None}


def client(scenario: Scenario, row: Mapping[str, Any]) -> str | None:
    """The address that uses an attacked service in this connection; None when it is to another place."""
    for target in scenario.targets:
        if target.proto not in (None, row["proto"]):
            continue
        for server, port, other in (("dst", "dport", "src"), ("src", "sport", "dst")):
            # a connection met in its middle may have been taken for its reverse
            if target.host in (None, row[server]) and target.port in (None, row[port]):
                if target.port is None and server == "src":
                    continue  # the host asks somebody itself
                return str(row[other])
    return None


def labelled(run: AttackRun, rows: Sequence[Row], labels: Mapping[str, Any]) -> list[Row]:
    """Rows of connections with the labels of their run, which only the attack's own keep in full."""
    attackers, rest = run.attackers(), {**labels, **BENIGN}
    return [{**row, **(labels if client(run.scenario, row) in attackers else rest)} for row in rows]
