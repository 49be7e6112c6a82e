"""The ordinary pages of a visit to the shop, drawn from one distribution for customers and for attackers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

from probing.lab.clients.shop import ACCOUNT, LOGIN, STYLE, Step
from probing.lab.services.sql_pages import PRODUCTS, customers, password_of, product_names
from probing.lab.session import Session

BEFORE, AFTER = (2, 5), (2, 7)  # numbers of ordinary pages before and after the middle of a visit
ROWS = (3, 49)  # numbers of products that a search finds
LETTERS = (3, 14)  # letters of a search
INDEX_PAGES = PRODUCTS // 24
GONE, VAIN = 0.05, 0.08  # shares of products that are not there any more, and of searches that find nothing
LOGGED_IN = 0.3  # share of visits in which a customer logs in before the middle, unless they do so in it
LINKED = 0.15  # share of pages reached by a link with words that the shop ignores
LINK = (6, 70)  # bytes of these words
FILLER = "from=newsletter-of-the-shop&for=friends-of-warm-light&seen=on-the-last-page-but-one&kept=for-later"
WEIGHTS = {"front": 0.1, "index": 0.25, "product": 0.35, "search": 0.3}


def first_pages(session: Session, *, login_follows: bool) -> list[Step]:
    """The pages before the middle of a visit: the front page with its style sheet, and others.

    login_follows: the middle is a login, so there is none before.
    """
    cold, rng = session.parameters.cache == "cold", session.rng
    style = [Step(STYLE, at_once=True)] if cold else []
    pages = [Step("/"), *style, *_pages(rng, rng.randint(*BEFORE) - 1)]
    if not login_follows and rng.random() < LOGGED_IN:
        name, password = customer(rng)
        pages += logins(name, [password])
    return pages


def last_pages(session: Session) -> list[Step]:
    """The pages after the middle of a visit."""
    return _pages(session.rng, session.rng.randint(*AFTER))


def _pages(rng: Random, n: int) -> list[Step]:
    kinds = rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()), k=n)
    make = {"front": lambda _: Step("/"), "index": _index, "product": product, "search": search}
    return [_linked(rng, make[kind](rng)) for kind in kinds]


def _linked(rng: Random, step: Step) -> Step:
    """The step, or a link to it from elsewhere."""
    if rng.random() >= LINKED:
        return step
    return step._replace(path=f"{step.path}{'&' if '?' in step.path else '?'}{FILLER[: rng.randint(*LINK)]}")


def _index(rng: Random) -> Step:
    return Step(f"/index.php?page={rng.randrange(1, INDEX_PAGES)}")


def product(rng: Random, gone: float = GONE) -> Step:
    """The page of a product. gone: share of numbers of products that do not exist."""
    number = rng.randrange(1, PRODUCTS + 1)
    return Step(f"/product.php?id={number + PRODUCTS if rng.random() < gone else number}")


def search(rng: Random) -> Step:
    """A search whose number of results is uniform over ROWS, or 0."""
    word = rng.choice(_words()[rng.randint(*ROWS)])
    if rng.random() < VAIN:
        word = f"{word[:-1]}q{word[-1]}"  # no name of a product has a q
    return Step(f"/search.php?q={word.replace(' ', '+')}")


@cache
def _words() -> dict[int, tuple[str, ...]]:
    """Parts of products' names, by the number of products that they find."""
    found = Counter(
        part
        for name in product_names()
        for part in {
            name[at:end]
            for at in range(len(name))
            for end in range(at + LETTERS[0], min(len(name), at + LETTERS[1]) + 1)
        }
        if part == part.strip()
    )
    by_rows: dict[int, list[str]] = {}
    for part, rows in sorted(found.items()):
        by_rows.setdefault(rows, []).append(part)
    return {
        rows: tuple(by_rows[min(by_rows, key=lambda n, rows=rows: (abs(n - rows), n))])  # type: ignore[misc]
        for rows in range(ROWS[0], ROWS[1] + 1)
    }


def login(name: str, password: str) -> Step:
    """The login form, filled in."""
    return Step(LOGIN, {"name": name, "password": password})


def logins(name: str, words: Sequence[str]) -> list[Step]:
    """The login form, filled in with one password after another, and the customer's own page."""
    return [Step(LOGIN), *(login(name, word) for word in words), Step(ACCOUNT, at_once=True)]


def customer(rng: Random) -> tuple[str, str]:
    """A customer's name and password."""
    name = rng.choice(customers())
    return name, password_of(name)


def mixed(rng: Random, some: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """The elements of one sequence at random places between those of another; both keep their order."""
    places = set(rng.sample(range(len(some) + len(others)), len(some)))
    a, b = iter(some), iter(others)
    return [next(a) if k in places else next(b) for k in range(len(some) + len(others))]
