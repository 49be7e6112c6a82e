"""Writes the tables of figures in the docs from the JSON in docs/figures; nobody types them by hand.

    python -m benchmarks.tables

Replaces the text between ``<!-- table NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import lab_tables, lstm_tables, study_tables
from benchmarks.detection import text as detection

STAGES = {
    "decode": "open, read and decode the file into columns",
    "connections": "track connections",
    "features": "AfterImage features",
    "kitnet_learn": "KitNET, learning",
    "kitnet_score": "KitNET, scoring",
    "pipeline": "**file → scored connections, everything**",
}
PROCESSES = {"help": "`wiresonde --help`", "score_demo": "`wiresonde score` on the demo's capture"}
PEERS = {
    "dpkt": "dpkt: parse",
    "scapy": "scapy: parse",
    "tshark": "tshark: eight fields",
    "nfstream": "nfstream: flows with statistics",
    "kitsune_py": "Kitsune-py: the whole path",
}


def offline(document: dict[str, Any]) -> str:
    """The table of bench_offline."""
    figures, machine = document["figures"], document["machine"]
    rate = {name: figures[name]["value"] for name in figures}
    lines = [
        f"{machine['cpu']}, one core of {machine['cores']}, Python {machine['python']}, numba "
        f"{machine['packages']['numba']}, commit {document['commit']}; medians of "
        f"{len(figures['pipeline']['runs'])} interleaved runs over {document['trace']['packets']:,} packets "
        f"({document['trace']['name']}).",
        "",
        "| work | packets/s | ns a packet | against dpkt | against Kitsune-py |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, text in {**STAGES, **PEERS}.items():
        if name in rate:
            ratios = [f"{rate[name] / rate[p]:,.1f}×" if p in rate else "" for p in ("dpkt", "kitsune_py")]
            lines.append(
                f"| {text} | {rate[name]:,.0f} | {1e9 / rate[name]:,.0f} | {ratios[0]} | {ratios[1]} |"
            )
    lines += ["", "| a whole process, warm | seconds |", "|---|---:|"]
    lines += [f"| {text} | {rate[name]:.2f} |" for name, text in PROCESSES.items()]
    return "\n".join(lines)


MODELS = {
    "pipeline": "file → scored connections, Kitsune alone",
    "pipeline_two": "the same with the baseline beside it",
    "rows": "columns of ended connections, one model",
    "rows_two": "the same for two models",
}


def models(document: dict[str, Any]) -> str:
    """The table of bench_models."""
    figures, ratios = document["figures"], document["ratios"]
    lines = [
        f"{document['machine']['cpu']}, one core, commit {document['commit']}; medians of "
        f"{len(figures['pipeline']['runs'])} interleaved runs ({document['trace']['name']}), CPU time.",
        "",
        "| work | a second |",
        "|---|---:|",
        *(
            f"| {text} | {figures[name]['value']:,.0f} {figures[name]['unit'][:-2]} |"
            for name, text in MODELS.items()
        ),
        "",
        f"Two models run at {ratios['two_to_one']:.2f} of the rate of one; a row with two models costs "
        f"{ratios['row_cost']:.2f} times one.",
    ]
    return "\n".join(lines)


LSTM_PEERS = {
    "torch_cell": "torch, LSTMCell",
    "torch_bag": "torch, embedding bag",
    "torch_packed": "torch, packed LSTM",
    "onnxruntime": "onnxruntime",
}
LSTM_PATHS = {"kitsune": "Kitsune alone", "sequence": "the LSTM alone", "both": "both"}


def lstm(document: dict[str, Any]) -> str:
    """The tables of bench_lstm."""
    rate = {name: figure["value"] for name, figure in document["figures"].items()}
    machine, ratios, streams = document["machine"], document["ratios"], document["streams"]
    packages = ", ".join(f"{p} {v}" for p, v in machine["packages"].items() if p in ("torch", "onnxruntime"))
    lines = [
        f"{machine['cpu']}, one core of {machine['cores']}, commit {document['commit']}; medians of up to "
        f"{len(document['figures']['scores_ours_256']['runs'])} interleaved runs over "
        f"{streams['stream']['packets']:,} packets ({document['trace']['name']}), CPU time; {packages or 'no peer'}; "
        f"load {document['load'][0]:.1f} at the end.",
        "",
        "| policy | tokens | ns a packet of the trace |",
        "|---|---:|---:|",
        *(f"| `{p}` | {s['tokens']:,} | {1e9 / rate[f'tokens_{p}']:,.0f} |" for p, s in streams.items()),
        "",
        *_lstm_scores(rate, ratios, streams),
        "",
        "| file → rows | packets/s | of Kitsune alone |",
        "|---|---:|---:|",
        *(
            f"| {text} | {rate[f'pipeline_{name}']:,.0f} | {ratios[f'pipeline_{name}']:.2f} |"
            for name, text in LSTM_PATHS.items()
        ),
    ]
    trained = [(d, rate[f"train_{d}"]) for d in ("cpu", "cuda") if f"train_{d}" in rate]
    said = [f"{r:,.0f} tokens/s on {'one core' if d == 'cpu' else 'the GPU'}" for d, r in trained]
    lines += [
        "",
        f"Training takes {' and '.join(said)}." if said else "Training needs torch and is left out.",
    ]
    return "\n".join([*lines, "", *_lstm_costs(document)])


def _lstm_scores(rate: dict[str, float], ratios: dict[str, float], streams: dict[str, Any]) -> list[str]:
    """Scoring alone, by size of the micro-batch."""
    sizes = sorted(int(name.rpartition("_")[2]) for name in rate if name.startswith("scores_ours_"))
    shown = {name: text for name, text in LSTM_PEERS.items() if f"scores_{name}_{sizes[0]}" in rate}
    columns = [
        "tokens/s",
        "packets of the trace/s",
        "the same, `keep`",
        *(f"{t}: tokens/s" for t in shown.values()),
    ]
    lines = [f"| packets a micro-batch | {' | '.join(columns)} |", "|---:" * (1 + len(columns)) + "|"]
    for size in sizes:
        ours, kept = rate[f"scores_ours_{size}"], rate[f"scores_keep_{size}"]
        cells = [f"{ours:,.0f}", *(_of_trace(r, streams[p]) for r, p in ((ours, "stream"), (kept, "keep")))]
        cells += [f"{rate[n]:,.0f} ({ratios[n]:.1f}×)" for n in (f"scores_{name}_{size}" for name in shown)]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    if absent := [text for name, text in LSTM_PEERS.items() if name not in shown]:
        lines += ["", f"Not installed and left out: {'; '.join(absent)}."]
    return lines


def _of_trace(tokens: float, stream: dict[str, Any]) -> str:
    """Packets of the trace a second, from tokens a second."""
    return f"{tokens * stream['packets'] / stream['tokens']:,.0f}"


def _lstm_costs(document: dict[str, Any]) -> list[str]:
    """Memory and the time to compile."""
    memory, compiling = document["memory"], document["compiling"]
    parts = memory["design"]
    designed = sum(n for name, n in parts.items() if name != "held")
    return [
        "| | |",
        "|---|---:|",
        f"| state of a connection by design: LSTM {parts['lstm']}, stream {parts['flow']} + {parts['sides']} + "
        f"{parts['load']}, marks {parts['marks']} | {designed} bytes |",
        f"| {memory['live']:,} live connections, measured | {memory['bytes'] / 2**30:.2f} GiB, "
        f"{memory['bytes'] / memory['live']:,.0f} bytes each |",
        f"| at most, at the default `connections.capacity` of {memory['capacity']:,} | "
        f"{designed * memory['capacity'] / 2**20:,.0f} MiB |",
        f"| and of packets that wait, at most {memory['waiting']:,} | "
        f"{parts['held'] * memory['waiting'] / 2**20:,.0f} MiB |",
        f"| to compile the kernels, with an empty cache (Kitsune's) | {compiling['sequence']:.0f} s "
        f"({compiling['kitsune']:.0f} s) |",
    ]


KAFKA = {
    "publish": "encode and publish",
    "consume": "fetch and decode",
    "pipeline_1": "**capture file → Kafka → scored connections, one detector**",
    "pipeline_2": "the same, two detectors",
    "pipeline_without_snapshots": "one detector, without snapshots",
    "confluent_publish": "confluent-kafka: the same blocks published",
}


def kafka(document: dict[str, Any]) -> str:
    """The table of bench_kafka."""
    figures, machine = document["figures"], document["machine"]
    value = {name: figures[name]["value"] for name in figures}
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, kafka-python "
        f"{machine['packages']['kafka-python']}, commit {document['commit']}; medians of "
        f"{len(figures['pipeline_1']['runs'])} interleaved runs over {document['trace']['packets']:,} packets "
        f"({document['trace']['name']}, {document['trace']['loop']} times for the whole path).",
        "",
        "| work | packets/s |",
        "|---|---:|",
    ]
    lines += [f"| {text} | {value[name]:,.0f} |" for name, text in KAFKA.items() if name in value]
    lines += ["", "| | |", "|---|---:|"]
    rows = [
        (
            f"delay from publishing to scoring at half load ({value['half_load']:,.0f} packets/s): half of the "
            "messages, 99 %",
            f"{value['delay_p50'] * 1e3:,.0f} ms, {value['delay_p99'] * 1e3:,.0f} ms",
        ),
        ("a message, a packet", f"{value['message']:.1f} bytes"),
        ("on the broker's disk and the wire (lz4), a packet", f"{value['wire']:.1f} bytes"),
        ("CPU to publish a block of 4,096 packets", f"{value['publish_cpu']:.2f} ms"),
        ("CPU to fetch and decode it", f"{value['consume_cpu']:.2f} ms"),
    ]
    if "confluent_cpu" in value:
        rows.append(("CPU to publish it with confluent-kafka", f"{value['confluent_cpu']:.2f} ms"))
    size, seconds = value["snapshot_bytes"] / 1e6, value["snapshot"] * 1e3
    rows.append(
        ("a snapshot of a partition, written beside the processing", f"{size:.1f} MB in {seconds:.0f} ms")
    )
    return "\n".join([*lines, *(f"| {name} | {text} |" for name, text in rows)])


def chaos(document: dict[str, Any]) -> str:
    """The table of tests/support/chaos.py."""
    reports = document["reports"]
    events: dict[str, int] = {}
    for report in reports:
        for name, n in report["events"].items():
            events[name] = events.get(name, 0) + n
    rows = [
        (
            "runs, each with every row equal to the last bit and every offset covered",
            f"{len(reports)} of {len(reports)}",
        ),
        ("messages, rows", f"{sum(r['messages'] for r in reports):,}, {sum(r['rows'] for r in reports):,}"),
        ("rows repeated after a crash, recognised", f"{sum(r['repeated'] for r in reports):,}"),
        *((f"{name.replace('_', ' ')}", f"{n:,}") for name, n in sorted(events.items())),
        ("memory of a detector, at most", f"{max(r['resident'] for r in reports) >> 20} MiB"),
    ]
    head = (
        f"`make chaos N={len(reports)}` at commit {document['commit']}, runs of "
        f"{sum(r['seconds'] for r in reports):,.0f} s in all, {document['jobs']} at a time:"
    )
    return "\n".join([head, "", "| | |", "|---|---:|", *(f"| {name} | {text} |" for name, text in rows)])


CAPTURE = {
    "ring": "**`capture` without Kafka: ring, decode, blocks, Arrow**",
    "watch": "**`watch`: the same, scored by Kitsune**, two cores with the sender",
    "pcapy": "pcapy-ng: count, parse nothing",
    "scapy": "scapy: sniff",
    "nfstream": "nfstream: flows with statistics",
}


def capture(document: dict[str, Any]) -> str:
    """The table of bench_capture."""
    figures, machine = document["figures"], document["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, commit "
        f"{document['commit']}; {document['trace']['name']}, {document['trace']['packets']:,} packets.",
        "",
        "| receiver | packets/s without a drop | packets sent | CPU a packet |",
        "|---|---:|---:|---:|",
    ]
    for name, text in CAPTURE.items():
        if name in figures:
            f = figures[name]
            lines.append(f"| {text} | {f['rate']:,.0f} | {f['sent']:,} | {f['cpu'] * 1e6:,.2f} µs |")
    return "\n".join(lines)


def soak(document: dict[str, Any]) -> str:
    """The table of soak."""
    samples = document["samples"]
    shown = [samples[round(k * (len(samples) - 1) / 6)] for k in range(7)]
    dropped = ", ".join(f"{name} {n:,}" for name, n in document["dropped"].items())
    lines = [
        f"{document['machine']['cpu']}, {document['machine']['cores']} cores, commit {document['commit']}: "
        f"{document['sent']:,} packets sent, {document['scored']:,} scored, lost {dropped}; unaccounted for "
        f"{document['unaccounted']:,}. {document['connections']:,} connections ended.",
        "",
        "| after | packets scored | live connections | memory |",
        "|---:|---:|---:|---:|",
    ]
    for s in shown:
        lines.append(
            f"| {s['seconds'] / 60:,.0f} min | {s['packets']:,.0f} | {s['live']:,.0f} | {s['resident'] / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def memory(document: dict[str, Any]) -> str:
    """The table of bench_memory."""
    value = {name: figure["value"] for name, figure in document["figures"].items()}
    live, scanned = value["live_connections"], document["scanned"]
    return "\n".join(
        [
            f"{document['machine']['cpu']}, commit {document['commit']}.",
            "",
            "| | |",
            "|---|---:|",
            f"| {live:,.0f} live connections, all their state | {value['live'] / 2**30:.2f} GiB |",
            f"| a connection | {value['live'] / live:,.0f} bytes |",
            f"| at most, over a scan of {scanned:,} flows | {value['scan'] / 2**30:.2f} GiB |",
            f"| growth in the last tenth of the scan | {value['scan_last_tenth_growth']:,.0f} bytes |",
            f"| new flows of the scan | {value['scan_rate']:,.0f} a second |",
        ]
    )


TABLES: tuple[tuple[str, str, str, Callable[[dict[str, Any]], str]], ...] = (  # figures, page, place, table
    ("bench_memory.json", "performance.md", "memory", memory),
    ("bench_capture.json", "capture.md", "capture", capture),
    ("soak.json", "capture.md", "soak", soak),
    ("bench_offline.json", "performance.md", "offline", offline),
    ("bench_models.json", "performance.md", "models", models),
    ("bench_lstm.json", "performance.md", "lstm", lstm),
    ("bench_kafka.json", "kafka.md", "kafka", kafka),
    ("chaos.json", "kafka.md", "chaos", chaos),
    ("bench_link.json", "lab-measured.md", "link", lab_tables.link),
    ("bench_vantage.json", "lab-measured.md", "vantage", lab_tables.vantage),
    ("bench_repeat.json", "lab-measured.md", "repeat", lab_tables.repeat),
    ("bench_small.json", "lab.md", "small", lab_tables.small),
    ("bench_sqli.json", "lab.md", "sqli", lab_tables.sqli),
    ("study_interarrival.json", "models/kitsune.md", "pauses", study_tables.pauses),
    ("study_start.json", "models/kitsune.md", "starts", study_tables.starts),
    ("lab_corpora.json", "lab-measured.md", "corpora", lab_tables.corpora),
    ("study_lstm.json", "study-lstm.md", "connections", lstm_tables.connections),
    ("study_lstm.json", "study-lstm.md", "client", partial(lstm_tables.cells, vantage="client", mix="none")),
    ("study_lstm.json", "study-lstm.md", "server", partial(lstm_tables.cells, vantage="server", mix="none")),
    (
        "study_lstm.json",
        "study-lstm.md",
        "client-mixed",
        partial(lstm_tables.cells, vantage="client", mix="faults15"),
    ),
    (
        "study_lstm.json",
        "study-lstm.md",
        "server-mixed",
        partial(lstm_tables.cells, vantage="server", mix="faults15"),
    ),
    ("study_lstm.json", "study-lstm.md", "differences", lstm_tables.differences),
    ("study_lstm.json", "study-lstm.md", "plain", lstm_tables.plain),
    ("study_lstm.json", "study-lstm.md", "ended", lstm_tables.ended),
    ("study_lstm.json", "study-lstm.md", "thresholds", lstm_tables.thresholds),
    ("study_lstm.json", "study-lstm.md", "correlations", lstm_tables.correlations),
    ("bench_foreign.json", "study-lstm.md", "foreign", lstm_tables.foreign),
    *(("bench_detection.json", "detection.md", name, make) for name, make in detection.TABLES.items()),
)


def filled(text: str, name: str, table: str) -> str:
    """The page with a table put in. ValueError when it has no place for it."""
    pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no <!-- table {name} --> … <!-- end -->")
    return pattern.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text)


def main() -> None:
    """Fill in the tables."""
    docs = Path(__file__).parents[1] / "docs"
    for source, page, name, table in TABLES:
        figures, path = docs / "figures" / source, docs / page
        if figures.exists():
            path.write_text(filled(path.read_text(), name, table(json.loads(figures.read_text()))))


if __name__ == "__main__":
    main()
