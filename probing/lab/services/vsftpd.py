"""vsftpd: files of the lab's users, in passive and active mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.session import Site, program_version

# unlike the distribution's PAM service: that waits a random time after a wrong password, and twins would differ
PAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n"
SERVICE = "lab-vsftpd"
IDLE_S, SHORT_S = 300, 4  # seconds until an idle session is closed, and in a run about that
CHUNK, SLOW = 4096, 4000  # bytes, bytes/s: downloads pause after each chunk in runs that break transfers off
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
        # it reports errors on its standard input, where a super-server would have put the connection
        process = site.host.start(["sh", "-c", 'exec vsftpd "$0" 0>&1', path], log="vsftpd")
        site.host.wait_for_port(21, process, "vsftpd")

    def version(self) -> str:
        """The version of the program."""
        return program_version("sh", "-c", "vsftpd -v 0>&1").rpartition(" ")[2]


VSFTPD = Vsftpd()
