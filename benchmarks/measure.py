"""Interleaved runs, medians, and the JSON form that every benchmark writes."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "wiresonde", "numpy", "numba", "llvmlite", "pyarrow", "dpkt", "scapy", "nfstream", "kafka-python",
    "confluent-kafka", "torch", "onnxruntime",
)  # fmt: skip


def one_core() -> int:
    """Confine this process, its threads and its children to one core; returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def interleaved(work: dict[str, tuple[int, Callable[[], float]]], rounds: int) -> dict[str, list[float]]:
    """Rates (per second) of each piece of work, run in turn so that a slow spell affects all alike.

    work: name -> (most rounds it takes part in, run -> packets a second). Each is run once before, unmeasured; with
    0 rounds that one run counts.
    """
    runs: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-1, rounds):
        for name, (most, run) in work.items():
            if turn < most:
                rate = run()
                if turn >= 0 or not most:
                    runs[name].append(rate)
                print(f"{'warm' if turn < 0 else turn:>5} {name:<14} {rate:>14,.0f}", file=sys.stderr)
    return runs


def timed(n: int, run: Callable[[], Any]) -> float:
    """Things a second, for n things."""
    began = time.perf_counter()
    run()
    return n / (time.perf_counter() - began)


def report(
    runs: dict[str, list[float]], unit: str | dict[str, str], path: Path | None, **more: Any
) -> dict[str, Any]:
    """The JSON document of a benchmark; written to ``path`` and printed. ``unit``: of all figures, or by name."""
    figures = {
        name: {
            "value": statistics.median(rates),
            "unit": unit if isinstance(unit, str) else unit[name],
            "runs": rates,
        }
        for name, rates in runs.items()
        if rates
    }
    document = {"machine": machine(), "commit": commit(), "figures": figures, **more}
    text = json.dumps(document, indent=1)
    if path is not None:
        path.write_text(text + "\n")
    print(text)
    return document


def machine() -> dict[str, Any]:
    """The machine that the figures were measured on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": packages,
    }


def commit() -> str:
    """The commit of the checkout, with a + if files other than pages and figures differ from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", ".", ":!docs"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if dirty.strip() else "")
