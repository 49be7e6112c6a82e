"""The name server with an end of a tunnel: our own process."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.isolation import ROOM
from probing.lab.services import tunnel_daemon
from probing.lab.session import Site

PORT = 53
CARGO = ROOM / "tunnel"  # what goes down, a file for each session; the lab's clients write their own


class Tunnel:
    """The name server."""

    programs = ()
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Answer queries to PORT."""
        CARGO.mkdir(exist_ok=True)
        # -I: only the standard library, so that it starts fast and no module here can shadow it
        script = Path(tunnel_daemon.__file__)
        process = site.host.start([sys.executable, "-I", script, str(PORT), CARGO], log="tunnel")
        site.host.wait_for_port(PORT, process, "tunnel")

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


TUNNEL_SERVER = Tunnel()
