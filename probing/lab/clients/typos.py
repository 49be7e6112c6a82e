"""Passwords as honest people mistype them."""

from __future__ import annotations

from random import Random

MISTAKES = (1, 2)  # least and most mistakes before the right password


def mistyped_words(rng: Random, password: str) -> list[str]:
    """The password mistyped once or twice, then right."""
    return [*(mistype(rng, password) for _ in range(rng.randint(*MISTAKES))), password]


def mistype(rng: Random, password: str) -> str:
    """A password with two neighbours swapped, or a character left out, doubled or in the wrong case."""
    while True:
        k = rng.randrange(len(password) - 1)
        word = rng.choice((
            password[:k] + password[k + 1] + password[k] + password[k + 2 :],
            password[:k] + password[k + 1 :],
            password[:k] + password[k] + password[k:],
            password[:k] + password[k].swapcase() + password[k + 1 :],
        ))  # fmt: skip
        if word != password:
            return word
