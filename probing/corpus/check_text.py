"""The report of a check as text: what was found, by activity, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator

from probing.corpus.findings import ABOUT, Finding, Report

MARK = {"fault": "FAULT", "too few to tell": "too few", "passed": "ok"}
WORDS = {
    "fault": "this corpus is easier than it looks",
    "too few to tell": "no fault was found, but some of it has too few connections or runs",
    "passed": "nothing was found that makes it easy",
}


def lines(report: Report) -> Iterator[str]:
    """The report, line by line."""
    yield f"{report.name}: {report.connections:,} connections in {report.runs:,} runs ({report.runs_are})"
    yield f"split: {report.split}"
    for kind, about in ABOUT.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if found:
            yield ""
            yield f"{kind}: {about}"
            yield from (f"  {line}" for line in _table(found))
    yield ""
    for names in report.aliases:
        yield f"aliases: {' = '.join(names)}"
    for note in report.notes:
        yield f"note: {note}"
    faults = len(report.faults())
    counted = f" ({faults} {'fault' if faults == 1 else 'faults'})" if faults else ""
    yield f"{report.outcome}: {WORDS[report.outcome]}{counted}"


def _table(found: list[Finding]) -> Iterator[str]:
    """Findings in columns: outcome, subject, counts of both sides, words."""
    width = max(len(finding.about) for finding in found)
    for finding in found:
        yield f"{MARK[finding.outcome]:<8}{finding.about:<{width}}  {_counts(finding)}{finding.says}"


def _counts(finding: Finding) -> str:
    """How many connections were compared."""
    v = finding.values
    if finding.kind != "giveaway":
        return ""
    failed = f" ({v['failed']} more failed)" if v["failed"] else ""
    if not v["neighbours"]:
        return f"{v['attacks']}{failed}: "
    return f"{v['compared']}{failed} against {v['neighbours']} at {v['of']}: "
