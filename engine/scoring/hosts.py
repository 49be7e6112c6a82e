"""Hosts that learning saw, so that an alarm of a new host can be told from an odd one of a known host.

Kept are keyed hashes, not addresses: a bundle does not list the network that it was learned on. The key is in the
bundle, so whoever has it can test whether a given address was seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.layout import FLAG_FLIPPED
from engine.errors import StateError
from engine.hashing import splitmix, splitmix_kernel
from engine.kernels import kernel
from engine.notation import LINK_HOST
from engine.types import KIND_MASK, Kind, Packets, Rows

UNKNOWN, NEW, KNOWN = -1, 0, 1  # values of SCORE's known_orig and known_resp; UNKNOWN: no hosts were kept
MOST = 1 << 20  # most hosts in a bundle
CACHED = 1 << 16  # most hosts whose answer is remembered
ONE = np.uint64(1)
UNREAD, IPV4 = int(Kind.UNREAD), int(Kind.IPV4)
Words = NDArray[np.uint64]


@kernel
def look_up(memory: Words, quick: Words, out: NDArray[np.int8]) -> int:
    """Write the remembered answer to each quick hash, 2 where there is none; gives their number.

    memory: (power of two,) hash with the answer in its lowest bit, 0 = empty; open addressing.
    """
    unknown, mask = 0, np.uint64(memory.size - 1)
    for i in range(quick.size):
        wanted, k = quick[i] | ONE, (quick[i] >> ONE) & mask
        out[i] = 2
        while memory[k] != 0:
            if memory[k] | ONE == wanted:
                out[i] = memory[k] & ONE
                break
            k = (k + ONE) & mask
        unknown += out[i] == 2
    return unknown


@kernel
def remember(memory: Words, quick: Words, answers: NDArray[np.int8]) -> None:
    """Enter answers, or overwrite them. There must be room."""
    mask = np.uint64(memory.size - 1)
    for i in range(quick.size):
        wanted, k = quick[i] | ONE, (quick[i] >> ONE) & mask
        while memory[k] != 0 and memory[k] | ONE != wanted:
            k = (k + ONE) & mask
        memory[k] = (quick[i] & ~ONE) | np.uint64(answers[i])


@kernel
def sift(p: Packets, keys: Words, memory: Words, out: NDArray[np.int64]) -> int:
    """Write the ends (as in ``hosts_of``) of the first out.size / 2 packets whose hosts are not remembered as known."""
    n, mask = 0, np.uint64(memory.size - 1)
    for i in range(out.size // 2):
        kind = p.kind[i] & KIND_MASK
        if kind == UNREAD:
            continue
        for side in range(2):
            if kind < IPV4:
                hi, lo = LINK_HOST, p.dst_mac[i] if side else p.src_mac[i]
            elif side:
                hi, lo = p.dst_hi[i], p.dst_lo[i]
            else:
                hi, lo = p.src_hi[i], p.src_lo[i]
            quick = splitmix_kernel(splitmix_kernel(hi ^ keys[0]) ^ lo ^ keys[1])
            wanted, k = quick | ONE, (quick >> ONE) & mask
            while memory[k] != 0 and memory[k] | ONE != wanted:
                k = (k + ONE) & mask
            if memory[k] & ONE == 0:
                out[n] = 2 * i + side
                n += 1
    return n


class Hosts:
    """A bounded set of hosts, by address; frames that are not IP by MAC."""

    def __init__(self, key: bytes, most: int) -> None:
        """key: of the hashes, 16 bytes. most: hosts kept; 0: none, and nothing is known of any host."""
        self.key, self.most = key, most
        self.refused = 0  # ends of connections that met a host for which there was no room
        self._hashes: set[int] = set()
        self._memory, self._remembered = np.zeros(4 * CACHED, np.uint64), 0  # answers; saves time only
        self._keys = np.frombuffer(key, np.uint64)

    def __len__(self) -> int:
        return len(self._hashes)

    def learn(self, p: Packets, n: int) -> None:
        """Take the hosts of the first n packets of p, in their order."""
        if not self.most or not n:
            return
        open_ = np.empty(2 * n, np.int64)
        with np.errstate(over="ignore"):  # hashes wrap; numpy would warn when the kernel runs uncompiled
            open_ = open_[: sift(p, self._keys, self._memory, open_)]
        if len(self._hashes) == self.most or not open_.size:
            return
        hi, lo = hosts_of(p, open_)
        quick = self._quick(hi, lo)
        _, first = np.unique(quick, return_index=True)
        met = []
        for at in np.sort(first).tolist():
            mine = self._hash(int(hi[at]), int(lo[at]))
            if mine in self._hashes or len(self._hashes) < self.most:
                self._hashes.add(mine)
                met.append(at)
        self._note(quick[met], np.ones(len(met), np.int8))

    def known(self, rows: Rows, learning: NDArray[np.bool_]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Whether the originator and the responder of each connection are in the set: UNKNOWN, NEW or KNOWN.

        rows: (n,) CONNECTION. learning: (n,) whether the model was learning; hosts without room are then counted.
        """
        if not self.most:
            nothing = np.full(rows.size, UNKNOWN, np.int8)
            return nothing, nothing
        a, b = (self._has(rows[f"{side}_hi"], rows[f"{side}_lo"]) for side in "ab")
        self.refused += int(np.count_nonzero(learning & ((a == NEW) | (b == NEW))))
        flipped = (rows["flags"] & FLAG_FLIPPED) != 0
        return np.where(flipped, b, a), np.where(flipped, a, b)

    def _has(self, hi: Words, lo: Words) -> NDArray[np.int8]:
        """(n,) NEW or KNOWN."""
        quick, found = self._quick(hi, lo), np.empty(hi.size, np.int8)
        if look_up(self._memory, quick, found):
            open_ = np.flatnonzero(found == 2)
            pairs = zip(hi[open_].tolist(), lo[open_].tolist())
            found[open_] = [self._hash(*pair) in self._hashes for pair in pairs]
            self._note(quick[open_], found[open_])
        return found

    def _quick(self, hi: Words, lo: Words) -> Words:
        with np.errstate(over="ignore"):
            quick: Words = splitmix(splitmix(hi ^ self._keys[0]) ^ lo ^ self._keys[1])
            return quick

    def _note(self, quick: Words, answers: NDArray[np.int8]) -> None:
        if self._remembered + quick.size > CACHED:
            self._memory[:], self._remembered = 0, 0
        if quick.size <= CACHED:
            self._remembered += quick.size
            remember(self._memory, quick, answers)

    def _hash(self, hi: int, lo: int) -> int:
        data = hi.to_bytes(8, "big") + lo.to_bytes(8, "big")
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self.key).digest(), "big", signed=True)

    def state(self) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """The hashes, sorted, and the rest as JSON values; a bundle holds both."""
        return np.array(sorted(self._hashes), np.int64), {
            "key": self.key.hex(),
            "most": self.most,
            "refused": self.refused,
        }

    @classmethod
    def from_state(cls, hashes: NDArray[Any], values: Mapping[str, Any]) -> Hosts:
        """The set of a result of ``state``, hostile until checked. StateError where it cannot be one."""
        key, most, refused = values.get("key"), values.get("most"), values.get("refused")
        if not isinstance(key, str) or len(key) != 32 or set(key) - set("0123456789abcdef"):
            raise StateError("hosts: the key must be 32 hex digits")
        for name, value in (("most", most), ("refused", refused)):
            if type(value) is not int or not 0 <= value < 1 << 62:
                raise StateError(f"hosts: {name} {value!r} must be a whole number, 0 or more")
        if hashes.dtype != np.int64 or hashes.ndim != 1 or hashes.size > min(MOST, int(most or 0)):
            raise StateError(
                f"hosts: {hashes.dtype}{list(hashes.shape)} must be at most {min(MOST, int(most or 0))} int64"
            )
        own = cls(bytes.fromhex(key), int(most or 0))
        own.refused, own._hashes = int(refused or 0), set(hashes.tolist())
        return own


def hosts_of(p: Packets, ends: NDArray[np.int64]) -> tuple[Words, Words]:
    """(n,) words of hosts, as connections have them. ends: (n,) twice a packet's row, and 1 more for its receiver."""
    rows, receives = ends // 2, ends % 2 == 1
    link = (p.kind[rows] & KIND_MASK) < Kind.IPV4
    hi = np.where(receives, p.dst_hi[rows], p.src_hi[rows])
    lo = np.where(receives, p.dst_lo[rows], p.src_lo[rows])
    mac = np.where(receives, p.dst_mac[rows], p.src_mac[rows])
    return np.where(link, LINK_HOST, hi), np.where(link, mac, lo)
