"""The names that clients of the name server ask for."""

from __future__ import annotations

from probing.lab.services.dnsmasq import ZONE, Entry, entries
from probing.lab.session import Session


def chosen(session: Session) -> list[Entry]:
    """The entries that a sample asks for, in order; a name that does not exist has no answers."""
    known, rng = entries(), session.rng
    if session.activity == "missing":
        name = "missing-" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 12)))
        return [Entry(f"{name}.{ZONE}", rng.choice(("A", "AAAA", "MX", "TXT")), ())]
    if session.activity == "large":
        entry = rng.choice([entry for entry in known if entry.large])
        session.transferred(sum(len(answer) - 2 for answer in entry.answers))
        return [entry]
    short = [entry for entry in known if not entry.large]
    return rng.choices(short, k=1 if session.activity == "lookup" else session.parameters.requests)
