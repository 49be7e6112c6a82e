"""sshd of OpenSSH: shell, scp and sftp for the lab's users, by key or by password."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.isolation import ROOM, USERS
from probing.lab.session import Site, program_version

KINDS = ("ed25519", "ecdsa", "rsa")  # kinds of host keys: those of a distribution's first start
KEYS = ROOM / "ssh"  # folder of the users' key, ``user``, and the server's keys, ``known_hosts``
IDLE_S = 4  # seconds until an unused connection is closed, in a run about that
CONFIGURATION = """
Port 22
AddressFamily inet
{hostkeys}
PidFile none
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin no
MaxAuthTries 6
MaxStartups 100:30:200
Subsystem sftp internal-sftp
{idle}
"""


def _make(folder: Path) -> None:
    """Make the keys of the server and of its users. An RSA key takes a second, so runs share them."""
    for name, kind in (*((f"host_{kind}", kind) for kind in KINDS), ("user", "ed25519")):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(folder / name)],
            check=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip


class OpenSSH:
    """sshd."""

    programs = ("sshd", "ssh-keygen")
    roles: Mapping[int, str] = MappingProxyType({22: "main"})

    def start(self, site: Site) -> None:
        """Start sshd, open to the lab's users."""
        KEYS.mkdir(exist_ok=True)
        for made in site.template("openssh", _make).iterdir():
            shutil.copy(made, KEYS / made.name)
            (KEYS / made.name).chmod(0o644 if made.suffix else 0o600)
        _let_in()
        path = site.folder / "sshd_config"
        hostkeys = "\n".join(f"HostKey {KEYS}/host_{kind}" for kind in KINDS)
        idle = f"UnusedConnectionTimeout {IDLE_S}" if site.parameters.termination == "timeout" else ""
        path.write_text(CONFIGURATION.format(hostkeys=hostkeys, idle=idle).lstrip())
        # it starts itself again for each connection, by its full path
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        process = site.host.start([sshd, "-D", "-e", "-f", path], log="sshd")
        site.host.wait_for_port(22, process, "sshd")
        address = site.host.address
        keys = (" ".join((KEYS / f"host_{kind}.pub").read_text().split()[:2]) for kind in KINDS)
        (KEYS / "known_hosts").write_text("".join(f"{address} {key}\n" for key in keys))

    def version(self) -> str:
        """The version of the program."""
        return program_version("ssh", "-V").partition(",")[0]


def _let_in() -> None:
    """Authorise the key for every user's account."""
    for name, uid in USERS.items():
        place = Path("/home") / name / ".ssh"
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, uid, uid)
        shutil.copy(KEYS / "user.pub", place / "authorized_keys")
        (place / "authorized_keys").chmod(0o600)
        os.chown(place / "authorized_keys", uid, uid)


OPENSSH = OpenSSH()
