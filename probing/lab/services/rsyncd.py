"""The rsync daemon as the hub of folders that hosts keep equal."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from probing.lab.clients.folders import HUB
from probing.lab.session import Site, program_version

PORT = 873
CONFIGURATION = """
port = {port}
pid file = {folder}/pid
lock file = {folder}/lock
log file = {folder}/log
transfer logging = no
reverse lookup = no
use chroot = no
uid = root
gid = root
[hub]
    path = {hub}
    read only = no
"""


class Rsyncd:
    """rsync --daemon."""

    programs = ("rsync",)
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Serve /run/lab/hub as the module ``hub``."""
        HUB.mkdir(exist_ok=True)
        configuration = site.folder / "rsyncd.conf"
        configuration.write_text(CONFIGURATION.format(port=PORT, folder=site.folder, hub=HUB))
        process = site.host.start(
            ["rsync", "--daemon", "--no-detach", f"--config={configuration}"], log="rsyncd"
        )
        site.host.wait_for_port(PORT, process, "rsyncd")

    def version(self) -> str:
        """The version of the program."""
        return program_version("rsync", "--version").split()[2]


RSYNCD = Rsyncd()
