"""The command-and-control look-alike's server: a process of our own that waits for bots and sends them messages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.isolation import ROOM
from probing.lab.services import hive_daemon
from probing.lab.session import Site

PORT = 2323
ORDERS = ROOM / "hive"  # what each bot will be told; bots of the lab put it there themselves


class Hive:
    """Our own server."""

    programs = ()
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Listen on PORT."""
        ORDERS.mkdir(exist_ok=True)
        # -I: only the standard library, so that it starts soon and no module here can stand in for one of that
        script = Path(hive_daemon.__file__)
        process = site.host.start([sys.executable, "-I", script, str(PORT), ORDERS], log="hive")
        site.host.wait_for_port(PORT, process, "hive")

    def version(self) -> str:
        """Of its protocol."""
        return "1.0"


HIVE = Hive()
