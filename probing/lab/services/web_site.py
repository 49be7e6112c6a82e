"""What web servers share: the folder of pages, how long they wait for a next request, a certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.isolation import ROOM
from probing.lab.session import Site

WWW = ROOM / "www"
UPLOAD = "upload"  # takes the body of a POST to its end, then answers
MOVED = "moved/"  # what is below has moved permanently to the root
STREAM = "stream/"  # what is below is sent at STREAM_KIB
STREAM_KIB = 256  # KiB/s: a half-megabyte film of 2.1 Mbit/s takes two seconds
THANKS = "thank you\n"

LONG_MS = 65_000  # idle time after which a server gives a connection up: longer than any pause of a client
ONE_REQUEST = ("get", "post", "streaming", "not-found", "cached")


class Certificate(NamedTuple):
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


def host_name(host: Host) -> str:
    """The name of a server in URLs; addresses would be of different lengths in different runs, and twins differ."""
    return f"{host.name}.test"


def set_up(site: Site) -> Path:
    """Make the folder of pages, and the server's name known."""
    WWW.mkdir(mode=0o755, exist_ok=True)
    with Path("/etc/hosts").open("a") as names:
        names.write(f"{site.host.address} {host_name(site.host)}\n")
    return WWW


def idle_ms(site: Site) -> int:
    """How long the server waits for a next request.

    Where connections are to end by its giving up, that is soon. But with several requests to come it must outlast a
    pause, two round trips of a slow link and a packet that is sent again.
    """
    if site.parameters.termination != "timeout":
        return LONG_MS
    if all(activity.removeprefix("tls-") in ONE_REQUEST for activity in site.activities):
        return 1000
    return 3000 + round(site.parameters.pause_ms)


def certificate(site: Site) -> Certificate:
    """A self-signed certificate, one for all runs of a corpus.

    RSA, for its signatures are of one length: those of ECDSA differ by a byte or two, and twins would too.
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
