"""The bundled demo capture, and short pieces of it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import zstandard

ROOT = Path(__file__).resolve().parents[2]
CAPTURE = ROOT / "demo" / "demo.pcap.zst"
LABELS = ROOT / "demo" / "labels.csv"
CONFIG = ROOT / "demo" / "wiresonde.yaml"


@functools.cache
def _records() -> list[bytes]:
    """File header and packet records of the demo capture."""
    with CAPTURE.open("rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    parts, at = [data[:24]], 24
    while at < len(data):
        end = at + 16 + int.from_bytes(data[at + 8 : at + 12], "little")
        parts.append(data[at:end])
        at = end
    return parts


def piece(path: Path, n: int, begin: int = 0) -> Path:
    """A pcap file of n packets of the demo capture."""
    head, *records = _records()
    path.write_bytes(head + b"".join(records[begin : begin + n]))
    return path


def command(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start wiresonde as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    line = [sys.executable, "-m", "engine.cli", *map(str, arguments)]
    return cast("subprocess.Popen[bytes]", subprocess.Popen(line, env=environment, **options))


def run(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Run wiresonde as a process of its own: exit code, stdout, stderr."""
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    process = command(*arguments, **options)
    out, err = process.communicate(given, timeout=120)
    return process.returncode, (out or b"").decode(), (err or b"").decode()
