"""The clients of the demo network: what a host does, with which program, and a log of when it did it.

Runs inside a client's namespace, started by record.py. Every activity appends one JSON line to the log;
labels.py joins these lines with the connections of the capture. A host does one thing at a time, so a
connection belongs to the activity during which its host opened it. All choices come from the seed; the
order of activities repeats, the bytes and the timing of a second recording do not.
"""

import argparse
import http.client
import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

logger = logging.getLogger("demo.clients")

DOMAIN = "demo.example"
WWW, SHELL, USER = f"www.{DOMAIN}", f"shell.{DOMAIN}", "ada"
WEB_ADDRESSES = ("10.77.0.10", "fd77::10")
DNS_ADDRESSES = ("10.77.0.53", "fd77::53")
SHELL_ADDRESSES = ("10.77.0.22", "fd77::22")
PAGES, DATA_FILES, API_FILES, APPS = 40, 12, 8, 30
PASSWORD = "correct-horse-7"  # of the user of the demo network, who exists only inside its namespace
COMMAND_S = 30  # no command runs longer
GUESSING_RUNS, GUESSES = 9, 3


@dataclass(frozen=True)
class Place:
    """Where a client works: its dice, the folder with key and word list, and IPv4 or IPv6."""

    rng: Random
    folder: Path
    six: bool = False

    @property
    def family(self) -> str:
        """The option that most programs have for it."""
        return "-6" if self.six else "-4"

    def page(self) -> str:
        """The URL of one page of the web server."""
        return f"http://{WWW}/page/{self.rng.randrange(PAGES)}.html"

    def data(self) -> str:
        """The URL of one large file."""
        return f"http://{WWW}/data/{self.rng.randrange(DATA_FILES)}.bin"


@dataclass(frozen=True)
class Times:
    """When the work starts, the attack is due and the work ends, in epoch seconds."""

    start: float
    attack: float
    end: float


@dataclass(frozen=True)
class Activity:
    """One thing a host can do. name, client: labels. ok: exit codes of success."""

    name: str
    client: str
    run: Callable[[Place], int]
    ok: tuple[int, ...] = (0,)


def command(*argv: str, folder: Path | None = None) -> int:
    """Exit code of a program, output thrown away; 124 when it took longer than COMMAND_S."""
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            timeout=COMMAND_S,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 124
    return done.returncode


def curl(place: Place, *argv: str) -> int:
    """One run of curl."""
    return command("curl", "-q", "-s", place.family, "-o", "/dev/null", *argv)


def wget(place: Place, *argv: str) -> int:
    """One run of wget."""
    return command("wget", "--no-config", "-q", place.family, "-t", "1", "-O", "/dev/null", *argv)


def curl_multi_get(place: Place) -> int:
    """Several pages over one kept connection."""
    urls = [place.page() for _ in range(place.rng.randint(2, 5))]
    return curl(place, urls[0], *(part for url in urls[1:] for part in ("-o", "/dev/null", url)))


def curl_post(place: Place) -> int:
    """A form of 50 to 5,000 bytes."""
    body = "text=" + "x" * place.rng.randint(50, 5000)
    return curl(place, "--data", body, f"http://{WWW}/form")


def python_post(place: Place) -> int:
    """A JSON document of some fields."""
    body = json.dumps({f"field{i}": place.rng.random() for i in range(place.rng.randint(2, 60))})
    connection = http.client.HTTPConnection(WEB_ADDRESSES[place.six], 80, timeout=10)
    connection.request("POST", "/form", body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return int(status != 200)


def python_poll(place: Place) -> int:
    """An interface asked a few times over one kept connection, with pauses."""
    connection = http.client.HTTPConnection(WEB_ADDRESSES[place.six], 80, timeout=10)
    statuses = []
    for _ in range(place.rng.randint(3, 6)):
        connection.request("GET", f"/api/{place.rng.randrange(API_FILES)}.json")
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        time.sleep(place.rng.uniform(0.1, 0.5))
    connection.close()
    return int(set(statuses) != {200})


def dig(place: Place) -> int:
    """One to three questions, some for names that do not exist, some over TCP."""
    rng = place.rng
    questions = (
        (f"app{rng.randrange(APPS)}.{DOMAIN}", "A"),
        (f"app{rng.randrange(APPS)}.{DOMAIN}", "AAAA"),
        (WWW, "A"),
        (DOMAIN, "MX"),
        (DOMAIN, "TXT"),
        (f"missing{rng.randrange(1000)}.{DOMAIN}", "A"),
    )
    server = f"@{DNS_ADDRESSES[place.six]}"
    transport = "+tcp" if rng.random() < 0.1 else "+notcp"
    asked = [part for _ in range(rng.randint(1, 3)) for part in rng.choice(questions)]
    return command("dig", "-r", server, "+tries=1", "+time=2", transport, *asked)


def ping(place: Place) -> int:
    """Three echo requests to the web server."""
    return command("ping", "-n", "-c", "3", "-i", "0.2", WEB_ADDRESSES[place.six])


def ssh_options(place: Place) -> list[str]:
    """Options that ssh and scp share: our key, nobody's configuration, no memory of hosts.

    ssh itself prefers IPv6 where a name has both, so half of the runs due with IPv4 are IPv6 too.
    """
    family = "-6" if place.six or place.rng.random() < 0.5 else "-4"
    settings = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "ConnectTimeout=10",
    )
    options = [part for setting in settings for part in ("-o", setting)]
    return ["-F", "/dev/null", "-i", str(place.folder / "key"), family, *options]


def login_command(place: Place) -> int:
    """One command on the server."""
    line = place.rng.choice(
        ("uptime", "ls -l", "df", "cat notes.txt", "uname -a", "head -c 20000 archive.bin")
    )
    return command("ssh", "-T", *ssh_options(place), f"{USER}@{SHELL}", line)


def login_password(place: Place) -> int:
    """One command, logged in by password."""
    by_password = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
    ssh = ("ssh", "-T", *ssh_options(place), *by_password, f"{USER}@{SHELL}", "id")
    return command("sshpass", "-p", PASSWORD, *ssh)


def login_interactive(place: Place) -> int:
    """A terminal in which someone types three or four commands, key by key."""
    rng = place.rng
    lines = [
        rng.choice(("ls -l", "date", "cat notes.txt", "pwd", "ps", "id")) for _ in range(rng.randint(2, 3))
    ]
    ssh = ["ssh", "-tt", *ssh_options(place), f"{USER}@{SHELL}"]
    with subprocess.Popen(
        ssh, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as shell:
        try:
            assert shell.stdin is not None
            time.sleep(0.5)
            for key in "".join(f"{line}\n" for line in (*lines, "exit")):
                shell.stdin.write(key.encode())
                shell.stdin.flush()
                time.sleep(rng.uniform(0.05, 0.15))
            return shell.wait(COMMAND_S)
        except (OSError, subprocess.TimeoutExpired):
            return 124
        finally:
            shell.kill()


def scp_download(place: Place) -> int:
    """A file of 60 kB from the server."""
    return command("scp", "-q", "-l", "4000", *ssh_options(place), f"{USER}@{SHELL}:archive.bin", "/dev/null")


def scp_upload(place: Place) -> int:
    """A file of some kB to the server."""
    name = f"{USER}@{SHELL}:upload{place.rng.randrange(4)}.bin"
    return command("scp", "-q", "-l", "4000", *ssh_options(place), str(place.folder / "upload.bin"), name)


def port_scan(place: Place) -> int:
    """SYN scan of the ssh server as nmap does it by default: the 1,000 commonest ports, unthrottled."""
    return command("nmap", "-sS", "-n", "-Pn", SHELL_ADDRESSES[0], folder=place.folder)


def password_guessing(place: Place) -> int:
    """Guesses of one user's password, none of them right, a few at a time.

    hydra 9.4 waits half a minute once the server has hung up on it, so each run stays below MaxAuthTries.
    """
    words, codes = place.folder / "words.txt", []
    for i in range(GUESSING_RUNS):
        words.write_text(
            "".join(f"{place.rng.choice(('summer', 'demo', USER))}{i}{j}\n" for j in range(GUESSES))
        )
        scope = ("-I", "-t", "1", "-l", USER, "-P", str(words))
        codes.append(command("hydra", *scope, f"ssh://{SHELL_ADDRESSES[0]}", folder=place.folder))
        time.sleep(place.rng.uniform(0.2, 0.8))
    return max(codes)


GET = Activity("get", "curl", lambda place: curl(place, place.page()))
WGET = Activity("get", "wget", lambda place: wget(place, place.page()))
HEAD = Activity("head", "curl", lambda place: curl(place, "-I", place.page()))
MISSING = Activity("not-found", "wget", lambda place: wget(place, f"http://{WWW}/old/page"), ok=(8,))
MULTI_GET = Activity("multi-get", "curl", curl_multi_get)
DOWNLOAD = Activity("download", "curl", lambda place: curl(place, place.data()))
WGET_DOWNLOAD = Activity("download", "wget", lambda place: wget(place, place.data()))
POST = Activity("post", "curl", curl_post)
PYTHON_POST = Activity("post", "python", python_post)
POLL = Activity("poll", "python", python_poll)
LOOKUP = Activity("lookup", "dig", dig)
PING = Activity("echo", "ping", ping)
LOGIN_COMMAND = Activity("login-command", "openssh", login_command)
LOGIN_COMMAND_SIX = Activity(
    "login-command", "openssh", lambda place: login_command(replace(place, six=True))
)
LOGIN_PASSWORD = Activity("login-password", "openssh", login_password)
LOGIN_INTERACTIVE = Activity("login-interactive", "openssh", login_interactive)
SCP_DOWNLOAD = Activity("scp-down", "openssh", scp_download)
SCP_UPLOAD = Activity("scp-up", "openssh", scp_upload)
PORT_SCAN = Activity("port-scan", "nmap", port_scan)
PASSWORD_GUESSING = Activity("password-guessing", "hydra", password_guessing)
ATTACKS = (PORT_SCAN, PASSWORD_GUESSING)

BROWSING = (GET, GET, MULTI_GET, MULTI_GET, HEAD, POST, DOWNLOAD, PING)
FETCHING = (WGET, WGET, MISSING, WGET_DOWNLOAD, LOOKUP, LOOKUP, PING)
PROGRAM = (POLL, POLL, PYTHON_POST, PYTHON_POST, GET, PING)
ADMINISTRATION = (LOGIN_COMMAND, LOGIN_INTERACTIVE, SCP_DOWNLOAD, SCP_UPLOAD, LOGIN_PASSWORD)
NAMES = (LOOKUP, LOOKUP, LOOKUP, PING, MULTI_GET)
WATCHING = (PING, LOOKUP, LOOKUP, GET, HEAD, POLL, MULTI_GET)
MIXED = (GET, MULTI_GET, POST, DOWNLOAD, LOOKUP, LOOKUP, PING, LOGIN_COMMAND_SIX)
WORK = {  # host: what it draws from, median pause in seconds
    "pc1": (BROWSING, 0.5),
    "pc2": (FETCHING, 0.5),
    "pc3": (PROGRAM, 0.5),
    "pc4": (ADMINISTRATION, 1.0),
    "pc5": (NAMES, 0.5),
    "pc6": (WATCHING, 0.5),
    "pc7": (MIXED, 0.5),
    "pc8": (MIXED, 0.5),
}
ATTACKER = "pc8"


def rounds(rng: Random, activities: tuple[Activity, ...]) -> Iterator[tuple[Activity, bool]]:
    """Activities for ever, each as often as named, with IPv4 and with IPv6, every round in another order."""
    both = [(activity, six) for activity in activities for six in (False, True)]
    while True:
        yield from rng.sample(both, len(both))


def work(host: str, place: Place, times: Times) -> None:
    """Do this host's activities until the end; the attacker ends with the attacks, when they are due."""
    activities, pause = WORK[host]
    planned = rounds(place.rng, activities)
    attacks = list(ATTACKS) if host == ATTACKER else []
    time.sleep(max(0.0, times.start - time.time()) + place.rng.uniform(0, 1))
    with (place.folder / f"{host}.log").open("w") as lines:
        while attacks or (time.time() < times.end and host != ATTACKER):
            if attacks and time.time() >= times.attack:
                activity, six = attacks.pop(0), False
            else:
                activity, six = next(planned)
            began = time.time_ns()
            try:
                code = activity.run(replace(place, six=six))
            except OSError as error:
                logger.warning("%s %s: %s", host, activity.name, error)
                code = 1
            entry = {
                "host": host,
                "start": began,
                "end": time.time_ns(),
                "activity": activity.name,
                "client": activity.client,
                "attack": int(activity in ATTACKS),
                "ok": code in activity.ok,
            }
            lines.write(json.dumps(entry) + "\n")
            lines.flush()
            time.sleep(min(2.0, place.rng.lognormvariate(0, 0.3) * pause))


def main() -> None:
    """Work as one host until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", choices=WORK)
    parser.add_argument("folder", type=Path, help="holds key and files; the log goes there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=float, required=True, help="epoch seconds")
    parser.add_argument("--attack", type=float, required=True, help="epoch seconds")
    parser.add_argument("--end", type=float, required=True, help="epoch seconds")
    given = parser.parse_args()
    place = Place(Random(f"{given.seed}/{given.host}"), given.folder)
    work(given.host, place, Times(given.start, given.attack, given.end))


if __name__ == "__main__":
    main()
