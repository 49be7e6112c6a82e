"""A host to be scanned: a few ports listen, some do not answer, all others refuse."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.errors import LabError
from probing.lab.session import Site

TCP = (21, 22, 25, 80, 110, 143, 8080)
UDP = (53, 123)
FILTERED = (23, 445, 3389)  # TCP ports that drop what comes, as behind a packet filter


class OpenHost:
    """Listeners of our own."""

    programs = ("ip",)
    roles: Mapping[int, str] = MappingProxyType(dict.fromkeys(range(1 << 16), "scan"))

    def start(self, site: Site) -> None:
        """Listen on TCP and UDP, and drop packets to FILTERED."""
        site.host.in_thread(_drop)
        daemon = Path(__file__).with_name("open_host_daemon.py")
        # a path, not a module, so that it starts without the lab's own imports
        ports = (",".join(map(str, TCP)), ",".join(map(str, UDP)))
        process = site.host.start([sys.executable, daemon, *ports], log="open-host")
        site.host.wait_for_port(TCP[-1], process, "open-host")

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"Python {platform.python_version()}"


def _drop() -> None:
    """Drop packets to FILTERED by routes, which unlike a packet filter need no further program."""
    rule = "rule add pref {} iif eth0 ipproto tcp dport {} blackhole"
    lines = [rule.format(k, port) for k, port in enumerate(FILTERED, 1)]
    lines += ["rule add pref 100 lookup local", "rule del pref 0 lookup local"]  # else it would come first
    words, rules = ["ip", "-batch", "-"], "\n".join(lines)
    done = subprocess.run(words, input=rules, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise LabError(f"ip: {done.stderr.strip()}")


OPEN_HOST = OpenHost()
