"""Pseudonyms against a twin that works bit by bit, and the laws of prefixes."""

from __future__ import annotations

import hmac
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine.sensor.pseudonyms import Memory, Pseudonymiser, Values
from engine.types import Packets, concatenate, empty_packets, freeze, take
from tests.support.streams import stream

Address = IPv4Address | IPv6Address

LOW = (1 << 64) - 1
keys = st.binary(min_size=32, max_size=32)
v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**16),
    st.integers(0, 2**64).map(lambda low: 0x20010DB8 << 96 | low),
).map(IPv6Address)
addresses = st.lists(v4 | v6.filter(lambda a: a.ipv4_mapped is None), min_size=1, max_size=20)
KEPT = [IPv4Address(a) for a in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.250")] + [
    IPv6Address(a) for a in ("::", "ff02::1", "::ffff:192.0.2.1", "::ffff:0.0.0.0", "ffff::")
]


def bit(aes: Cipher[modes.ECB], pad: int, first: int, i: int) -> int:
    """Whether the bit after the first i bits is flipped: section 4 of the paper."""
    block = first << (128 - i) | pad & (1 << (128 - i)) - 1
    return aes.encryptor().update(block.to_bytes(16, "big"))[0] >> 7


def crypto_pan(key: bytes, address: Address, back: bool = False) -> Address:
    """Crypto-PAn of an address, or the address of a pseudonym."""
    aes = Cipher(algorithms.AES(key[:16]), modes.ECB())
    pad = int.from_bytes(aes.encryptor().update(key[16:]), "big")
    bits = address.max_prefixlen
    before = after = 0
    for i in range(bits):
        given = int(address) >> (bits - 1 - i) & 1
        other = given ^ bit(aes, pad, after if back else before, i)
        before, after = before << 1 | given, after << 1 | other
    return type(address)(after)


def is_kept(a: Address) -> bool:
    return a.is_multicast or a.is_unspecified or a == IPv4Address("255.255.255.255")


def is_taken(a: Address) -> bool:
    return is_kept(a) or (isinstance(a, IPv6Address) and a.ipv4_mapped is not None)


def naive(key: bytes, address: Address) -> Address:
    """The pseudonym: an address that is not kept is encrypted until the result is not a kept address."""
    if is_kept(address):
        return address
    address = crypto_pan(key, address)
    while is_taken(address):
        address = crypto_pan(key, address)
    return address


def packets(given: list[Address]) -> Packets:
    """A packet from each address to the next."""
    p = empty_packets(len(given))
    values = [int(a) | (0xFFFF << 32 if isinstance(a, IPv4Address) else 0) for a in given]
    p.src_hi[:], p.src_lo[:] = [v >> 64 for v in values], [v & LOW for v in values]
    p.dst_hi[:], p.dst_lo[:] = np.roll(p.src_hi, -1), np.roll(p.src_lo, -1)
    return freeze(p)


def sources(p: Packets) -> list[Address]:
    wide = [IPv6Address(int(hi) << 64 | int(lo)) for hi, lo in zip(p.src_hi, p.src_lo)]
    return [a.ipv4_mapped or a for a in wide]


def pseudonyms(key: bytes, given: list[Address], remembered: int = 64) -> list[Address]:
    p = Pseudonymiser(key, remembered).apply(packets(given))
    assert np.array_equal(p.dst_hi, np.roll(p.src_hi, -1))
    assert np.array_equal(p.dst_lo, np.roll(p.src_lo, -1))
    return sources(p)


def shared(a: Address, b: Address) -> int:
    """Number of leading bits that two addresses share."""
    return a.max_prefixlen - (int(a) ^ int(b)).bit_length()


def equal(p: Packets, q: Packets) -> bool:
    return all(np.array_equal(getattr(p, name), getattr(q, name)) for name in Packets._fields)


def mixed(seed: int, n: int) -> Packets:
    """A stream of a few hosts, some with IPv6."""
    p = stream(seed, n)
    six = np.random.default_rng(seed).random(n) < 0.3
    p.src_hi[six] = p.dst_hi[six] = 0x20010DB8 << 32
    return freeze(p)


@given(key=keys, given_addresses=addresses)
@example(key=bytes(32), given_addresses=[*KEPT[:6], KEPT[8], IPv4Address("8.8.8.8")])
def test_pseudonyms_are_those_of_the_naive_twin(key: bytes, given_addresses: list[Address]) -> None:
    assert pseudonyms(key, given_addresses) == [naive(key, a) for a in given_addresses]


@given(key=keys)
def test_an_address_whose_pseudonym_would_be_a_kept_address_gets_an_unused_one(key: bytes) -> None:
    reached = [crypto_pan(key, a, back=True) for a in KEPT]
    assert [crypto_pan(key, a) for a in reached] == KEPT
    reached = list(dict.fromkeys(a for a in reached if not is_taken(a)))
    again = [crypto_pan(key, a) for a in reached + KEPT if not is_taken(crypto_pan(key, a))]
    others = [a for a in again if not is_taken(a) and a not in reached]  # where the round goes on
    after = pseudonyms(key, reached + others)
    assert after == [naive(key, a) for a in reached + others]
    assert not any(is_taken(a) for a in after)
    assert len(set(after)) == len(set(reached + others))


@given(key=keys, a=v4 | v6, keep=st.integers(0, 127), tail=st.integers(0, 2**128 - 1))
def test_addresses_share_as_many_bits_as_their_pseudonyms(
    key: bytes, a: Address, keep: int, tail: int
) -> None:
    size, whole = (4, 32) if isinstance(a, IPv4Address) else (8, 128)  # bits of what multicast fills
    keep %= whole
    rest = whole - keep
    b = type(a)((int(a) >> rest << rest) | (~int(a) & 1 << (rest - 1)) | (tail & (1 << (rest - 1)) - 1))
    assert shared(a, b) == keep
    assume(not is_taken(a) and not is_taken(b))
    after = pseudonyms(key, [a, b])
    if keep >= size or not (is_taken(crypto_pan(key, a)) or is_taken(crypto_pan(key, b))):
        assert shared(*after) == keep
    else:
        assert shared(*after) < size


@given(key=keys)
def test_one_sixteenth_at_most_is_coded_again(key: bytes) -> None:
    blocks: list[Address] = [IPv4Address(i << 28 | 0x0123456) for i in range(16) if i != 14]
    after = pseudonyms(key, blocks)
    assert sum(a != crypto_pan(key, b) for a, b in zip(after, blocks)) <= 1
    assert {int(a) >> 28 for a in after} == set(range(16)) - {14}


@given(key=keys, seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_cutting_the_stream_elsewhere_changes_no_pseudonym(key: bytes, seed: int, cuts: list[int]) -> None:
    p = mixed(seed, 200)
    edges = [0, *sorted(cuts), 200]
    one = Pseudonymiser(key, 8)
    parts = [one.apply(take(p, slice(a, b))) for a, b in pairwise(edges)]
    assert equal(concatenate(parts), Pseudonymiser(key, 8).apply(p))


@given(key=keys, seed=st.integers(0, 2**32 - 1), remembered=st.integers(1, 20))
def test_the_memory_changes_no_pseudonym(key: bytes, seed: int, remembered: int) -> None:
    p = mixed(seed, 60)
    small, large = Pseudonymiser(key, remembered), Pseudonymiser(key)
    for _ in range(2):
        assert equal(small.apply(p), large.apply(p))


@given(key=keys, macs=st.lists(st.integers(0, 2**48 - 1), min_size=1, max_size=20))
@example(key=bytes(32), macs=[0, 1, 2**48 - 1, 2**48 - 2])
def test_macs_are_those_of_the_naive_twin(key: bytes, macs: list[int]) -> None:
    derived = hmac.digest(key, b"wiresonde MAC addresses", "sha256")[:16]
    aes = Cipher(algorithms.AES(derived), modes.ECB())
    p = empty_packets(len(macs))
    p.src_mac[:] = macs
    for mac, after in zip(macs, Pseudonymiser(key, 64).apply(p).src_mac.tolist()):
        coded = aes.encryptor().update(mac.to_bytes(16, "big"))[2:8]
        first = coded[0] & 0xFC | mac >> 40 & 3
        expected = mac if mac in (0, 2**48 - 1) else int.from_bytes(bytes([first]) + coded[1:], "big")
        assert after == expected


@given(
    remembered=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
    blocks=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=30), max_size=4),
)
def test_a_memory_asks_what_a_dict_emptied_when_full_would(
    remembered: int, seed: int, blocks: list[list[tuple[int, int]]]
) -> None:
    asked: list[tuple[int, int]] = []

    def function(values: Values) -> Values:
        asked.extend(zip(values.hi.tolist(), values.lo.tolist()))
        return Values(~values.lo, values.hi + np.uint64(7))

    memory = Memory(function, remembered, np.uint64(seed))
    twin: dict[tuple[int, int], tuple[int, int]] = {}
    expected = []
    for block in blocks:
        hi, lo = np.array(block, np.uint64).reshape(-1, 2).T.copy()
        out = memory.of(Values(hi, lo))
        for (a, b), *after in zip(block, out.hi.tolist(), out.lo.tolist()):
            if (a, b) == (0, 0):
                assert after == [0, 0]
                continue
            if (a, b) not in twin:
                if len(twin) == remembered:
                    twin.clear()
                twin[a, b] = (b ^ (1 << 64) - 1, a + 7)
                expected.append((a, b))
            assert tuple(after) == twin[a, b]
        assert memory.known == len(twin)
    assert asked == expected
