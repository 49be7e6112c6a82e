"""chronyd as a time server that never sets the clock: with -x, and without the right to do so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from probing.lab.session import Site, program_version

PORT = 123
STRATUM = 5
# the kernel refuses to set or slew the clock for this process and its children
WITHOUT_CLOCK = ("setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time")
CONFIGURATION = """
port {port}
cmdport 0
bindcmdaddress /
pidfile {folder}/pid
local stratum {stratum}
allow
user root
"""


class Chrony:
    """chronyd."""

    programs = ("chronyd", "setpriv")
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Answer all clients, as a server of stratum 5."""
        configuration = site.folder / "chrony.conf"
        configuration.write_text(CONFIGURATION.format(port=PORT, folder=site.folder, stratum=STRATUM))
        process = site.host.start(
            [*WITHOUT_CLOCK, "chronyd", "-x", "-d", "-4", "-f", configuration], log="chrony"
        )
        site.host.wait_until(_listens, process, "chrony")

    def version(self) -> str:
        """The version of the program."""
        return program_version("chronyd", "--version").split()[2]


def _listens() -> bool:
    """Whether a socket of this thread's host has the port."""
    with open("/proc/thread-self/net/udp") as table:
        return any(line.split()[1].endswith(f":{PORT:04X}") for line in table.readlines()[1:])


CHRONY = Chrony()
