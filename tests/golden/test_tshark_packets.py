"""Packets of real captures as tshark sees them: counts, lengths, addresses, protocols and ports."""

from __future__ import annotations

import ipaddress
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from engine.headers.decode import decode
from engine.types import Packets, Reason, concatenate
from tests.support.captures import CAPTURES, capture_files, needs_captures, tshark_counters

pytestmark = [needs_captures, pytest.mark.captures, pytest.mark.compiled]

OUR_LINK_TYPES = {
    0, 1, 9, 12, 14, 50, 51, 100, 101, 104, 105, 107, 108, 109, 113, 117, 119, 127, 163, 166, 192, 204, 205, 206,
    219, 226, 228, 229, 239, 240, 241, 242, 258, 276, 281, 282, 284, 285,
}  # fmt: skip

# Packets where tshark has another number or none.
COUNTS = {
    "robust/tcpdump__brcm-tag-prepend.pcap": "tshark 4.0 does not know link type 282 and gives no packet",
    "robust/tcpdump__brcm-tag.pcap": "tshark 4.0 does not know link type 281",
    "robust/libpcap__brcm-tag.pcap": "tshark 4.0 does not know link type 281",
    "robust/libpcap__brcm-tag-stp.pcap": "tshark 4.0 does not know link type 281",
    "robust/libpcap__dsa.pcap": "tshark 4.0 does not know link type 284",
    "robust/tcpdump__frf16_magic_ie-oobr.pcap": "tshark 4.0 does not know link type 182",
    "robust/tcpdump__juniper_es_oobr.pcap": "tshark 4.0 does not know the link type",
    "robust/tcpdump__juniper_monitor_invalid_cookie_length.pcap": "tshark 4.0 does not know the link type",
    "robust/tcpdump__vtp_asan.pcap": "tshark 4.0 does not know the link type",
    "robust/tcpdump__vtp_asan-2.pcap": "tshark 4.0 does not know the link type",
    "robust/tcpdump__vtp_asan-3.pcap": "tshark 4.0 does not know the link type",
    "robust/tcpdump__hoobr_juniper3.pcap": "tshark takes the FCS length beside the link type for part of it",
    "robust/libpcap__pcap-invalid-version-2.pcap": "version 2.5: libpcap refuses it, as we do",
    "robust/pcapplusplus__solaris.snoop": "not pcap: an error that says so",
    **{
        f"robust/pcapnggen__output_{order}_{test}.pcapng": "tshark counts custom blocks as packets"
        for order in ("be", "le")
        for test in ("advanced_test102", "basic_test017", "basic_test018", "difficult_test202")
    },
}

_FEWER_CAPTURED = "wire length below captured length: ours is raised to the captured one"
_PARTIAL = "tshark shows addresses of an IP header that was not captured whole"

# (file, packet) where a length, address, protocol or port is not tshark's; packet 0 is any.
PACKETS = {
    ("robust/tcpdump__aoe-oobr-1.pcap", 1): _FEWER_CAPTURED,
    ("robust/tcpdump__pim_header_asan-2.pcap", 3): _FEWER_CAPTURED,
    ("robust/tcpdump__rsvp-rsvp_obj_print-oobr.pcap", 2): _FEWER_CAPTURED,
    ("robust/ndpi__fuzz-2021-06-07-c6c72a0a56.pcap", 1): "tshark cuts a wire length of 4 GB to int32",
    ("robust/tcpdump__ipv4_invalid_length.pcap", 1): _PARTIAL,
    ("robust/tcpdump__ipv6_invalid_length.pcap", 1): _PARTIAL,
    ("robust/zeek__trunc_ipv4-internally-truncated-header.pcap", 1): (
        "options cut off: tshark then shows the source address alone, we both"
    ),
    ("robust/tcpdump__icmp-icmp_print-oobr-1.pcap", 1): (
        "3 bytes of ICMP: tshark shows type and code only with the checksum"
    ),
    ("robust/tcpdump__icmp-icmp_print-oobr-2.pcap", 1): _FEWER_CAPTURED,
    ("robust/tcpdump__icmp-icmp_print-oobr-2.pcap", 2): _FEWER_CAPTURED,
    ("robust/tcpdump__icmp-icmp_print-oobr-2.pcap", 3): (
        "2 bytes of ICMP: tshark shows type and code only with the checksum"
    ),
    ("robust/sv__ipv6-evasion_ipv6-malformed-fragments-11__frag-11.pcap", 6): (
        "over 100 extension headers: beyond our limit of 16"
    ),
    ("robust/sv__ipv6-evasion_ipv6-malformed-fragments-12__frag-12.pcap", 5): (
        "over 100 extension headers: beyond our limit of 16"
    ),
    ("robust/zeek__ipv6-mobility-dst-opts.pcap", 1): (
        "tshark stops at an option that is longer than its header; its length is of no use to us"
    ),
    ("robust/zeek__pbb-recursive-frames.pcapng", 1): "nested deeper than our limit of 8",
    (
        "conn/zeek__cisco-fabric-path.pcap",
        0,
    ): "tshark shows no ports of SCTP without a whole chunk, nor some addresses",
}


def packets(file: Path) -> tuple[Packets, set[int], CaptureError | None]:
    """All packets before the end or the damage, their link types, and the damage."""
    parts, link_types, error = [], set(), None
    with CaptureFile(file) as capture:
        try:
            for frames in capture:
                parts.append(decode(frames))
                link_types |= set(np.unique(frames.link_type).tolist())
        except CaptureError as damage:
            error = damage
    return concatenate(parts), link_types, error


def test_packet_counts_are_tsharks() -> None:
    counters = tshark_counters()
    differ = {
        file for file, row in counters.items() if packets(CAPTURES / file)[0].ts.size != int(row["packets"])
    }
    assert differ == set(COUNTS) & set(counters)


def test_packet_counts_are_those_the_pcapng_generator_wrote() -> None:
    descriptions = sorted(CAPTURES.glob("robust/pcapnggen__*.pcapng.txt"))
    assert len(descriptions) > 30
    for description in descriptions:
        blocks = dict(re.findall(r"^\s+(\w+): (\d+)$", description.read_text(), re.MULTILINE))
        want = sum(int(blocks.get(kind, 0)) for kind in ("EPB", "SPB", "PB", "OPB"))
        got, _, error = packets(description.with_suffix(""))
        assert (got.ts.size, error) == (want, None), description.name


def test_every_file_ends_in_a_result_or_a_clear_error_in_little_memory() -> None:
    files = [*capture_files("robust"), *sorted((CAPTURES / "robust").glob("*.gz"))]
    assert len(files) > 500
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file in files:
        _, _, error = packets(file)
        assert error is None or re.fullmatch(rf"{re.escape(str(file))}: byte \d+: .+", str(error)), file
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


FIELDS = (
    "frame.len", "frame.protocols", "ip.src", "ip.dst", "ip.proto", "ipv6.src", "ipv6.dst",
    "arp.src.proto_ipv4", "arp.dst.proto_ipv4", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport",
    "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code", "sctp.srcport", "sctp.dstport",
)  # fmt: skip
ADDRESSES = {
    "ip": ("ip.src", "ip.dst"),
    "ipv6": ("ipv6.src", "ipv6.dst"),
    "arp": ("arp.src.proto_ipv4", "arp.dst.proto_ipv4"),
}
PORTS = {
    "tcp": (6, "tcp.srcport", "tcp.dstport"),
    "udp": (17, "udp.srcport", "udp.dstport"),
    "icmp": (1, "icmp.type", "icmp.code"),
    "icmpv6": (58, "icmpv6.type", "icmpv6.code"),
    "sctp": (132, "sctp.srcport", "sctp.dstport"),
}


@dataclass(frozen=True)
class Seen:
    """What is compared of a packet."""

    size: int
    src: int
    dst: int
    proto: int
    ports: tuple[int, int]

    def is_part_of(self, other: Seen) -> bool:
        """Whether all that is here is there, too."""
        pairs = zip((*astuple(self)[:4], *self.ports), (*astuple(other)[:4], *other.ports))
        return all(mine in (0, theirs) for mine, theirs in pairs)


def _theirs(line: str) -> Seen:
    """A line of tshark's, outer headers only."""
    f = dict(zip(FIELDS, line.split("\t"), strict=True))
    layers = f["frame.protocols"].split(":")
    network = next((layer for layer in layers if layer in ADDRESSES), "")
    src, dst = (_number(f[name]) for name in ADDRESSES.get(network, ("arp.src.proto_ipv4",) * 2))
    transport = ""
    if network in ("ip", "ipv6"):
        above = (layer for layer in layers[layers.index(network) + 1 :] if not _is_extension(layer))
        transport = next(above, "")
    if transport in PORTS:
        proto, sport, dport = PORTS[transport]
        return Seen(int(f["frame.len"]), src, dst, proto, (int(f[sport] or 0), int(f[dport] or 0)))
    proto = int(f["ip.proto"] or 0) if network == "ip" and "ah" not in layers else 0
    return Seen(int(f["frame.len"]), src, dst, proto, (0, 0))


def _is_extension(layer: str) -> bool:
    return layer == "ah" or layer.startswith("ipv6.")


def _number(address: str) -> int:
    """128 bits, IPv4 mapped into IPv6; 0 for none."""
    if not address:
        return 0
    return (
        0xFFFF << 32 | int(ipaddress.IPv4Address(address))
        if "." in address and ":" not in address
        else int(ipaddress.IPv6Address(address))
    )


def _ours(p: Packets, i: int, theirs: Seen) -> Seen:
    proto = int(p.proto[i])
    known = proto in (1, 6, 17, 58, 132)
    ports = (int(p.sport[i]), int(p.dport[i])) if known else (0, 0)
    if theirs.proto == 0 and ports == (0, 0):
        proto = 0  # tshark names no protocol we could compare: above IPv6, of a later fragment, or cut off
    src, dst = (int(hi[i]) << 64 | int(lo[i]) for hi, lo in ((p.src_hi, p.src_lo), (p.dst_hi, p.dst_lo)))
    return Seen(int(p.size[i]), src, dst, proto, ports)


@cache
def _comparable() -> dict[str, Packets]:
    """Packets by file, of all files with as many packets as in tshark's and link types we read."""
    found = {}
    for file, row in tshark_counters().items():
        if file in COUNTS or row["packets"] == "0":
            continue
        p, link_types, _ = packets(CAPTURES / file)
        if link_types <= OUR_LINK_TYPES:
            found[file] = p
        else:
            assert (p.reason == Reason.LINK_TYPE).any(), file
    return found


def _lines(files: list[str], folder: Path) -> Iterator[str]:
    """tshark's lines for all files, put one behind the other so that it starts once."""
    merged = folder / "merged.pcapng"
    names = [str(CAPTURES / file) for file in files]
    subprocess.run(
        ["mergecap", "-a", "-F", "pcapng", "-w", str(merged), *names], check=True, capture_output=True
    )
    options = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE")
    command = ["tshark", "-r", str(merged), "-T", "fields", "-E", "occurrence=f"]
    command += [part for option in options for part in ("-o", option)]
    command += [part for field in FIELDS for part in ("-e", field)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    yield from out.splitlines()


@pytest.mark.skipif(
    not shutil.which("tshark") or not shutil.which("mergecap"), reason="tshark is not installed"
)
def test_lengths_and_five_tuples_are_tsharks(tmp_path: Path) -> None:
    ours = _comparable()
    lines = _lines(list(ours), tmp_path)
    differ: dict[tuple[str, int], tuple[Seen, Seen]] = {}
    compared = 0
    for file, p in ours.items():
        for i in range(p.ts.size):
            theirs = _theirs(next(lines))
            mine = _ours(p, i, theirs)
            compared += 1
            if mine != theirs:
                differ[file, 0 if (file, 0) in PACKETS and theirs.is_part_of(mine) else i + 1] = mine, theirs
    assert next(lines, None) is None
    assert compared > 50_000
    assert {key: value for key, value in differ.items() if key not in PACKETS} == {}
    assert [key for key in PACKETS if key[0] in ours and key not in differ] == [], (
        "exceptions no longer needed"
    )
