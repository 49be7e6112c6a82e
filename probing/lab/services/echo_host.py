"""A host that answers pings, which its kernel does, and datagrams to one port, which it sends back."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.services import echo_daemon
from probing.lab.session import Site

PORT = 7


class EchoHost:
    """The host and its echo service."""

    programs = ()
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Answer datagrams to PORT."""
        process = site.host.start([sys.executable, "-I", Path(echo_daemon.__file__), str(PORT)], log="echo")
        site.host.wait_for_port(PORT, process, "echo")

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


ECHO_HOST = EchoHost()
