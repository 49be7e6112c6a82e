"""aiosmtpd: a mail server that drops what it accepts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from probing.lab.session import Site

IDLE_S, SHORT_S = 300, 4  # seconds until an idle connection is closed, and in a run about that
# seconds that accepting a mail takes in a run that breaks it off, by its end: the client prepares that meanwhile
ACCEPT_S = {"rst": 10_000, "sudden": 1}
UNKNOWN = "nobody"  # name of the recipients that are refused


class Aiosmtpd:
    """aiosmtpd."""

    programs: tuple[str, ...] = ("aiosmtpd",)
    roles: Mapping[int, str] = MappingProxyType({25: "main"})

    def start(self, site: Site) -> None:
        """Accept mail on port 25."""
        end = site.parameters.termination
        idle, accept = SHORT_S if end == "timeout" else IDLE_S, ACCEPT_S.get(end, 0)
        daemon = Path(__file__).with_name("smtp_daemon.py")
        # a path, not a module, so that it starts without the lab's own imports
        words = ("25", str(idle), str(accept), UNKNOWN)
        process = site.host.start([sys.executable, daemon, *words], log="aiosmtpd")
        site.host.wait_for_port(25, process, "aiosmtpd")

    def version(self) -> str:
        """The version of the program."""
        return metadata.version("aiosmtpd")


AIOSMTPD = Aiosmtpd()
