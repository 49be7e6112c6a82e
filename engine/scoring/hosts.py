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
from engine.hashing import GOLDEN, splitmix
from engine.notation import LINK_HOST
from engine.types import KIND_MASK, Kind, Packets, Rows, take

UNKNOWN, NEW, KNOWN = -1, 0, 1  # values of SCORE's known_orig and known_resp; UNKNOWN: no hosts were kept
MOST = 1 << 20  # most hosts in a bundle
CACHED = 1 << 16  # most hosts whose answer is cached
Words = NDArray[np.uint64]


class Hosts:
    """A bounded set of hosts, by address; frames that are not IP by MAC."""

    def __init__(self, key: bytes, most: int) -> None:
        """key: of the hashes, 16 bytes. most: hosts kept; 0: none, and nothing is known of any host."""
        self.key, self.most = key, most
        self.refused = 0  # ends of connections that met a host for which there was no room
        self._hashes: set[int] = set()
        self._met = np.empty(0, np.uint64)  # quick hashes of hosts in the set, sorted; saves time only
        self._cache: dict[tuple[int, int], bool] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def learn(self, p: Packets, n: int) -> None:
        """Take the hosts of the first n packets of p, in their order."""
        if not self.most or not n:
            return
        hi, lo = hosts_of(take(p, slice(0, n)))
        with np.errstate(over="ignore"):
            quick = splitmix(splitmix(hi ^ GOLDEN) ^ lo)
        found, first = np.unique(quick, return_index=True)
        place = np.minimum(np.searchsorted(self._met, found), max(0, self._met.size - 1))
        new = self._met[place] != found if self._met.size else np.ones(found.size, bool)
        met = []
        for at in np.sort(first[new]).tolist():
            mine = self._hash(int(hi[at]), int(lo[at]))
            if mine not in self._hashes and len(self._hashes) == self.most:
                continue
            self._hashes.add(mine)
            met.append(quick[at])
        if met:
            self._met = np.union1d(self._met, np.array(met, np.uint64))
            self._cache.clear()

    def known(self, rows: Rows, learning: NDArray[np.bool_]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Whether the originator and the responder of each connection are in the set: UNKNOWN, NEW or KNOWN.

        rows: (n,) CONNECTION. learning: (n,) whether the model was learning; hosts without room are then counted.
        """
        if not self.most:
            nothing = np.full(rows.size, UNKNOWN, np.int8)
            return nothing, nothing
        sides = [
            np.array([self._has(*words) for words in zip(rows[f"{s}_hi"].tolist(), rows[f"{s}_lo"].tolist())], bool)
            for s in "ab"
        ]  # fmt: skip
        self.refused += int(np.count_nonzero(learning & ~(sides[0] & sides[1])))
        flipped = (rows["flags"] & FLAG_FLIPPED) != 0
        orig, resp = np.where(flipped, sides[1], sides[0]), np.where(flipped, sides[0], sides[1])
        return orig.astype(np.int8), resp.astype(np.int8)

    def _has(self, hi: int, lo: int) -> bool:
        found = self._cache.get((hi, lo))
        if found is None:
            if len(self._cache) >= CACHED:
                self._cache.clear()
            found = self._cache[hi, lo] = self._hash(hi, lo) in self._hashes
        return found

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


def hosts_of(p: Packets) -> tuple[Words, Words]:
    """(2n,) high and low words of the source and destination of each packet, in turn; as connections have them."""
    kind = p.kind & KIND_MASK
    link = kind < Kind.IPV4
    hi, lo = np.empty(2 * p.ts.size, np.uint64), np.empty(2 * p.ts.size, np.uint64)
    for k, side in enumerate(("src", "dst")):
        hi[k::2] = np.where(link, LINK_HOST, getattr(p, f"{side}_hi"))
        lo[k::2] = np.where(link, getattr(p, f"{side}_mac"), getattr(p, f"{side}_lo"))
    read = np.repeat(kind != Kind.UNREAD, 2)
    return hi[read], lo[read]
