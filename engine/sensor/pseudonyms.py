"""Prefix-preserving pseudonyms of addresses under a key, by the Crypto-PAn of Xu, Fan, Ammar and Moon (ICNP 2002).

Bit i of an address is flipped by the first bit of AES(the i bits before it, filled up from the pad): section 4.

Addresses with a meaning of their own are kept: 0.0.0.0, ::, 255.255.255.255, 224.0.0.0/4 and ff00::/8. But then the
cipher would turn some other /4 (the key decides which) into multicast, where it would collide with the kept addresses.
So a pseudonym that is a kept address is encoded again until it is not ("cycle walking": Black and Rogaway 2002, section
3). Different addresses thus always have different pseudonyms. Of two addresses that are not kept,

1. those of the same /4 (IPv6: /8) share exactly as many bits as their pseudonyms;
2. those of different /4 (/8) have pseudonyms of different /4 (/8), and share exactly as many bits if both were
   encoded once: for each key, all are but at most one /4 and one /8;
3. an address that is encoded once has the pseudonym that other Crypto-PAn programs give it under the same key.

The exceptions hardly occur in practice: the two IPv4 addresses that would become 0.0.0.0 and 255.255.255.255, the IPv6
address that would become :: and the IPv6 /96 that would become ::ffff:0:0/96 are encoded again on their own.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from numpy.typing import NDArray

from engine.hashing import GOLDEN, S29, S32, SPLIT_1, fold
from engine.kernels import Int, kernel
from engine.types import Packets, Rows, freeze

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]
Cipher16 = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # (n, 16) bytes in, (n, 16) out


class Values(NamedTuple):
    """n values of 128 bits."""

    hi: Words  # (n,) the most significant half
    lo: Words


Code = Callable[[Values], Values]

KEY_SIZE = 32  # bytes: an AES-128 key, and 16 that the pad is made from
FRESH = 512  # values encoded at once: 1 MiB of AES blocks if they are IPv6

MAPPED = np.uint64(0xFFFF << 32)  # low word of ::ffff:0.0.0.0
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFF_FFFF)
MULTICAST_V4, TO_CLASS = np.uint64(0xE), np.uint64(28)
MULTICAST_V6, TO_FIRST = np.uint64(0xFF), np.uint64(56)
BROADCAST_MAC = np.uint64(0xFFFF_FFFF_FFFF)
MAC_KEPT = np.uint64(0x0300_0000_0000)  # group and local bits of the first octet
MAC_CODED = BROADCAST_MAC ^ MAC_KEPT

ENTRY = np.dtype([("hi", "u8"), ("lo", "u8"), ("to_hi", "u8"), ("to_lo", "u8")])

_HEX = re.compile(r"[0-9a-fA-F]{64}")


def read_key(text: str | bytes) -> bytes:
    """The key from 64 hex digits, white space around them allowed, or from exactly 32 raw bytes; else ValueError."""
    if isinstance(text, bytes):
        if len(text) == KEY_SIZE:
            return text
        text = text.decode("ascii", errors="replace")
    digits = text.strip()
    if not _HEX.fullmatch(digits):  # the message must not contain the key
        raise ValueError(f"a key of {len(digits)} characters must be 64 hex digits or 32 raw bytes")
    return bytes.fromhex(digits)


class Pseudonymiser:
    """Replaces the addresses of packets.

    A MAC becomes 46 bits of its AES under a key derived from the first, and keeps its group and local bits; zero and
    broadcast are kept. That is not a permutation: two of n MACs collide with a chance of n² / 2^47, of 1000 with one in
    140 million. Not for two threads at once. ValueError for a key that is not 32 bytes.
    """

    def __init__(self, key: bytes, remembered: int = 1 << 16) -> None:
        """remembered: most addresses, and most MACs, whose pseudonyms are cached; changes no result."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of {len(key)} bytes must be 32 bytes: 16 for AES-128 and 16 for the pad")
        derived = hmac.digest(key, b"wiresonde MAC addresses", "sha256")
        seed = np.uint64(int.from_bytes(derived[16:24], "little"))
        self._addresses = Memory(_addresses_under(key), remembered, seed)
        self._macs = Memory(_macs_under(derived[:16]), remembered, seed)
        self._checksums = _checksums_under(hmac.digest(key, b"wiresonde checksums", "sha256"))

    def apply(self, p: Packets) -> Packets:
        """p with pseudonyms for addresses and MACs, read-only; values that a packet lacks stay 0.

        Checksums, which depend on the addresses, are replaced one to one. All else is kept: ports (for ICMP, type and
        code), sizes, times, IP ids and sequence numbers. Unchanged columns are shared with p.
        """
        n = p.ts.size
        mac = np.concatenate((p.src_mac, p.dst_mac))
        _, mac = self._macs.of(Values(np.zeros_like(mac), mac))
        hi, lo = self._addresses.of(
            Values(np.concatenate((p.src_hi, p.dst_hi)), np.concatenate((p.src_lo, p.dst_lo)))
        )
        shared = Packets._make(column.view() for column in p)  # freezing these leaves the flags of p alone
        return freeze(
            shared._replace(
                src_hi=hi[:n],
                dst_hi=hi[n:],
                src_lo=lo[:n],
                dst_lo=lo[n:],
                src_mac=mac[:n],
                dst_mac=mac[n:],
                checksum=self._checksums[p.checksum],
            )
        )


class Memory:
    """A function of 128-bit values with a cache of its results: open addressing, emptied when full.

    0 always gives 0.
    """

    def __init__(self, function: Code, remembered: int, seed: np.uint64) -> None:
        """seed: secret, so that nobody can send addresses that all hash to one place."""
        if remembered < 1:
            raise ValueError(f"remembered {remembered} must be >= 1")
        self.known = 0
        self.remembered = remembered
        self._function = function
        self._seed = seed
        self._table = np.zeros(1 << (2 * remembered - 1).bit_length(), ENTRY)
        self._fresh = np.empty(min(FRESH, remembered), np.int64)

    def of(self, values: Values) -> Values:
        """The function's result for each value; called only for values that are not in the cache."""
        out = Values(np.empty_like(values.hi), np.empty_like(values.lo))
        begin = 0
        with np.errstate(over="ignore"):
            while begin < values.lo.size:
                begin = self._advance(begin, values, out)
        return out

    def _advance(self, begin: int, values: Values, out: Values) -> int:
        """Write the results of the rows from ``begin`` to the returned one."""
        fresh = self._fresh[: self.remembered - self.known]
        end, n = _look_up(self._table, self._seed, begin, values, out, fresh)
        if n:
            try:
                self._learn(fresh[:n])
            except BaseException:
                self._forget()  # some entries have no answer yet
                raise
            done = Values(values.hi[:end], values.lo[:end])
            _look_up(self._table, self._seed, begin, done, out, fresh[:0])
        elif end < values.lo.size:
            self._forget()
        return int(end)

    def _learn(self, places: NDArray[np.int64]) -> None:
        asked = self._table[places]
        answers = self._function(Values(asked["hi"].copy(), asked["lo"].copy()))
        self._table["to_hi"][places], self._table["to_lo"][places] = answers
        self.known += places.size

    def _forget(self) -> None:
        self._table[:] = np.zeros((), ENTRY)
        self.known = 0


@kernel
def _look_up(
    table: Rows, seed: Int, begin: Int, values: Values, out: Values, fresh: NDArray[np.int64]
) -> tuple[Int, Int]:
    """Write the cached results of the rows from ``begin``, and enter the values that ``table`` lacks.

    table: (2^k,) ENTRY, hi = lo = 0 where free; changed in place. fresh: receives the places of new entries; their
    answers are still missing, in ``out`` too. Returns the row before which ``fresh`` was full, and the number of
    places in it.
    """
    mask = np.int64(table.size - 1)
    n = 0
    for i in range(begin, values.lo.size):
        hi, lo = values.hi[i], values.lo[i]
        if hi == 0 and lo == 0:
            out.hi[i], out.lo[i] = 0, 0
            continue
        x = fold((lo ^ seed) * GOLDEN, S32)
        x = fold((x + hi) * SPLIT_1, S29)
        at = np.int64(x >> S32) & mask
        entry = table[at]
        while (entry["hi"] != hi or entry["lo"] != lo) and (entry["hi"] != 0 or entry["lo"] != 0):
            at = (at + 1) & mask
            entry = table[at]
        if entry["hi"] == 0 and entry["lo"] == 0:
            if n == fresh.size:
                return i, n
            entry["hi"], entry["lo"] = hi, lo
            fresh[n] = at
            n += 1
        out.hi[i], out.lo[i] = entry["to_hi"], entry["to_lo"]
    return values.lo.size, n


def _aes(key: bytes) -> Cipher16:
    """AES of each row."""
    update = Cipher(AES(key), modes.ECB()).encryptor().update
    return lambda blocks: np.frombuffer(update(blocks.data), np.uint8).reshape(-1, 16)


def _crypto_pan(key: bytes, bits: int) -> Code:
    """Crypto-PAn of addresses with that many bits, a multiple of 8, leftmost in the values."""
    aes = _aes(key[:16])
    pad = aes(np.frombuffer(key[16:], np.uint8)).view(">u8")[0].astype(np.uint64)
    ones = (1 << 128) - 1
    tops = [ones ^ (ones >> i) for i in range(bits)]  # the first i bits
    before = np.array([[top >> 64, top & (ones >> 64)] for top in tops], np.uint64)  # (bits, 2)
    filled = ~before & pad

    def code(values: Values) -> Values:
        n = values.lo.size
        blocks = np.empty((n, bits, 2), ">u8")
        for half, words in enumerate(values):
            blocks[:, :, half] = (words[:, None] & before[:, half]) | filled[:, half]
        first = aes(blocks.view(np.uint8))[:, 0].reshape(n, bits) & 0x80
        flips = np.zeros((n, 16), np.uint8)
        flips[:, : bits // 8] = np.packbits(first, axis=1)
        hi, lo = flips.view(">u8").astype(np.uint64).T
        return Values(values.hi ^ hi, values.lo ^ lo)

    return code


def _addresses_under(key: bytes) -> Code:
    """Pseudonyms of addresses in the form of Packets."""
    code_v4, code_v6 = _crypto_pan(key, 32), _crypto_pan(key, 128)

    def pseudonyms(addresses: Values) -> Values:
        hi, lo = addresses.hi.copy(), addresses.lo.copy()
        v4 = _is_v4(hi, lo)
        todo = ~_is_kept(hi, lo)
        while todo.any():
            rows = np.flatnonzero(todo & v4)
            lo[rows] = MAPPED | (code_v4(Values(lo[rows] << HALF, hi[rows])).hi >> HALF)
            rows = np.flatnonzero(todo & ~v4)
            hi[rows], lo[rows] = code_v6(Values(hi[rows], lo[rows]))
            todo &= _is_kept(hi, lo) | (_is_v4(hi, lo) != v4)
        return Values(hi, lo)

    return pseudonyms


def _is_v4(hi: Words, lo: Words) -> Mask:
    v4: Mask = (hi == 0) & (lo >> HALF == MAPPED >> HALF)
    return v4


def _is_kept(hi: Words, lo: Words) -> Mask:
    low = lo & LOW_HALF
    kept_v4 = (low == 0) | (low == LOW_HALF) | (low >> TO_CLASS == MULTICAST_V4)
    kept_v6 = ((hi == 0) & (lo == 0)) | (hi >> TO_FIRST == MULTICAST_V6)
    kept: Mask = np.where(_is_v4(hi, lo), kept_v4, kept_v6)
    return kept


def _checksums_under(secret: bytes) -> NDArray[np.uint16]:
    """(65536,) a secret permutation of checksums that keeps 0."""
    order = np.random.Generator(np.random.PCG64(int.from_bytes(secret, "little"))).permutation(65535)
    return np.concatenate(([0], order + 1)).astype(np.uint16)


def _macs_under(key: bytes) -> Code:
    """Pseudonyms of MACs, which are in the low halves."""
    aes = _aes(key)

    def pseudonyms(macs: Values) -> Values:
        coded = aes(np.stack(macs, axis=1).astype(">u8").view(np.uint8))
        words = coded.view(">u8")[:, 0].astype(np.uint64)
        out = (words & MAC_CODED) | (macs.lo & MAC_KEPT)
        return Values(macs.hi, np.where(macs.lo == BROADCAST_MAC, macs.lo, out))

    return pseudonyms
