"""Passwords for OpenSSH's client, which asks a program for each: typed at a user's pace, and counted."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from probing.lab.errors import LabError
from probing.lab.isolation import USER
from probing.lab.session import Session

SSH_PORT, ESTABLISHED, LIMIT_S = 22, "01", 120.0
OPTIONS = {
    "PreferredAuthentications": "password", "PubkeyAuthentication": "no", "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR", "ConnectTimeout": "60",
}  # fmt: skip
# what OpenSSH's servers take by default; users' programs of different age and configuration offer a part of it
OFFERS = {
    "KexAlgorithms": (
        "curve25519-sha256", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
        "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512",
    ),
    "Ciphers": ("chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-gcm@openssh.com"),
    "MACs": ("umac-64-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512", "hmac-sha2-256"),
}  # fmt: skip
# each line of the list: seconds to wait, and a password
PROGRAM = """#!/bin/sh
cat /proc/self/net/tcp > "$LAB_PASSWORDS.sockets"
IFS=' ' read -r seconds word < "$LAB_PASSWORDS"
sed -i 1d "$LAB_PASSWORDS"
echo x >> "$LAB_PASSWORDS.typed"
sleep "$seconds"
printf '%s\\n' "$word"
"""


class Typist(NamedTuple):
    """Who types passwords when OpenSSH's client asks for them."""

    session: Session
    listed: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which ssh asks this typist."""
        program = f"{self.listed.with_name('askpass')}"
        return {"SSH_ASKPASS": program, "SSH_ASKPASS_REQUIRE": "force", "LAB_PASSWORDS": f"{self.listed}"}

    def typed(self) -> int:
        """The number of passwords that were asked for."""
        file = self.listed.with_name(f"{self.listed.name}.typed")
        return len(file.read_text().splitlines()) if file.exists() else 0

    def report(self, *, attack: bool) -> None:
        """Report to the session the connection that was open when passwords were asked for, and how many it carried."""
        sockets = self.listed.with_name(f"{self.listed.name}.sockets")
        port = _local_port(sockets.read_text(), self.session.server) if sockets.exists() else None
        if port is not None:
            self.session.claim(port)
            for _ in range(self.typed()):
                self.session.attempt(port, attack=attack)


def typist(session: Session, words: Sequence[str]) -> Typist:
    """A typist of these passwords, who waits for pause_ms and a think time before each."""
    program, listed = session.folder / "askpass", session.folder / "passwords"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    pause_s = session.parameters.pause_ms / 1e3
    listed.write_text("".join(f"{pause_s + session.thought():.6f} {word}\n" for word in words))
    for left in ("sockets", "typed"):
        listed.with_name(f"{listed.name}.{left}").unlink(missing_ok=True)
    return Typist(session, listed)


def _local_port(table: str, server: str) -> int | None:
    """The local port of the connection to a server's SSH in a copy of /proc/net/tcp."""
    address = f"{int.from_bytes(socket.inet_aton(server), sys.byteorder):08X}:{SSH_PORT:04X}"
    for line in table.splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if remote == address and state == ESTABLISHED:
            return int(local.split(":")[1], 16)
    return None


def offers(session: Session) -> dict[str, str]:
    """The algorithms that this user's program offers, the same in all of the user's connections."""
    rng = Random(f"{session.seed}/{session.host.name}/offers")
    return {name: ",".join(rng.sample(known, rng.randint(1, len(known)))) for name, known in OFFERS.items()}


def log_in(session: Session, words: Sequence[str], command: str = "true", *, attack: bool) -> bool:
    """Run a command by SSH with the first password that is right; whether there is one."""
    asked = typist(session, words)
    options = OPTIONS | offers(session) | {"NumberOfPasswordPrompts": f"{len(words)}"}
    done = session.run(
        "ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), f"{USER}@{session.server}",
        command, ok=(0, 255), seconds=LIMIT_S, env=asked.environment,
    )  # fmt: skip
    asked.report(attack=attack)
    if done.returncode and b"Permission denied" not in done.stderr:
        raise LabError(f"ssh: {done.stderr.decode(errors='replace').strip()[-400:]}")
    return done.returncode == 0
