"""dig: a socket for each query, over UDP with EDNS; once more over TCP when the answer is truncated."""

from __future__ import annotations

from collections.abc import Sequence

from probing.lab.clients.names import chosen
from probing.lab.errors import LabError
from probing.lab.services.dnsmasq import Entry
from probing.lab.session import Session, program_version

# without the user's configuration; a lost datagram is repeated after 5 s, as in other resolvers
PLAIN = ("-r", "-4", "+noall", "+answer", "+comments", "+time=5", "+tries=4")
BY_TCP = ("+tcp", "+keepopen", "+time=20")


class Dig:
    """dig."""

    programs = ("dig",)

    def perform(self, session: Session) -> None:
        """Do one of lookup, many, missing, large, tcp."""
        asked = chosen(session)
        session.mark("query")
        if session.activity == "tcp":
            if session.parameters.termination != "fin":
                raise LabError("dig can end a connection only by fin; use the client asyncio-dns")
            session.outcome(ask(session, asked, *BY_TCP))
            return
        right = True
        for k, entry in enumerate(asked):
            if k:
                session.pause()
            right &= ask(session, [entry])
        session.outcome(right)

    def version(self) -> str:
        """The version of the program."""
        return program_version("dig", "-v").removeprefix("DiG ")


def ask(session: Session, asked: Sequence[Entry], *options: str) -> bool:
    """Run dig once; returns whether each answer is right."""
    questions = [word for entry in asked for word in (entry.name, entry.type)]
    out = session.run("dig", *PLAIN, *options, f"@{session.server}", *questions).stdout.decode()
    blocks = out.split("->>HEADER<<-")[1:]
    if len(blocks) != len(asked):
        raise LabError(f"dig got {len(blocks)} answers to {len(asked)} queries: {out[-400:]}")
    right = True
    for block, entry in zip(blocks, asked):
        if not entry.answers and "status: NXDOMAIN" not in block:
            raise LabError(f"{entry.name} does not exist, but the answer is {block[:80].strip()}")
        right &= bool(entry.answers) and _answers(block) == sorted(entry.answers)
    return right


def _answers(block: str) -> list[str]:
    """The data of the answers in dig's output of a message."""
    lines = [line for line in block.splitlines()[1:] if line and not line.startswith(";")]
    return sorted(line.split(None, 4)[4] for line in lines)


DIG = Dig()
