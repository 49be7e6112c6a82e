"""What the check of a corpus finds: single findings and the report of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["fault", "too few to tell", "passed"]
Kind = Literal["giveaway", "circumstance", "single run", "alias", "torn", "constant label", "near-duplicates"]
ABOUT: dict[Kind, str] = {
    "giveaway": "one column of a connection tells an attack from its benign neighbours",
    "circumstance": "a circumstance tells an attack from its benign neighbours",
    "single run": "an attack lives in one run",
    "alias": "labels always go together, the attack with a circumstance",
    "torn": "runs or twins are in more than one part of the split",
    "constant label": "a label does not vary within a part of the split",
    "near-duplicates": "connections have a near-duplicate in another part of the split",
}


@dataclass(frozen=True)
class Finding:
    """One question about one thing, and its answer."""

    kind: Kind
    about: str  # attack_kind/activity, scenario/activity, or corpus
    outcome: Outcome
    says: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings about a corpus."""

    name: str
    connections: int
    runs: int
    runs_are: str
    split: str  # how the corpus was divided
    findings: tuple[Finding, ...]
    aliases: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]  # what was not checked, and why

    @property
    def outcome(self) -> Outcome:
        """A fault if there is one; else too few to tell if anything was; else passed."""
        found = {finding.outcome for finding in self.findings}
        return "fault" if "fault" in found else "too few to tell" if "too few to tell" in found else "passed"

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        counts = Counter(finding.outcome for finding in self.findings)
        return {"outcome": self.outcome, "counts": dict(counts), **asdict(self)}

    def faults(self) -> list[Finding]:
        """The findings that are faults."""
        return [finding for finding in self.findings if finding.outcome == "fault"]
