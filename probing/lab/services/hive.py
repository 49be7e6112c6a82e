"""The server of the command-and-control look-alike: our own process, which waits for bots and sends them messages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.isolation import ROOM
from probing.lab.services import hive_daemon
from probing.lab.session import Site

PORT = 2323
ORDERS = ROOM / "hive"  # orders for each bot; the lab's bots write their own


class Hive:
    """The hive, as a server."""

    programs = ()
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Listen on PORT."""
        ORDERS.mkdir(exist_ok=True)
        # -I: only the standard library, so that it starts fast and no module here can shadow it
        script = Path(hive_daemon.__file__)
        process = site.host.start([sys.executable, "-I", script, str(PORT), ORDERS], log="hive")
        site.host.wait_for_port(PORT, process, "hive")

    def version(self) -> str:
        """The version of its protocol."""
        return "1.0"


HIVE = Hive()
