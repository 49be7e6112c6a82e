"""The rules of a label file, which assign packets to probes, and the meaning of probe ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.hashing import S32, endpoint_hash, fold
from engine.kernels import Int, kernel
from engine.types import ICMP, ICMP6, KIND_MASK, Kind, Packets, Rows

Probes = Mapping[int, Mapping[str, str]]  # probe id -> labels; id 0 means no probe
NO_PROBES: Probes = {0: {}}

HAS_SRC, HAS_SPORT, HAS_DST, HAS_DPORT, HAS_PROTO = 1, 2, 4, 8, 16
OF_ARP = 32  # the rule is about frames of ARP, and its addresses are MACs (src_lo, dst_lo)
WHOLE = HAS_SRC | HAS_SPORT | HAS_DST | HAS_DPORT | HAS_PROTO
WHOLE_ARP = OF_ARP | HAS_SRC | HAS_DST
PAIR, OF_TRANSPORT = HAS_SRC | HAS_DST, HAS_SPORT | HAS_DPORT | HAS_PROTO
LINK, ARP = int(Kind.LINK), int(Kind.ARP)

RULE = np.dtype(
    [
        ("src_hi", "u8"), ("src_lo", "u8"), ("dst_hi", "u8"), ("dst_lo", "u8"),
        ("start", "i8"), ("end", "i8"),
        ("probe", "u4"), ("sport", "u2"), ("dport", "u2"), ("proto", "u1"), ("has", "u1"),
    ],
    align=True,
)  # fmt: skip


@kernel
def _is_of_ip(has: Int, network: Int) -> bool:
    """Whether a rule with these fields is about IP alone, while a packet of this kind is a frame that is not IP.

    Such a frame has no ports or protocol (ARP's operation stands in their place), and is no part of a conversation of
    two hosts: anybody can write their addresses into ARP, as a man in the middle does. One host may still be named.
    """
    if network == ARP:
        return bool(has & OF_TRANSPORT or has & PAIR == PAIR)
    return bool(network == LINK and has)


@kernel
def _matches_arp(rule: Any, p: Packets, i: int, swapped: bool) -> bool:
    """Whether a frame is ARP between the MACs of a rule."""
    has, src, dst = rule["has"], p.src_mac[i], p.dst_mac[i]
    if swapped:
        src, dst = dst, src
    if p.kind[i] & KIND_MASK != ARP or (has & HAS_SRC and rule["src_lo"] != src):
        return False
    return not (has & HAS_DST and rule["dst_lo"] != dst)


@kernel
def _matches(rule: Any, p: Packets, i: int, swapped: bool) -> bool:
    has = rule["has"]
    if p.ts[i] < rule["start"] or p.ts[i] > rule["end"]:
        return False
    if has & OF_ARP:
        return _matches_arp(rule, p, i, swapped)
    if _is_of_ip(has, p.kind[i] & KIND_MASK):
        return False
    if (
        has & HAS_PROTO
        and rule["proto"] != p.proto[i]
        and not (rule["proto"] == ICMP and p.proto[i] == ICMP6)
    ):
        return False  # "icmp" means both versions
    src_hi, src_lo, sport = p.src_hi[i], p.src_lo[i], p.sport[i]
    dst_hi, dst_lo, dport = p.dst_hi[i], p.dst_lo[i], p.dport[i]
    if swapped:
        src_hi, src_lo, sport, dst_hi, dst_lo, dport = dst_hi, dst_lo, dport, src_hi, src_lo, sport
    if has & HAS_SRC and (rule["src_hi"] != src_hi or rule["src_lo"] != src_lo):
        return False
    if has & HAS_DST and (rule["dst_hi"] != dst_hi or rule["dst_lo"] != dst_lo):
        return False
    if has & HAS_SPORT and rule["sport"] != sport:
        return False
    return not (has & HAS_DPORT and rule["dport"] != dport)


@kernel
def _tag(
    rules: Rows, heads: NDArray[np.int32], following: NDArray[np.int32], patterns: int, p: Packets, out: Any
) -> None:
    """Write each packet's probe id. rules: by start; the first ``patterns`` have empty fields, the others are chained
    by the hash of their key in ``heads`` and ``following``, latest start first."""
    mask = np.uint64(heads.size - 1)
    for i in range(p.ts.size):
        if p.kind[i] & KIND_MASK == ARP:  # no rule without empty fields names its addresses
            h = endpoint_hash(np.uint64(0), p.src_mac[i], np.uint64(0))
            h += endpoint_hash(np.uint64(0), p.dst_mac[i], np.uint64(0))
        else:
            h = endpoint_hash(p.src_hi[i], p.src_lo[i], np.uint64(p.sport[i]))
            h += endpoint_hash(p.dst_hi[i], p.dst_lo[i], np.uint64(p.dport[i]))
        probe = np.uint32(0)
        k = heads[np.int64(fold(h, S32) & mask)]
        while k >= 0:
            if _matches(rules[k], p, i, False) or _matches(rules[k], p, i, True):
                probe = rules[k]["probe"]
                break
            k = following[k]
        if probe == 0:
            for j in range(patterns - 1, -1, -1):
                if _matches(rules[j], p, i, False) or _matches(rules[j], p, i, True):
                    probe = rules[j]["probe"]
                    break
        out[i] = probe


@kernel
def _chain(rules: Rows, patterns: int, heads: NDArray[np.int32], following: NDArray[np.int32]) -> None:
    mask = np.uint64(heads.size - 1)
    for k in range(patterns, rules.size):
        rule = rules[k]
        h = endpoint_hash(rule["src_hi"], rule["src_lo"], np.uint64(rule["sport"]))
        h += endpoint_hash(rule["dst_hi"], rule["dst_lo"], np.uint64(rule["dport"]))
        place = np.int64(fold(h, S32) & mask)
        following[k] = heads[place]
        heads[place] = k


@dataclass(frozen=True)
class Labels:
    """Rules, and the meaning of their probe ids."""

    probes: Probes
    rules: Rows  # (m,) RULE, those with an empty address, port or protocol first, then by start
    patterns: int  # number of rules with empty fields
    source: str = "labels"  # file they were read from

    def __post_init__(self) -> None:
        size = 1 << max(4, int(2 * self.rules.size).bit_length())
        heads, following = np.full(size, -1, np.int32), np.full(self.rules.size, -1, np.int32)
        with np.errstate(over="ignore"):
            _chain(self.rules, self.patterns, heads, following)
        object.__setattr__(self, "_index", (heads, following))

    def tag(self, p: Packets) -> Packets:
        """p with the probe ids of its packets.

        Of several matching rules, one without empty fields wins over one with; among equals, the one that starts last;
        among those, the last in the file.
        """
        heads, following = self._index  # type: ignore[attr-defined]
        out = np.zeros(p.ts.size, np.uint32)
        with np.errstate(over="ignore"):
            _tag(self.rules, heads, following, self.patterns, p, out)
        return p._replace(probe=out)


def new_probe_id(labels: Mapping[str, str], taken: Container[int]) -> int:
    """A free 32-bit id for a combination of labels, the same wherever it is free; never 0."""
    text = json.dumps(labels, sort_keys=True, separators=(",", ":"))
    probe = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    while probe in taken or probe == 0:
        probe = (probe + 1) & 0xFFFF_FFFF
    return probe
