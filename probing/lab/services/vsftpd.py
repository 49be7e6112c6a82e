"""vsftpd: files of the lab's users, in passive and in active mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.session import Site, program_version

# the distribution's PAM service waits a random time after a wrong password: twins would differ
PAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n"
SERVICE = "lab-vsftpd"
IDLE_S, SHORT_S = 300, 4  # until an idle session is closed; where that is what the run is about
CHUNK, SLOW = 4096, 1000  # bytes, bytes/s: where a run breaks transfers off, downloads pause after each chunk
CONFIGURATION = """
background=NO
listen=YES
listen_ipv6=NO
anonymous_enable=NO
local_enable=YES
write_enable=YES
local_umask=022
chroot_local_user=YES
allow_writeable_chroot=YES
secure_chroot_dir={empty}
pam_service_name={service}
connect_from_port_20=YES
pasv_address={address}
pasv_min_port=40000
pasv_max_port=60000
dirmessage_enable=NO
xferlog_enable=NO
isolate=NO
isolate_network=NO
seccomp_sandbox=NO
max_login_fails=3
idle_session_timeout={idle}
trans_chunk_size={chunk}
local_max_rate={rate}
"""


class Vsftpd:
    """vsftpd."""

    programs = ("vsftpd",)
    roles: Mapping[int, str] = MappingProxyType({21: "control", 20: "data"})

    def start(self, site: Site) -> None:
        """Serve the homes of the lab's users."""
        (Path("/etc/pam.d") / SERVICE).write_text(PAM)
        empty = site.folder / "empty"
        empty.mkdir()
        path = site.folder / "vsftpd.conf"
        end = site.parameters.termination
        chunk, rate = (CHUNK, SLOW) if end in ("rst", "sudden") else (0, 0)
        text = CONFIGURATION.format(
            empty=empty, service=SERVICE, address=site.host.address, chunk=chunk, rate=rate,
            idle=SHORT_S if end == "timeout" else IDLE_S,
        )  # fmt: skip
        path.write_text(text.lstrip())
        # what is wrong it says on its standard input, where a super-server would have put the connection
        process = site.host.start(["sh", "-c", 'exec vsftpd "$0" 0>&1', path], log="vsftpd")
        site.host.wait_for_port(21, process, "vsftpd")

    def version(self) -> str:
        """Its version."""
        return program_version("sh", "-c", "vsftpd -v 0>&1").rpartition(" ")[2]


VSFTPD = Vsftpd()
