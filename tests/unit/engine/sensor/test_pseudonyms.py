"""Pseudonyms of addresses: published vectors, what is kept, what is remembered, keys."""

from __future__ import annotations

import traceback
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import pytest

from engine.sensor.pseudonyms import Memory, Pseudonymiser, Values, read_key
from engine.types import Kind, Packets, empty_packets, freeze
from tests.support.streams import stream

# The key and trace of Crypto-PAn's distribution (sample_trace_raw.dat, sample_trace_sanitized.dat), each address once
KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")
TRACE = """
128.11.68.132 135.242.180.132   129.118.74.4 134.136.186.123    130.132.252.244 133.68.164.234
141.223.7.43 141.167.8.160      141.233.145.108 141.129.237.235 152.163.225.39 151.140.114.167
156.29.3.236 147.225.12.42      165.247.96.84 162.9.99.234      166.107.77.190 160.132.178.185
192.102.249.13 252.138.62.131   192.215.32.125 252.43.47.189    192.233.80.103 252.25.108.8
192.41.57.43 252.222.221.184    193.150.244.223 253.169.52.216  195.205.63.100 255.186.223.5
198.200.171.101 249.199.68.213  198.26.132.101 249.36.123.202   198.36.213.5 249.7.21.132
198.51.77.238 249.18.186.254    199.217.79.101 248.38.184.213   202.49.198.20 245.206.7.234
203.12.160.252 244.248.163.4    204.184.162.189 243.192.77.90   204.202.136.230 243.178.4.198
204.29.20.4 243.33.20.123       205.178.38.67 242.108.198.51    205.188.147.153 242.96.16.101
205.188.248.25 242.96.88.27     205.245.121.43 242.21.121.163   207.105.49.5 241.118.205.138
207.135.65.238 241.202.129.222  207.155.9.214 241.220.250.22    207.188.7.45 241.255.249.220
207.25.71.27 241.33.119.156     207.33.151.131 241.1.233.131    24.0.250.221 100.15.198.226
24.13.62.231 100.2.192.247      24.14.213.138 100.1.42.141      24.5.0.80 100.9.15.210
24.7.198.88 100.10.6.25         24.94.26.44 100.88.228.35       38.15.67.68 64.3.66.187
4.3.88.225 124.60.155.63        63.14.55.111 95.9.215.7         63.195.241.44 95.179.238.44
63.97.7.140 95.97.9.123         64.14.118.196 0.255.183.58      64.34.154.117 0.221.154.117
64.39.15.238 0.219.7.41
"""
MULTICAST_TRACE = """
208.147.89.59 227.237.98.191    208.234.120.210 227.154.67.17   208.28.185.184 227.39.94.90
209.12.231.7 226.243.167.8      209.246.74.109 226.22.124.76    212.120.124.31 228.135.163.231
212.204.172.118 228.71.195.169  216.148.237.145 235.84.194.111  216.35.217.178 235.195.157.81
"""

# Other programs', each with its own key
YACRYPTOPAN = bytes.fromhex("8009ab3a605435bea0c385bea18485d8b0a1103d6590bdf48c968be5de53836e")
LIBANON = bytes.fromhex("d1c056a983786a38ca76a05cda240c7b86d7713693544000a0e6c4dd5b3dabdd")
OTHERS = [
    (KEY, "::1 78ff:f001:9fc0:20df:8380:b1f1:704:ed"),  # the Go package cryptopan
    (KEY, "::2 78ff:f001:9fc0:20df:8380:b1f1:704:ef"),
    (KEY, "::ffff 78ff:f001:9fc0:20df:8380:b1f1:704:f838"),
    (KEY, "2001:db8::1 4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e"),
    (KEY, "2001:db8::2 4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1c"),
    (b"32-char-str-for-AES-key-and-pad.", "192.0.2.1 192.0.125.244"),  # yacryptopan's README
    (b"32-char-str-for-AES-key-and-pad.", "2001:db8::1 27fe:8bc7:fee:1e:1e1f:f0fe:f0e1:83fd"),
    (bytes(range(32)), "192.0.2.1 2.90.93.17"),  # yacryptopan and Perl's IP::Anonymous
    (bytes(range(32)), "10.0.1.128 246.35.190.47"),
    (bytes(range(32)), "127.0.0.1 168.227.160.61"),
    (bytes(range(32)), "2001:db8::1 dd92:2c44:3fc0:ff1e:7ff9:c7f0:8180:7e00"),
    (YACRYPTOPAN, "123.123.123.123 117.8.135.123"),
    (YACRYPTOPAN, "8.8.8.8 55.21.62.136"),
    (YACRYPTOPAN, "2a02:db8:85a3::8a2e:370:7344 1482:f447:75b3:f1f9:fbdf:622e:34f:ff7b"),
    (YACRYPTOPAN, "2a02:db8:85a3:8d3:1319:8a2e:370:7344 1482:f447:75b3:f904:c1d9:ba2e:489:1346"),
    (YACRYPTOPAN, "2001:b8:a3::2e:70:44 1f18:b37b:1cc3:8118:41f:9fd1:f875:fab8"),
    (YACRYPTOPAN, "fc00:: f33c:8ca3:ef0f:e019:e7ff:f1e3:f91f:f800"),
    (LIBANON, "112.28.3.2 136.126.15.210"),
    (LIBANON, "31d6:1be5:41bd:663c:3e9e:1005:1eec:6f01 cc29:fb1a:b9fd:613c:e68:a03b:1efd:961f"),
    (LIBANON, "2001:638:709:861::1 d0f1:f603:8e9:98c:3f5f:1f9:ffcf:bf9f"),
    (LIBANON, "2001:638:709:4::4 d0f1:f603:8e9:6cb:803f:3e39:f134:3fbb"),
]

KEPT = [
    *("0.0.0.0", "255.255.255.255", "224.0.0.0", "224.0.0.251", "239.255.255.255"),
    *("::", "ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]
BESIDE_KEPT = [
    *("0.0.0.1", "255.255.255.254", "223.255.255.255", "240.0.0.0", "10.0.0.255"),
    *("::1", "::1:0:0:0:0", "fe80::1", "fec0::", "::224.0.0.1", "::fffe:224.0.0.1", "::1:0:ffff:224.0.0.1"),
]


def packets(addresses: list[str], macs: list[int] | None = None) -> Packets:
    """A packet for each address: from it to it."""
    p = empty_packets(len(addresses))
    for i, text in enumerate(addresses):
        value = int(ip_address(text)) | (0 if ":" in text else 0xFFFF << 32)
        p.src_hi[i] = p.dst_hi[i] = value >> 64
        p.src_lo[i] = p.dst_lo[i] = value & (1 << 64) - 1
        p.kind[i] = Kind.IPV6 if ":" in text else Kind.IPV4
    if macs is not None:
        p.src_mac[:], p.dst_mac[:] = macs, macs
    return freeze(p)


def pseudonyms(addresses: list[str], key: bytes = KEY, remembered: int = 1024) -> list[str]:
    """Source and destination must agree."""
    p = Pseudonymiser(key, remembered).apply(packets(addresses))
    assert (p.src_hi.tolist(), p.src_lo.tolist()) == (p.dst_hi.tolist(), p.dst_lo.tolist())
    both = (IPv6Address(int(hi) << 64 | int(lo)) for hi, lo in zip(p.src_hi, p.src_lo))
    return [str(a.ipv4_mapped or a) for a in both]


def mac_pseudonyms(macs: list[int], key: bytes = KEY) -> list[int]:
    p = Pseudonymiser(key, 1024).apply(packets(["192.0.2.1"] * len(macs), macs))
    assert p.src_mac.tolist() == p.dst_mac.tolist()
    return [int(m) for m in p.src_mac]


def shared(a: str, b: str) -> int:
    """Bits that two IPv4 addresses share."""
    return 32 - (int(IPv4Address(a)) ^ int(IPv4Address(b))).bit_length()


def test_pseudonyms_are_those_of_crypto_pans_own_trace() -> None:
    words = TRACE.split()
    assert len(words) == 2 * 49
    assert pseudonyms(words[::2]) == words[1::2]


@pytest.mark.parametrize(("key", "pair"), OTHERS)
def test_pseudonyms_are_those_of_other_programs(key: bytes, pair: str) -> None:
    address, expected = pair.split()
    assert pseudonyms([address], key) == [expected]


def test_what_crypto_pan_makes_multicast_is_coded_again_with_its_prefixes() -> None:
    words = MULTICAST_TRACE.split()
    before, published = words[::2], words[1::2]
    after = pseudonyms(before)
    assert all(IPv4Address(a).is_multicast for a in published)
    assert not any(IPv4Address(a).is_multicast for a in after)
    assert len({shared(a, b) for a in before for b in before}) > 4
    assert [[shared(a, b) for b in before] for a in before] == [[shared(a, b) for b in after] for a in after]


@pytest.mark.parametrize("key", [KEY, bytes(range(32)), LIBANON])
def test_addresses_that_mean_something_are_kept(key: bytes) -> None:
    assert pseudonyms(KEPT, key) == KEPT


def test_addresses_beside_the_kept_ones_are_not() -> None:
    assert not set(pseudonyms(BESIDE_KEPT)) & set(BESIDE_KEPT)


def test_another_key_gives_other_pseudonyms() -> None:
    other = bytes([KEY[0] ^ 1]) + KEY[1:]
    padded = KEY[:-1] + bytes([KEY[-1] ^ 1])
    addresses = TRACE.split()[::2]
    assert not set(zip(addresses, pseudonyms(addresses))) & set(zip(addresses, pseudonyms(addresses, other)))
    assert pseudonyms(addresses) != pseudonyms(addresses, padded)
    assert mac_pseudonyms([0x0050_5684_1234], other) != mac_pseudonyms([0x0050_5684_1234])


def test_macs_keep_their_group_and_local_bit_and_nothing_else() -> None:
    macs = [first << 40 | rest for first in range(256) for rest in (1, 0x50_5684_1234, 0xFF_FFFF_FFFE)]
    after = mac_pseudonyms(macs)
    assert [m >> 40 & 3 for m in after] == [m >> 40 & 3 for m in macs]
    assert len(set(after)) == len(macs)
    ones = [sum(m >> bit & 1 for m in after) / len(after) for bit in range(48) if bit not in (40, 41)]
    assert min(ones) > 0.4  # five standard deviations of 768 coins
    assert max(ones) < 0.6


def test_zero_and_broadcast_macs_are_kept() -> None:
    macs = [0, 0xFFFF_FFFF_FFFF]
    assert mac_pseudonyms(macs) == macs


def test_a_mac_that_looks_like_an_address_is_coded_as_a_mac() -> None:
    p = Pseudonymiser(KEY).apply(packets(["::1"], [1]))
    assert (p.src_mac[0] ^ p.src_lo[0]) & 0xFFFF_FFFF != 0


def test_other_columns_are_left_alone() -> None:
    p = freeze(stream(1, 300))
    q = Pseudonymiser(KEY).apply(p)
    addresses = {"src_hi", "src_lo", "dst_hi", "dst_lo", "src_mac", "dst_mac"}
    for name in set(Packets._fields) - addresses:
        assert np.array_equal(getattr(p, name), getattr(q, name)), name
    for name in addresses - {"src_hi", "dst_hi"}:
        assert not np.array_equal(getattr(p, name), getattr(q, name)), name
    assert [column.dtype for column in q] == [column.dtype for column in p]


def checksums(key: bytes) -> list[int]:
    """Pseudonyms of all 65,536 checksums in turn."""
    p = empty_packets(1 << 16)
    p.checksum[:] = np.arange(1 << 16)
    return [int(x) for x in Pseudonymiser(key, 16).apply(freeze(p)).checksum]


@pytest.mark.parametrize("key", [KEY, bytes(32), LIBANON])
def test_checksums_are_replaced_one_to_one_and_none_stays_none(key: bytes) -> None:
    after = checksums(key)
    assert after[0] == 0
    assert sorted(after) == list(range(1 << 16))
    assert sum(a == b for a, b in enumerate(after)) < 12  # two are expected, and 12 or more once in 10^6 keys
    assert checksums(key) == after


@pytest.mark.parametrize("byte", [0, 15, 16, 31])
def test_each_part_of_the_key_decides_on_checksums(byte: int) -> None:
    other = bytearray(KEY)
    other[byte] ^= 1
    assert sum(a == b for a, b in zip(checksums(KEY), checksums(bytes(other)))) < 12


def test_packets_without_addresses_get_none() -> None:
    p = Pseudonymiser(KEY).apply(freeze(empty_packets(3)))
    assert not any(column.any() for column in p)
    assert Pseudonymiser(KEY).apply(empty_packets()).ts.size == 0


def test_packets_are_not_changed_and_their_pseudonyms_are_read_only() -> None:
    p, same = stream(2, 50), stream(2, 50)
    q = Pseudonymiser(KEY).apply(p)
    assert all(np.array_equal(getattr(p, name), getattr(same, name)) for name in Packets._fields)
    assert all(column.flags.writeable for column in p)
    assert not any(column.flags.writeable for column in q)
    assert not any(np.shares_memory(a, b) for a, b in zip(p[1:7], q[1:7]))


class Double:
    """Twice a value, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.broken = False

    def __call__(self, values: Values) -> Values:
        if self.broken:
            raise MemoryError
        self.asked += values.lo.tolist()
        return Values(values.hi * np.uint64(2), values.lo * np.uint64(2))


def ask(memory: Memory, numbers: list[int]) -> list[int]:
    lo = np.array(numbers, np.uint64)
    return [int(x) for x in memory.of(Values(np.zeros_like(lo), lo)).lo]


def test_a_value_is_asked_once() -> None:
    double = Double()
    memory = Memory(double, 100, np.uint64(1))
    assert ask(memory, [7, 8, 7, 0]) == [14, 16, 14, 0]
    assert ask(memory, [8, 9, 7]) == [16, 18, 14]
    assert double.asked == [7, 8, 9]


@pytest.mark.parametrize("remembered", [1, 2, 3, 511, 512, 513, 1000])
def test_no_more_is_remembered_than_allowed(remembered: int) -> None:
    memory = Memory(Double(), remembered, np.uint64(1))
    for begin in range(1, 3000, 999):
        numbers = list(range(begin, begin + 1400))
        assert ask(memory, numbers) == [2 * n for n in numbers]
        assert 0 < memory.known <= remembered


def test_a_full_memory_still_knows_what_it_holds() -> None:
    double = Double()
    memory = Memory(double, 3, np.uint64(1))
    for _ in range(3):
        ask(memory, [5, 6, 7, 5])
    assert double.asked == [5, 6, 7]
    ask(memory, [8])
    assert memory.known == 1


def test_a_function_that_fails_leaves_no_wrong_answers() -> None:
    double = Double()
    memory = Memory(double, 10, np.uint64(1))
    ask(memory, [1])
    double.broken = True
    with pytest.raises(MemoryError):
        ask(memory, [1, 2])
    double.broken = False
    assert ask(memory, [2, 1]) == [4, 2]


@pytest.mark.parametrize("remembered", [0, -1])
def test_something_must_be_remembered(remembered: int) -> None:
    with pytest.raises(ValueError, match=rf"remembered {remembered} must be >= 1"):
        Pseudonymiser(KEY, remembered)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(
        ValueError, match=rf"{size} bytes must be 32 bytes: 16 for AES-128 and 16 for the pad"
    ):
        Pseudonymiser(b"k" * size)


def test_the_key_is_not_shown() -> None:
    key = b"Sixteen letters and sixteen more"
    said = repr(Pseudonymiser(key)) + str(Pseudonymiser(key)) + repr(vars(Pseudonymiser(key)))
    assert all(secret not in said for secret in ("Sixteen", "sixteen", key.hex(), key[:16].hex()))


@pytest.mark.parametrize(
    "given",
    [
        KEY,
        KEY.hex(),
        KEY.hex().upper(),
        f"  {KEY.hex()}\r\n",
        KEY.hex().encode(),
        f"\n{KEY.hex()}\n".encode(),
    ],
)
def test_a_key_is_64_hex_digits_or_32_bytes(given: str | bytes) -> None:
    assert read_key(given) == KEY


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            "  \n",
            KEY.hex()[:-1],
            KEY.hex() + "0",
            "g" + KEY.hex()[1:],
            KEY.hex()[:32] + " " + KEY.hex()[32:],
        ),
        *("0x" + KEY.hex()[2:], "٣" * 64, "a" * 32),
        *(b"", KEY[:-1], KEY + b"\n", b"\xff" * 64, KEY + KEY),
    ],
)
def test_any_other_key_is_refused_without_being_shown(given: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"must be 64 hex digits or 32 raw bytes") as caught:
        read_key(given)
    error = caught.value
    assert error.__context__ is None
    said = str(error) + "".join(traceback.format_exception(type(error), error, None))
    digits = given.strip() if isinstance(given, str) else given.hex()
    assert not digits or digits[-16:] not in said
