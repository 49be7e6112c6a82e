"""unison as a server, the hub of folders that hosts keep equal.

``unison -socket`` serves one client after another and lets two wait, so a third hangs for seconds. Here a listener
starts ``unison -server`` for each connection, as inetd would; what crosses the wire is the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from probing.lab.clients.folders import HUB
from probing.lab.session import Site, program_version

PORT = 5000
LISTENER = f"""
import socket, subprocess
listener = socket.create_server(("0.0.0.0", {PORT}), backlog=64)
running = []
while True:
    connection, _ = listener.accept()
    with connection:
        running = [process for process in running if process.poll() is None]
        running.append(subprocess.Popen(["unison", "-server"], stdin=connection, stdout=connection))
"""


class Unison:
    """unison -server."""

    programs = ("unison",)
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Serve any folder of the machine; clients ask for folders in /run/lab/hub."""
        HUB.mkdir(exist_ok=True)
        # name under which it and its clients store the state of a folder, since all hosts of a run share one host name
        own = {"UNISON": str(site.folder), "HOME": str(site.folder), "UNISONLOCALHOSTNAME": "hub"}
        process = site.host.start(
            [sys.executable, "-I", "-c", LISTENER], log="unison", env={**os.environ, **own}
        )
        site.host.wait_for_port(PORT, process, "unison")

    def version(self) -> str:
        """The version of the program."""
        return program_version("unison", "-version").split()[2]


UNISON = Unison()
