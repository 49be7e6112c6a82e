"""What visits to the shop are made of: ordinary pages, injections and harmless requests as long as they."""

from __future__ import annotations

from collections import Counter
from random import Random
from urllib.parse import parse_qs, unquote, urlencode

import pytest

from probing.lab.clients.shop import Step
from probing.lab.clients.shop_pages import ROWS, VAIN, login, mixed, product, search
from probing.lab.clients.sql_visits import Blind, as_long, tautology, union
from probing.lab.clients.typos import mistyped_words
from probing.lab.services.sql_pages import customers, password_hash, password_of, product_names, statements


def length(step: Step) -> int:
    """Bytes of a request that depend on its words."""
    return len(step.path) + (len(urlencode(step.form)) if step.form else 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_mirrored_request_is_as_long_as_the_injection_and_asks_for_the_same_as_before(seed: int) -> None:
    rng = Random(seed)
    for step, injection in ((search(rng), union(rng)), (product(rng), Blind(rng).question())):
        mirrored = as_long(step, injection)
        assert mirrored.mirrored
        assert length(mirrored) == length(injection)
        assert mirrored.path.startswith(f"{step.path}&")
        assert "'" not in unquote(mirrored.path)
    form, injection = login("ada", "correct-horse-7"), tautology(rng)
    mirrored = as_long(form, injection)
    assert mirrored.form is not None
    assert form.form is not None
    assert form.form.items() <= mirrored.form.items()
    assert length(mirrored) == (length(injection) if mirrored.form != form.form else length(form))


def test_a_mirrored_login_is_mostly_as_long_as_its_injection() -> None:
    rng = Random(1)
    equal = Counter[bool]()
    for _ in range(200):
        injection = tautology(rng)
        equal[length(as_long(login("ada", "correct-horse-7"), injection)) == length(injection)] += 1
    assert equal[True] > 100


def test_searches_find_as_many_products_as_are_drawn() -> None:
    rng, found = Random(1), Counter[int]()
    for _ in range(2000):
        word = parse_qs(search(rng).path.partition("?")[2])["q"][0]
        found[sum(word in name for name in product_names())] += 1
    assert found.pop(0) / 2000 == pytest.approx(VAIN, abs=0.02)
    assert ROWS[0] <= min(found) <= max(found) <= ROWS[1]
    assert len(found) > 30


def test_blind_questions_narrow_down_the_hash_of_a_customer() -> None:
    blind = Blind(Random(3))
    asked = []
    for _ in range(2 + 4 * 5):
        asked.append(unquote(blind.question().path))
        blind.hear(blind.truth)
    assert blind.right
    assert len(set(asked)) == len(asked)
    assert f">='{password_hash(password_of(blind.name))[:4]}" in asked[-1]
    blind.hear(not blind.truth)
    assert not blind.right


def test_questions_lie_between_pages_and_all_keep_their_order() -> None:
    places = Counter[int]()
    for seed in range(300):
        both = mixed(Random(seed), "abc", "123456")
        assert [x for x in both if x in "abc"] == list("abc")
        assert [x for x in both if x not in "abc"] == list("123456")
        places[both.index("a")] += 1
    assert set(places) == set(range(7))


def test_a_mistyped_password_is_wrong_once_or_twice_and_then_right() -> None:
    lengths = set()
    for seed in range(100):
        *wrong, right = mistyped_words(Random(seed), "correct-horse-7")
        assert right == "correct-horse-7"
        assert right not in wrong
        assert all(abs(len(word) - len(right)) <= 1 for word in wrong)
        lengths.add(len(wrong))
    assert lengths == {1, 2}


def test_every_customer_has_a_name_and_a_password_of_their_own() -> None:
    names = customers()
    assert names[:2] == ("ada", "bob")
    assert len(set(names)) == len(names) == 240
    assert len({password_of(name) for name in names}) == len(names) - 1  # the lab's users share theirs
    text = "\n".join(statements())
    assert all(
        f"'{name}','{name}@example.org','{password_hash(password_of(name))}'" in text for name in names
    )
