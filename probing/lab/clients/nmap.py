"""nmap: scans of a host's ports."""

from __future__ import annotations

import re

from probing.lab.errors import LabError
from probing.lab.services.open_host import FILTERED, TCP, UDP
from probing.lab.session import Session, program_version

ALWAYS = ("-n", "-Pn", "--send-ip", "-r")  # no names, no ping, no ARP, ports in order
HOW = {
    "syn-scan": ("-sS",), "connect-scan": ("-sT",), "udp-scan": ("-sU",), "slow-scan": ("-sS",),
    "version-scan": ("-sS", "-sV", "--version-light", "--packet-trace"),
}  # fmt: skip
HIGHEST = 10_000  # highest port that is asked
SECONDS = 900.0  # most seconds of a scan: a filtered port is asked up to eleven times when answers are lost
_OPEN = re.compile(rb"(\d+)/open/")
_SENT = re.compile(rb"^SENT \S+ TCP [\d.]+:(\d+) > ", re.MULTILINE)


class Nmap:
    """nmap."""

    programs = ("nmap",)

    def perform(self, session: Session) -> None:
        """Scan; this succeeds when it finds exactly the open ports."""
        ports, open_ports = self._ports(session)
        answer = session.folder / f"scan-{session.sample}"
        words = [*HOW[session.activity], *ALWAYS, "-oG", str(answer), "-p", ",".join(map(str, ports))]
        if session.activity == "slow-scan":
            words += ["--scan-delay", f"{session.parameters.pause_ms:.0f}ms"]
        session.mark("scan")
        done = session.run("nmap", *words, session.server, seconds=SECONDS)
        found = answer.read_bytes()
        if b"# Nmap done" not in found:
            raise LabError(f"nmap: {done.stdout.decode(errors='replace')[-400:]}")
        if session.activity == "version-scan":  # it begins with a syn-scan for open ports
            for port in set(map(int, _SENT.findall(done.stdout))):
                session.claim(port, termination="rst")
        session.outcome(set(map(int, _OPEN.findall(found))) == open_ports)

    def _ports(self, session: Session) -> tuple[list[int], set[int]]:
        """The ports to ask, as many as ``ports``, and those of them that are open, at least one."""
        n, rng = session.parameters.ports, session.rng
        there = UDP if session.activity == "udp-scan" else TCP
        if session.activity == "version-scan":
            chosen = rng.sample(there, min(n, len(there)))
        else:
            chosen = rng.sample(there, min(len(there), max(1, n // 4)))
            if n >= 20 and there is TCP:
                chosen.append(rng.choice(FILTERED))
            others = [port for port in range(1, max(HIGHEST, n + 100)) if port not in (*TCP, *UDP, *FILTERED)]
            chosen += rng.sample(others, n - len(chosen))
        return sorted(chosen), set(chosen) & set(there)

    def version(self) -> str:
        """The version of the program."""
        return program_version("nmap", "--version").split(" ")[2]


NMAP = Nmap()
