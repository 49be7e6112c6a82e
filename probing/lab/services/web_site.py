"""The shared part of web servers: the folder of pages, the wait for a next request, the certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.isolation import ROOM
from probing.lab.session import Site

WWW = ROOM / "www"
UPLOAD = "upload"  # path that reads the body of a POST to its end before it answers
MOVED = "moved/"  # path whose pages have moved permanently to the root
STREAM = "stream/"  # path whose pages are sent at STREAM_KIB
STREAM_KIB = 256  # KiB/s of a stream: half a megabyte takes two seconds
THANKS = "thank you\n"

LONG_MS = 65_000  # idle ms after which a server closes a connection: longer than any pause of a client
HTTP2 = "tls-h2-"  # prefix of the activities that use HTTP/2
ONE_REQUEST = ("get", "post", "streaming", "not-found", "cached")


class Certificate(NamedTuple):
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


def host_name(host: Host) -> str:
    """The name of a server in URLs; addresses differ in length from run to run, so twins would differ."""
    return f"{host.name}.test"


def set_up(site: Site) -> Path:
    """Make the folder of pages, and register the server's name."""
    WWW.mkdir(mode=0o755, exist_ok=True)
    with Path("/etc/hosts").open("a") as names:
        names.write(f"{site.host.address} {host_name(site.host)}\n")
    return WWW


def serves_http2(site: Site) -> bool:
    """Whether the server is to offer HTTP/2 over TLS."""
    return any(activity.startswith(HTTP2) for activity in site.activities)


def idle_ms(site: Site) -> int:
    """The time in ms that the server waits for a next request.

    It is short where connections are to end by this timeout. But with several requests it must outlast a pause, two
    round trips of a slow link and a retransmission.
    """
    if site.parameters.termination != "timeout":
        return LONG_MS
    if all(activity.removeprefix("tls-") in ONE_REQUEST for activity in site.activities):
        return 1000
    return 3000 + round(site.parameters.pause_ms + 1e3 * site.parameters.longest_think_s)


def certificate(site: Site) -> Certificate:
    """A self-signed certificate, one for all runs of a corpus.

    It is RSA, whose signatures have one length: those of ECDSA differ by a byte or two, and so would twins.
    """
    place = site.template("certificate", _make)
    return Certificate(place / "certificate.pem", place / "key.pem")


def _make(folder: Path) -> None:
    done = subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500", "-set_serial", "1",
            "-subj", "/O=Wiresonde/CN=lab", "-keyout", folder / "key.pem", "-out", folder / "certificate.pem",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LabError(f"openssl req: exit {done.returncode}: {done.stderr.strip()[-400:]}")
