"""Writes the tables of docs/performance.md from a benchmark's JSON; nobody types a figure.

    python -m benchmarks.tables JSON MARKDOWN

Replaces what stands between ``<!-- table NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

STAGES = {
    "decode": "open, read and decode the file into columns",
    "connections": "track connections",
    "features": "AfterImage features",
    "kitnet_learn": "KitNET, learning",
    "kitnet_score": "KitNET, scoring",
    "pipeline": "**file → scored connections, everything**",
}
PEERS = {
    "dpkt": "dpkt: parse",
    "scapy": "scapy: parse",
    "tshark": "tshark: eight fields",
    "nfstream": "nfstream: flows with statistics",
    "kitsune_py": "Kitsune-py: features and score",
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
    return "\n".join(lines)


def main() -> None:
    """Fill the table in."""
    document = json.loads(Path(sys.argv[1]).read_text())
    page = Path(sys.argv[2])
    text = page.read_text()
    pattern = re.compile(r"(<!-- table offline -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{page}: no <!-- table offline --> … <!-- end -->")
    page.write_text(pattern.sub(lambda m: m[1] + offline(document) + "\n" + m[2], text))


if __name__ == "__main__":
    main()
