"""The kernel's own network emulator in place of the link's arithmetic, where the kernel has it (tc-netem(8))."""

from __future__ import annotations

import subprocess

PROBE = (
    "ip link add probe0 type dummy && tc qdisc add dev probe0 root netem delay 1ms"  # in a namespace of its own
)


def available() -> bool:
    """Whether the kernel has netem: a queue is made in a throw-away network namespace."""
    try:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", PROBE], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
