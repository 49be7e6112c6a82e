"""The attacks of CIC-IDS2017 as label rows: who attacked whom, and when.

There are two accounts of the times, which differ by up to an hour:

*published*: the Canadian Institute for Cybersecurity's page (https://www.unb.ca/cic/datasets/ids-2017.html; read in
copies of it). Whole minutes of local time, which in July 2017 was Atlantic Daylight Time, three hours
behind UTC; that follows from Thursday's SQL injection, of which an excerpt has the epoch times of 10:40–10:42 there.
The last minute of a window counts in full: some begin and end in the same one.

*corrected*: what Liu, Engelen, Lynar, Essam and Joosen found in the captures (Error Prevalence in NIDS Datasets, IEEE
CNS 2022; github.com/GintsEngelen/CNS2022_Code, Labelling/CICIDS2017_labelling_fixed_CICFlowMeter.ipynb), in ns of UTC.
Their labels also depend on packets and bytes of a flow, which windows cannot say. A window has the times at which flows
began; its row lasts longer, by the time that CICFlowMeter gives a flow: the last packets of the last one are in it.

Server ports, except Heartbleed's, are not on the page: they are those of the services by general knowledge, and those
of the corrected account where it has any. So are ``task``, ``attack_kind`` and programs, which the page only hints at.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple

Windows = Literal["published", "corrected"]

ADT = timezone(timedelta(hours=-3), "ADT")
KALI = "205.174.165.73"  # address of the attackers' machine
NAT = "172.16.0.1"  # inner address of the firewall, which hides the addresses of clients outside
NAT_MISPRINT = "172.16.0.11"  # address on the page for Heartbleed, in one of two lines
WEB, UBUNTU12, VISTA, MAC = "192.168.10.50", "192.168.10.51", "192.168.10.8", "192.168.10.25"
BOTS = ("192.168.10.15", "192.168.10.9", "192.168.10.14", "192.168.10.5", VISTA)
# "all other clients", as the corrected account has them: without the domain controller, with which Vista talks anyway
OTHERS = (
    "192.168.10.5", "192.168.10.9", "192.168.10.12", "192.168.10.14", "192.168.10.15", "192.168.10.16",
    "192.168.10.17", "192.168.10.19", MAC, WEB, UBUNTU12,
)  # fmt: skip
OUTSIDE = (NAT, KALI)
FLOW = 120_000_000_000  # ns after which CICFlowMeter ends a flow
TUESDAY, WEDNESDAY, THURSDAY, FRIDAY = 4, 5, 6, 7  # of July 2017
DAYS = {3: "monday", TUESDAY: "tuesday", WEDNESDAY: "wednesday", THURSDAY: "thursday", FRIDAY: "friday"}
WORKING_HOURS = (
    "08:00-18:00"  # window of benign traffic: captures begin shortly before 9:00 and end shortly after 17:00
)


class Attack(NamedTuple):
    """One attack. Originators open the connections; windows are in the local time of its day."""

    day: int
    activity: str
    kind: str
    task: str
    client: str | None  # program of the attacker
    originators: tuple[str, ...]
    responders: tuple[str, ...]
    port: int | None
    published: str  # HH:MM-HH:MM …; empty: not on the page
    corrected: tuple[tuple[int, int], ...] = ()


def _web(day: int, activity: str, kind: str, client: str | None, published: str, *corrected: tuple[int, int]
         ) -> Attack:  # fmt: skip
    """An attack from outside on the web server's port 80."""
    return Attack(day, activity, kind, "web", client, OUTSIDE, (WEB,), 80, published, corrected)


ATTACKS: tuple[Attack, ...] = (
    Attack(TUESDAY, "ftp-patator", "password-guessing", "login", "patator", OUTSIDE, (WEB,), 21, "09:20-10:20",
           ((1499170672838272000, 1499174416931403000),)),
    Attack(TUESDAY, "ssh-patator", "password-guessing", "login", "patator", OUTSIDE, (WEB,), 22, "14:00-15:00",
           ((1499188141049616000, 1499195059018486000),)),
    _web(WEDNESDAY, "slowloris", "slow-http", "slowloris", "09:47-10:10",
         (1499258926211817000, 1499258927000000000), (1499258934539220000, 1499260278500956000)),
    _web(WEDNESDAY, "slowhttptest", "slow-http", "slowhttptest", "10:14-10:35",
         (1499260537936810000, 1499261869331517000)),
    _web(WEDNESDAY, "hulk", "dos", "hulk", "10:43-11:00", (1499262203194704000, 1499263641326171000)),
    _web(WEDNESDAY, "goldeneye", "dos", "goldeneye", "11:10-11:23", (1499263803231753000, 1499264408915718000)),
    Attack(WEDNESDAY, "heartbleed", "heartbleed", "web", None, (*OUTSIDE, NAT_MISPRINT), (UBUNTU12,), 444,
           "15:12-15:32", ((1499278335650811000, 1499279563294455000),)),
    _web(THURSDAY, "web-brute-force", "password-guessing", None, "09:20-10:00",
         (1499343354880049000, 1499343531179279000), (1499343567660566000, 1499346011622209000))._replace(task="login"),
    _web(THURSDAY, "web-xss", "xss", None, "10:15-10:35", (1499346935283859000, 1499348121341704000)),
    _web(THURSDAY, "web-sql-injection", "sql-injection", None, "10:40-10:42",
         (1499348127852814000, 1499348575320284000))._replace(task="sql"),
    # victims of infiltration and bots open connections to Kali by themselves, past the NAT
    Attack(THURSDAY, "infiltration-dropbox", "infiltration", "infiltration", "metasploit", (VISTA,), OUTSIDE[::-1],
           None, "14:19-14:19 14:20-14:21 14:33-14:35 15:04-15:45", ((1499361542547210000, 1499366769364731000),)),
    Attack(THURSDAY, "infiltration-cool-disk", "infiltration", "infiltration", "metasploit", (MAC,), OUTSIDE[::-1],
           None, "14:53-15:00", ((1499363616453990000, 1499371339347892000),)),
    Attack(THURSDAY, "infiltration-scan", "scan", "scan", "nmap", (VISTA,), OTHERS, None, "15:04-15:45",
           ((1499362410884008000, 1499362444285175000), (1499364314425162000, 1499366764331875000))),
    Attack(THURSDAY, "infiltration-scan", "scan", "scan", "nmap", (NAT,), (UBUNTU12,), None, "",
           ((1499360431706755000, 1499360445728887000),)),
    Attack(FRIDAY, "botnet-ares", "c2", "c2", "ares", BOTS, OUTSIDE[::-1], None, "10:02-11:02",
           ((1499432653990571000, 1499436122903736000),)),
    Attack(FRIDAY, "botnet-ares-attempts", "c2", "c2", "ares", BOTS, OUTSIDE[::-1], None, "",  # unanswered
           ((1499436180000000000, 1499457684606663000),)),
    Attack(FRIDAY, "port-scan", "scan", "scan", "nmap", OUTSIDE, (WEB,), None,
           "13:55-13:57 13:58-14:00 14:01-14:04 14:05-14:07 14:08-14:10 14:11-14:13 14:14-14:16 14:17-14:19 "
           "14:20-14:21 14:22-14:24 14:33-14:33 14:35-14:35 "  # with firewall rules
           "14:51-14:53 14:54-14:56 14:57-14:59 15:00-15:02 15:03-15:05 15:06-15:07 15:08-15:10 15:11-15:12 "
           "15:13-15:15 15:16-15:18 15:19-15:21 15:22-15:24 15:25-15:25 15:26-15:27 15:28-15:29",  # and without
           ((1499446532117090000, 1499447948582083000), (1499449905450532000, 1499451841699238000))),
    Attack(FRIDAY, "ddos-loit", "ddos", "web", "loit",
           (NAT, "205.174.165.69", "205.174.165.70", "205.174.165.71"), (WEB,), None, "15:56-16:16",
           ((1499453791796937000, 1499454972216560000),)),
)  # fmt: skip


def label_rows(windows: Windows = "published", benign: bool = False) -> list[dict[str, Any]]:
    """The rows for `--labels`, in order of their start.

    benign: adds a row for each day that labels everything else as no attack.
    """
    rows = [row for attack in ATTACKS for row in _rows(attack, windows)]
    if benign:
        rows.extend(_rest(day) for day in DAYS)
    rows.sort(key=lambda row: row["start"])
    following: dict[tuple[Any, Any], int] = {}  # start of the next attack of a pair
    for row in reversed(rows):
        pair = row.get("src"), row.get("dst")
        row["end"] = min(row["end"], following.get(pair, row["end"] + 1) - 1)
        following[pair] = row["start"]
    return rows


def _rows(attack: Attack, windows: Windows) -> Iterator[dict[str, Any]]:
    """The rows of an attack: every pair of addresses in every window."""
    times = local_windows(attack.day, attack.published)
    if windows == "corrected":
        times = tuple((first, last + FLOW) for first, last in attack.corrected)
    for start, end in times:
        for src in attack.originators:
            for dst in attack.responders:
                yield {
                    "src": src, "dst": dst, "dport": attack.port, "proto": "tcp" if attack.port else None,
                    "start": start, "end": end,
                    "scenario": "cicids2017", "task": attack.task, "activity": attack.activity,
                    "client_impl": attack.client, "attack": 1, "attack_kind": attack.kind, "group": DAYS[attack.day],
                }  # fmt: skip


def _rest(day: int) -> dict[str, Any]:
    """The row for all other traffic of a day; rows of attacks begin later and so take precedence."""
    ((start, end),) = local_windows(day, WORKING_HOURS)
    return {"start": start, "end": end, "scenario": "cicids2017", "attack": 0, "attack_kind": "none",
            "group": DAYS[day]}  # fmt: skip


def local_windows(day: int, windows: str) -> tuple[tuple[int, int], ...]:
    """Windows (HH:MM-HH:MM …) of a day of July 2017 as first and last ns since the epoch, the last minute included."""
    return tuple(
        (_ns(day, a), _ns(day, b) + 60_000_000_000 - 1) for a, b in (w.split("-") for w in windows.split())
    )


def _ns(day: int, time: str) -> int:
    hour, minute = map(int, time.split(":"))
    return int(datetime(2017, 7, day, hour, minute, tzinfo=ADT).timestamp()) * 1_000_000_000
