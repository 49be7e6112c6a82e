"""Text forms of values, for people and files."""

from __future__ import annotations

import socket

import numpy as np
from numpy.typing import NDArray

V4_PREFIX = np.uint64(0xFFFF)  # upper half of the low word of an IPv4 address, which is mapped into IPv6


# high word of an address whose low word is a MAC; as an address of IPv6 it would be none that anyone has (8000::/16)
LINK_HOST = np.uint64(1) << np.uint64(63)


def address_text(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> list[str]:
    """Addresses in their usual notation, and MACs behind LINK_HOST."""
    pairs = np.stack((hi, lo), axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    packed = unique.astype(">u8").tobytes()
    texts = []
    for k, (high, low) in enumerate(unique):
        raw = packed[16 * k : 16 * k + 16]
        if high == 0 and low >> np.uint64(32) == V4_PREFIX:
            texts.append(socket.inet_ntop(socket.AF_INET, raw[12:]))
        elif high == LINK_HOST and low >> np.uint64(48) == 0:
            texts.append(mac_text(int(low)))
        else:
            texts.append(socket.inet_ntop(socket.AF_INET6, raw))
    return [texts[k] for k in inverse.reshape(-1)]


def seconds(ns: int) -> str:
    """ns as text in seconds, with nine decimals: a float would round them."""
    return f"{'-' * (ns < 0)}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"


def mac_text(mac: int) -> str:
    """A MAC in its usual notation."""
    return mac.to_bytes(6, "big").hex(":")


# names of EtherTypes (IEEE 802 Numbers, IANA), and of LLC's service access points below 256
ETHERTYPES = {
    0x0806: "arp", 0x0842: "wol", 0x22F0: "avtp", 0x22F3: "trill", 0x22EA: "srp", 0x6002: "mop", 0x6003: "decnet",
    0x8035: "rarp", 0x809B: "appletalk", 0x80F3: "aarp", 0x8137: "ipx", 0x8204: "qnx", 0x8808: "flow-control",
    0x8809: "slow", 0x8847: "mpls", 0x8848: "mpls", 0x8863: "pppoe-discovery", 0x8864: "pppoe", 0x886D: "intel-ans",
    0x888E: "eapol", 0x8892: "profinet", 0x889A: "hyperscsi", 0x88A2: "aoe", 0x88A4: "ethercat", 0x88AB: "powerlink",
    0x88B8: "goose", 0x88B9: "gse", 0x88BA: "sv", 0x88CC: "lldp", 0x88CD: "sercos", 0x88E1: "homeplug",
    0x88E3: "mrp", 0x88E5: "macsec", 0x88E7: "pbb", 0x88F5: "mvrp", 0x88F7: "ptp", 0x8902: "cfm", 0x8906: "fcoe",
    0x8914: "fip", 0x8915: "roce", 0x892F: "hsr", 0x9000: "loopback", 0x893A: "ieee1905", 0x99FE: "tte",
    0x42: "stp", 0xF0: "netbeui", 0xE0: "ipx", 0xFE: "iso", 0xAA: "snap",
}  # fmt: skip


def ethertype_name(number: int) -> str:
    """The name of an EtherType, 0x and four digits if it has none here; 1: frames that have no EtherType."""
    return ETHERTYPES.get(number, "link" if number == 1 else f"0x{number:04x}")
