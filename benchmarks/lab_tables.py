"""Tables of the lab's benchmarks; benchmarks.tables puts them into the pages."""

from __future__ import annotations

from typing import Any


def link(document: dict[str, Any]) -> str:
    """The table of bench_link."""
    machine, figures = document["machine"], document["figures"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, commit {document['commit']}; a delay of "
        f"{document['delay_ms']:g} ms each way, packets of 200 bytes for {document['seconds']:g} s at each rate, "
        f"medians of {len(figures['tcp']['runs'])} rounds. *Release*: when the link sent a frame, against when it "
        "should have. *End to end*: from the sender's clock reading to the receiving kernel's, less the delay.",
        "",
        "| packets/s | release p50 | p99 | p99.9 | worst | end to end p50 | p99 | in plain Python: end to end p99 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for rate, row in document["accuracy"].items():
        release, ends, peer = row["release_ms"], row["end_to_end_ms"], row["python_end_to_end_ms"]
        values = (
            release["p50"],
            release["p99"],
            release["p99.9"],
            release["max"],
            ends["p50"],
            ends["p99"],
            peer["p99"],
        )
        lines.append(f"| {int(rate):,} | " + " | ".join(f"{value:.2f} ms" for value in values) + " |")
    value = {name: figure["value"] for name, figure in figures.items()}
    lines += [
        "",
        "| | this link | the same in plain Python | ratio |",
        "|---|---:|---:|---:|",
        f"| one TCP connection, 10 ms each way | {value['tcp']:,.0f} Mbit/s | {value['tcp_python']:,.0f} Mbit/s | "
        f"{value['tcp'] / value['tcp_python']:.1f}× |",
        f"| highest steady rate tried without a loss | {value['packets']:,.0f} packets/s | "
        f"{value['packets_python']:,.0f} packets/s | {value['packets'] / max(1, value['packets_python']):.1f}× |",
    ]
    return "\n".join(lines)


def vantage(document: dict[str, Any]) -> str:
    """The table of bench_vantage."""
    lines = [
        "| setting | the link: dropped | overtaken | twice | damaged | at the server: retransmitted | at the client: "
        "retransmitted | reordered | spurious | duplicates of the way |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in document["rows"].items():
        made, server, client = row["link"], row["server"], row["client"]
        values = (
            made["lost_data"] + made["overflow_data"], made["reordered_data"], made["duplicated"], made["corrupted"],
            server["retransmitted"], client["retransmitted"], client["reordered"], client["spurious"],
            client["capture_duplicate"],
        )  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values) + " |")
    trips = [
        (row["client"]["round_trip_ms"], row["server"]["round_trip_ms"]) for row in document["rows"].values()
    ]
    worst = max(abs(a - b) for a, b in trips)
    lines += [
        "",
        f"`python -m benchmarks.bench_vantage`, commit {document['commit']}: {document['samples']} downloads of "
        f"{document['bytes'] // 1000} kB each, counted by `wiresonde connections`. The handshake's median round trip "
        f"differs by at most {worst:.1f} ms between the two.",
    ]
    return "\n".join(lines)


def repeat(document: dict[str, Any]) -> str:
    """The table of bench_repeat: one row for each scenario and client, with its worst activity."""
    lines = [
        f"Every activity ten times with the same seed, in fresh hosts, {document['delay_ms']} ms each way; "
        f"samples in a run: {document['samples']} (`python -m benchmarks.bench_repeat`, commit {document['commit']}). "
        "A connection is the sequence of its packets' directions, payload sizes and TCP flags.",
        "",
        "| scenario | client | connections compared | equal, bare ACKs left out | equal, all packets | "
        "alike (1 = equal) | least equal activity |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault((row["scenario"], row["client"]), []).append(row)
    for (scenario, client), rows in groups.items():
        n = sum(row["connections"] for row in rows)
        mean = {
            name: sum(row[name] * row["connections"] for row in rows) / max(1, n)
            for name in ("equal_without_acks", "equal", "alike")
        }
        worst = min(rows, key=lambda row: row["equal_without_acks"])
        lines.append(
            f"| {scenario} | {client} | {n:,} | {mean['equal_without_acks']:.0%} | {mean['equal']:.0%} | "
            f"{mean['alike']:.3f} | {worst['activity']} ({worst['equal_without_acks']:.0%}) |"
        )
    return "\n".join(lines)


def corpora(document: dict[str, Any]) -> str:
    """The table of the corpora's manifests."""
    found = document["corpora"]
    lines = [
        "| corpus | runs | connections | of attacks | packets | time | jobs |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, corpus in found.items():
        attacks = sum(row["connections"] for row in corpus["families"] if row["attack"])
        lines.append(
            f"| `{name}` | {corpus['runs']:,} | {corpus['connections']:,} | {attacks:,} | {corpus['packets']:,} | "
            f"{corpus['seconds'] / 60:.1f} min | {corpus['jobs']} |"
        )
    machine = next(iter(found.values()))["machine"]
    lines += [
        "",
        f"Made on {machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}. By scenario:",
        "",
    ]
    head = " | ".join(f"`{name}` connections | packets" for name in found)
    lines += [f"| scenario | {head} |", "|---" * (1 + 2 * len(found)) + "|"]
    for scenario in sorted({row["scenario"] for corpus in found.values() for row in corpus["families"]}):
        cells = []
        for corpus in found.values():
            rows = [row for row in corpus["families"] if row["scenario"] == scenario]
            cells += [f"{sum(row[what] for row in rows):,}" for what in ("connections", "packets")]
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    return "\n".join(lines)


def small(document: dict[str, Any]) -> str:
    """The table of bench_small."""
    rows = document["rows"]
    alarms, connections = (
        [sum(row[name] for row in rows if row["attack"] == attack) for attack in (0, 1)]
        for name in ("alarms", "connections")
    )
    activities = ", ".join(f"{n:,} of {name}" for name, n in document["alarms"].items()) or "none"
    lines = [
        f"Of {connections[0]:,} benign connections {alarms[0]:,} alarm ({alarms[0] / connections[0]:.1%}), of "
        f"{connections[1]:,} that are part of an attack {alarms[1]:,} ({alarms[1] / connections[1]:.1%}); threshold "
        f"{document['threshold']:.3f}. Alarms by activity: {activities}. The area under the ROC curve is "
        f"{document['area']:.2f}, where 0.5 is chance "
        f"(`python -m benchmarks.bench_small`, commit {document['commit']}).",
        "",
        "| traffic | connections | alarms | median score | greatest |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        kind = "attack" if row["attack"] else "benign"
        lines.append(
            f"| {kind}: {row['name']} | {row['connections']:,} | {row['alarms']:,} | {row['median']:.3f} | "
            f"{row['greatest']:.3f} |"
        )
    return "\n".join(lines)


def sqli(document: dict[str, Any]) -> str:
    """The table of bench_sqli."""
    names = list(document["kinds"][0]["models"])
    lines = [
        f"Area under the ROC curve, by models that had not seen the run, with 95 % intervals by run "
        f"(`python -m benchmarks.bench_sqli corpora/sqli`, commit {document['commit']}); "
        f"{document['mirrored_share']:.0%} of the customers' visits are mirrored.",
        "",
        f"| injection | connections | of customers | {' | '.join(names)} | best count alone |",
        f"|---|---:|---:|{'---:|' * len(names)}---:|",
    ]
    for kind in sorted(document["kinds"], key=lambda k: not k["succeeded"]):
        areas = [f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in kind["models"].values()]
        best = max(kind["alone"], key=kind["alone"].__getitem__)
        how = "succeeded" if kind["succeeded"] else "failed"
        lines.append(
            f"| {kind['activity'].removeprefix('visit-')}, {how} | {kind['attacks']:,} | {kind['benign']:,} | "
            f"{' | '.join(areas)} | {kind['alone'][best]:.3f} ({best}) |"
        )
    return "\n".join(lines)
