"""The mixers give what others have published, compiled or not: ids and snapshots depend on it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.hashing import GOLDEN, endpoint_hash, murmur, splitmix, splitmix_kernel, stir

WORD = 1 << 64
NUMBERS = (0, 1, 0x0123456789ABCDEF, WORD - 1)


def test_splitmix_gives_the_published_numbers_of_seed_1234567() -> None:
    """Those of the generator's C code (prng.di.unimi.it/splitmix64.c), as Rosetta Code lists them."""
    states = np.uint64(1234567) + GOLDEN * np.arange(1, 6, dtype=np.uint64)
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert splitmix(states).tolist() == published
    with np.errstate(over="ignore"):
        assert [int(splitmix_kernel(state)) for state in states] == published


@pytest.mark.parametrize("number", NUMBERS)
def test_mixers_are_their_definitions_in_integers_without_a_width(number: int) -> None:
    def product(x: int, y: int) -> int:
        return x * y % WORD

    x = product(number ^ number >> 33, 0xFF51AFD7ED558CCD)
    x = product(x ^ x >> 33, 0xC4CEB9FE1A85EC53)
    y = product(number ^ 5, 0x9E3779B97F4A7C15)
    z = product(number ^ product(443, 0x9E3779B97F4A7C15), 0xBF58476D1CE4E5B9)
    z = product(z ^ z >> 32 ^ 7, 0x94D049BB133111EB)
    with np.errstate(over="ignore"):
        assert int(murmur(np.uint64(number))) == x ^ x >> 33
        assert int(stir(np.uint64(5), np.uint64(number))) == y ^ y >> 29
        assert int(endpoint_hash(np.uint64(7), np.uint64(number), np.uint64(443))) == z ^ z >> 29
