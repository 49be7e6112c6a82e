"""DetGen's scenarios: the purpose of users, the programs, and the meaning of the numbers of activities.

Read in the capture scripts, composition files and captures/README.md of github.com/detlearsom/DetGen; scenarios that it
lists without holding them, in github.com/glo-fi/DetGen. Activities have the numbers of the SCENARIO argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Target(NamedTuple):
    """A service that an attack goes to. None: any."""

    proto: str | None
    port: int | None
    host: str | None = None


@dataclass(frozen=True)
class Scenario:
    """A folder below captures/. ``name``: in lower case and without ``capture-``."""

    name: str
    task: str | None
    server: str | None = None
    client: str | None = None
    attack_kind: str | None = "none"  # None: unknown
    activities: Mapping[int, str] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()  # of an attack; all its connections are to them
    administered: bool = False  # its composition has an administrator who uses them, and no attacker

    def activity(self, number: int | None) -> str | None:
        """The activity of a number; None without a number, unless there is only one activity."""
        if number is None:
            return next(iter(self.activities.values())) if len(self.activities) == 1 else None
        return self.activities.get(number, f"activity-{number}")


FTP = {
    0: "get", 1: "get", 2: "mget", 3: "delete", 4: "mdelete", 5: "mkdir-put", 6: "rename", 7: "put", 8: "put-get",
    9: "mput", 10: "make-remove", 11: "wrong-password-get", 12: "passive-put", 13: "passive-put",
}  # fmt: skip
SYNC = {1: "idle", 2: "put", 3: "put-edit", 4: "put-delete", 5: "put-edit-delete", 6: "large"}
SSH = {1: "scp-down", 2: "scp-up", 3: "commands", 4: "wrong-password", 5: "key-scan"}
MUSIC = {0: "one-song", 1: "shuffle", 2: "pause-resume", 3: "all-playlists", 4: "stats"}
SLOW = {0: "headers", 1: "headers", 2: "body", 3: "body", 4: "read", 5: "read"}  # even numbers: with TLS
FLOODS = {0: "rapid-reset", **dict.fromkeys(range(1, 6), "http-flood")}

HTTP, HTTPS, SSH_PORT = Target("tcp", 80), Target("tcp", 443), Target("tcp", 22)
ARES = (Target("tcp", 8080), Target("tcp", 3333))  # command and control; a pool of miners
# telnet, where bots log in, are scanned for and report; the host that they flood, at any port
MIRAI = (Target("tcp", 23), Target("tcp", 2323), Target("tcp", 48101), Target(None, None, "172.16.233.33"))

SCENARIOS: dict[int, Scenario] = {
    10: Scenario("010-ping", "ping"),
    11: Scenario("011-ping2", "ping"),
    20: Scenario("020-nginx", "web", "nginx", "siege"),
    21: Scenario("021-nginxwget", "web", "nginx", "wget"),
    22: Scenario("022-nginxssl", "web", "nginx", "wget"),
    30: Scenario("030-scrapy", "web", None, "scrapy"),
    40: Scenario("040-apache", "web", "apache", "siege"),
    41: Scenario("041-apachewget", "web", "apache", "wget"),
    42: Scenario("042-apachessl", "web", "apache", "wget"),
    50: Scenario("050-vsftpd", "ftp", "vsftpd", "ftp", activities=FTP),
    51: Scenario("051-tftp", "tftp"),
    60: Scenario("060-wordpress", "web", "wordpress", "wget"),
    70: Scenario("070-mailx", "mail", None, "mailx"),
    80: Scenario("080-syncthing", "file-sync", "syncthing", "syncthing", activities=SYNC),
    90: Scenario("090-openssh", "ssh", "openssh", "openssh", activities=SSH),
    100: Scenario("100-irc", "chat", "ircd", "netcat", activities={1: "message", 2: "message-file"}),
    110: Scenario("110-nginxbruteforce", "login", "nginx", None, "password-guessing", targets=(HTTP,)),
    111: Scenario("111-apachebruteforce", "login", "apache", None, "password-guessing", targets=(HTTP,)),
    120: Scenario("120-heartbleed", "web", "nginx", "metasploit", "heartbleed", targets=(HTTPS,)),
    130: Scenario("130-bittorrent", "file-sharing"),
    140: Scenario("140-securesql", "sql", "apache", "python", "sql-injection", targets=(HTTP,),
                  administered=True),
    150: Scenario("150-insecuresql", "sql", "apache", "python", "sql-injection",
                  {0: "list-login", 1: "list-register", 2: "tautology"}, targets=(HTTP,)),
    160: Scenario("160-backdoor", "c2", "ares", "ares", "c2", targets=ARES),
    170: Scenario("170-goldeneye", "web", "nginx", "goldeneye", "dos", targets=(HTTP,)),
    180: Scenario("180-mirai", "c2", "mirai", "mirai", "c2",
                  {0: "udp-flood", 1: "syn-flood", 2: "ack-flood"}, targets=MIRAI),
    190: Scenario("190-mpd", "music-stream", "mopidy", "mpc", activities=MUSIC),
    200: Scenario("200-nginx_patator", "web", "nginx", "patator", "scan", {0: "url-guessing"}, targets=(HTTP,)),
    210: Scenario("210-slowhttptest", "web", "apache", "slowhttptest", "slow-http", SLOW, targets=(HTTP, HTTPS)),
    220: Scenario("220-ssh_patator", "login", "openssh", "patator", "password-guessing", targets=(SSH_PORT,)),
    230: Scenario("230-wgetssl", "web", None, "wget"),
    240: Scenario("240-stream", "video-stream", "nginx-rtmp"),
    250: Scenario("250-ntp", "ntp", "ntpd", "ntpd"),
    260: Scenario("260-xxe", "web", "apache", "python", "xxe",
                  {0: "passwd", 1: "shadow", 2: "remote-execution"}, targets=(HTTP,)),
    270: Scenario("270-path_traversal_apache", "web", "apache", None, "path-traversal", targets=(HTTP, HTTPS)),
    360: Scenario("360-rapidreset", "web", "apache", None, "dos", FLOODS, targets=(HTTP, HTTPS)),
}  # fmt: skip
# right numbers of captures that are named by the number of another scenario
MISNUMBERED = {(130, "heartbleed"): 120, (110, "backdoor"): 160}
_NUMBER = re.compile(r"(?:capture-)?0*(\d+)-(.*)", re.IGNORECASE)


def scenario_of(directory: str, host: str) -> Scenario | None:
    """The scenario of a folder below captures/, else of a capture's NAME; None when neither is known.

    A capture named 150 is taken for 150-insecureSQL, although older 140-secureSQL has them too.
    """
    for text in (directory, host):
        if found := _NUMBER.fullmatch(text):
            number, rest = int(found[1]), found[2].lower()
            for (wrong, word), right in MISNUMBERED.items():
                if number == wrong and word in rest:
                    number = right
            if number in SCENARIOS:
                return SCENARIOS[number]
    return None
