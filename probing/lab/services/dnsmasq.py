"""dnsmasq: a name server for one zone, without DHCP and upstream servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

from probing.lab.isolation import ROOM
from probing.lab.session import Site, program_version

ZONE = "lab.test"
FILE = ROOM / "zone.json"  # entries that clients may ask for, with their answers
PORT = 53
HOSTS, ALIASES, DOMAINS, NOTES, LARGE = 24, 8, 4, 6, 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONFIGURATION = """
port={port}
user=root
group=root
pid-file={folder}/pid
keep-in-foreground
log-facility=-
no-resolv
no-hosts
no-poll
local=/{zone}/
local-ttl=300
"""


@dataclass(frozen=True)
class Entry:
    """A question and its answers, in the form that dig prints."""

    name: str
    type: str
    answers: tuple[str, ...]
    large: bool = False  # True: the answer does not fit into a datagram


class Dnsmasq:
    """dnsmasq."""

    programs = ("dnsmasq",)
    roles: Mapping[int, str] = MappingProxyType({PORT: "main"})

    def start(self, site: Site) -> None:
        """Serve a zone of this run."""
        configuration = site.folder / "dnsmasq.conf"
        lines, entries = zone(site.seed)
        head = CONFIGURATION.format(port=PORT, folder=site.folder, zone=ZONE)
        configuration.write_text(head + "\n".join(lines) + "\n")
        FILE.write_text(json.dumps([asdict(entry) for entry in entries]))
        process = site.host.start(["dnsmasq", "-C", configuration], log="dnsmasq")
        site.host.wait_for_port(PORT, process, "dnsmasq")

    def version(self) -> str:
        """The version of the program."""
        return program_version("dnsmasq", "--version").split()[2]


def zone(seed: int) -> tuple[list[str], list[Entry]]:
    """The lines of a configuration, and the entries that it defines."""
    rng = Random(f"{seed}/zone")
    lines, entries = [], []
    for line, *found in _records(rng):
        lines.append(line)
        entries += found
    for _ in range(LARGE):
        name = _name(rng)
        texts = [_text(rng, rng.randint(180, 240)) for _ in range(rng.randint(8, 14))]
        lines += [f'txt-record={name},"{text}"' for text in texts]
        entries.append(Entry(name, "TXT", tuple(f'"{text}"' for text in texts), large=True))
    return lines, entries


def _name(rng: Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(5, 14))) + f".{ZONE}"


def _text(rng: Random, n: int) -> str:
    return "".join(rng.choices(LETTERS + "0123456789 =-", k=n - 1)) + "."


def _records(rng: Random) -> Iterator[tuple[str, *tuple[Entry, ...]]]:
    """The lines of one entry or two."""
    hosts = []
    for _ in range(HOSTS):
        name, ipv4 = _name(rng), f"198.18.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        ipv6 = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("20010db8") + rng.randbytes(12))
        hosts.append((name, ipv4))
        yield f"host-record={name},{ipv4},{ipv6}", Entry(name, "A", (ipv4,)), Entry(name, "AAAA", (ipv6,))
    for _ in range(ALIASES):
        name, (target, ipv4) = _name(rng), rng.choice(hosts)
        yield (
            f"cname={name},{target}",
            Entry(name, "A", (f"{target}.", ipv4)),
            Entry(name, "CNAME", (f"{target}.",)),
        )
    for _ in range(DOMAINS):
        name, (target, _ipv4) = _name(rng), rng.choice(hosts)
        yield f"mx-host={name},{target},10", Entry(name, "MX", (f"10 {target}.",))
    for _ in range(NOTES):
        name, text = _name(rng), _text(rng, rng.randint(20, 120))
        yield f'txt-record={name},"{text}"', Entry(name, "TXT", (f'"{text}"',))


def entries(path: Path = FILE) -> list[Entry]:
    """The entries of this run's server."""
    return [Entry(**{**entry, "answers": tuple(entry["answers"])}) for entry in json.loads(path.read_text())]


DNSMASQ = Dnsmasq()
