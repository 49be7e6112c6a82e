"""The tables of the study of sequence models, and of what they say of foreign traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LINKS = ("none", "loss", "jitter", "both", "faults")
HEADS = ("no fault", "loss 3 %", "jitter 4 ms", "50 ms, jitter 10 ms, loss 2 %", "the three faults together")
CLAIMED = ("stream - keep", "stream - no-acks", "stream - bytes", "no-acks - keep", "drop-duplicates - keep",
           "drop-late - keep", "drop-episodes - keep")  # fmt: skip
SHOWN_LABELS = 8  # labels in each list of correlations

Cell = Mapping[str, Any]


def cells(document: Mapping[str, Any], vantage: str, mix: str) -> str:
    """AUC of every policy by link; below it detection and false positives at the no-fault threshold."""
    own = {
        (c["policy"], c["link"]): c for c in document["cells"] if (c["vantage"], c["mix"]) == (vantage, mix)
    }
    policies = list(dict.fromkeys(policy for policy, _ in own))
    lines = [*_head("policy", HEADS)]
    for policy in policies:
        shown = [f"{c['auc']:.3f} [{c['auc_low']:.3f}, {c['auc_high']:.3f}]" for c in _row(own, policy)]
        lines.append(f"| `{policy}` | {' | '.join(shown)} |")
    if mix == "none":
        base = document["baseline"][vantage]
        shown = [f"{base[k]['value']:.3f} [{base[k]['low']:.3f}, {base[k]['high']:.3f}]" for k in LINKS]
        lines.append(f"| *boosted trees over counts* | {' | '.join(shown)} |")
    lines += ["", *_head("detected / false positives", HEADS)]
    for policy in policies:
        shown = [
            f"{c['tpr']:.1%} / {c['fpr']:.1%} [{c['fpr_low']:.1%}, {c['fpr_high']:.1%}]"
            for c in _row(own, policy)
        ]
        lines.append(f"| `{policy}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def _row(own: Mapping[tuple[str, str], Cell], policy: str) -> list[Cell]:
    return [own[policy, link] for link in LINKS]


def _head(first: str, others: Sequence[str]) -> Iterator[str]:
    yield f"| {first} | " + " | ".join(others) + " |"
    yield "|---|" + "---:|" * len(others)


def differences(document: Mapping[str, Any]) -> str:
    """Paired differences of AUC, retrained nets and the same nets."""
    lines = []
    for vantage in dict.fromkeys(c["vantage"] for c in document["cells"]):
        lines += ["", *_head(f"AUC, {vantage}", HEADS)]
        for title, found in _families(document, vantage):
            for claim in CLAIMED:
                if claim in found["none"]:
                    shown = [_difference(found[link][claim]["auc"]) for link in LINKS]
                    lines.append(f"| {claim.replace(' - ', ' − ')}, {title} | {' | '.join(shown)} |")
    return "\n".join(lines[1:])


def _families(document: Mapping[str, Any], vantage: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "retrained", document["retrained"][vantage]["none"]
    for name, found in document.items():
        if name.startswith("same nets"):
            own = found[vantage]["none"]
            yield "same nets", {link: own[link]["differences"] for link in own}
    if "faults15" in document["retrained"][vantage]:
        yield "15 % of faults in training", document["retrained"][vantage]["faults15"]


def _difference(d: Mapping[str, float]) -> str:
    text = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
    return f"**{text}**" if d["low"] > 0 or d["high"] < 0 else text


def plain(document: Mapping[str, Any]) -> str:
    """AUC without mirrored visits."""
    lines = []
    for vantage, mixes in document["without mirrored visits"].items():
        lines += ["", *_head(f"AUC, {vantage}", HEADS)]
        own = mixes["none"]
        for policy in own["none"]["cells"]:
            shown = [f"{own[k]['cells'][policy]['auc']:.3f}" for k in LINKS]
            lines.append(f"| `{policy}` | {' | '.join(shown)} |")
        shown = [_difference(own[k]["differences"]["stream - keep"]["auc"]) for k in LINKS]
        lines.append(f"| stream − keep | {' | '.join(shown)} |")
    return "\n".join(lines[1:])


def ended(document: Mapping[str, Any]) -> str:
    """AUC of nets that were trained to the end."""
    lines: list[str] = []
    for vantage, mixes in document["trained to the end"].items():
        own = mixes["none"]
        lines += _head(f"AUC, {vantage}", HEADS)
        for policy in own["none"]["cells"]:
            found = [own[k]["cells"][policy] for k in LINKS]
            shown = [f"{c['auc']:.3f} [{c['auc_low']:.3f}, {c['auc_high']:.3f}]" for c in found]
            lines.append(f"| `{policy}` | {' | '.join(shown)} |")
        for claim in ("stream - keep", "stream - no-acks", "no-acks - keep"):
            shown = [_difference(own[k]["differences"][claim]["auc"]) for k in LINKS]
            lines.append(f"| {claim.replace(' - ', ' − ')} | {' | '.join(shown)} |")
    return "\n".join(lines)


def thresholds(document: Mapping[str, Any]) -> str:
    """Step 1: detection and false positives under faults at both thresholds."""
    lines = list(
        _head("under faults", ("no-fault threshold", "threshold that has seen faults", "without faults"))
    )
    own = {(c["policy"], c["vantage"], c["mix"], c["link"]): c for c in document["cells"]}
    for vantage, mixes in document.get("threshold_with_faults", {}).items():
        for policy in ("keep", "no-acks", "stream"):
            fault, none = (own[policy, vantage, "none", link] for link in ("faults", "none"))
            other = mixes["none"]["faults"][policy]
            shown = [f"{c['tpr']:.1%} / {c['fpr']:.1%}" for c in (fault, other, none)]
            lines.append(f"| `{policy}`, {vantage} | {' | '.join(shown)} |")
    return "\n".join(lines)


def correlations(document: Mapping[str, Any]) -> str:
    """Step 2: labels that go with misclassification, client vantage."""
    lines = []
    for policy, groups in document["correlations"]["client"].items():
        lines += ["", f"| `{policy}`: label | all | benign | attacks |", "|---|---:|---:|---:|"]
        by = {group: {row["label"]: row for row in rows} for group, rows in groups.items()}
        order = [row["label"] for row in groups["all"]]
        must = [
            n
            for n in ("delay_ms", "jitter_ms", "loss_pct", "retransmitted", "reordered", "recovery_share")
            if n in by["all"]
        ]
        names = (
            must + [n for n in order if n not in must and "visit" not in n][: SHOWN_LABELS - len(must) + 3]
        )
        for name in names:
            lines.append(
                f"| {name} | " + " | ".join(_r(by[g].get(name)) for g in ("all", "benign", "attacks")) + " |"
            )
    return "\n".join(lines[1:])


def _r(row: Mapping[str, float] | None) -> str:
    if row is None:
        return "–"
    text = f"{row['r']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def connections(document: Mapping[str, Any]) -> str:
    """Numbers of connections of each part."""
    lines = []
    for vantage, parts in document["connections"].items():
        lines += [
            "",
            f"| {vantage} | benign | attacks | attacks that failed | runs |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, n in parts.items():
            rest = f"{n.get('failed attacks', '–')} | {n.get('runs', '–')}"
            lines.append(f"| {name.replace('_', ' ')} | {n['benign']:,} | {n['attacks']:,} | {rest} |")
    return "\n".join(lines[1:])


def foreign(document: Mapping[str, Any]) -> str:
    """The table of bench_foreign."""
    lines = [
        f"`python -m benchmarks.bench_foreign`, commit {document['commit']}.", "",
        "| traffic | kind | TCP connections | alarms, `stream` | alarms, `keep` | score: median, greatest |",
        "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in document["rows"]:
        s, k = row["stream"], row["keep"]
        score = "–" if s["median"] is None else f"{s['median']:.3f}, {s['greatest']:.3f}"
        lines.append(
            f"| {row['name']} | {row['kind']} | {s['connections']:,} | {s['alarms']:,} | {k['alarms']:,} | {score} |"
        )
    return "\n".join(lines)
