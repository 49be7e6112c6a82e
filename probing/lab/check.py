"""What the lab needs from a machine, what is missing, and what the lab does to it."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from probing.lab import catalog, load, registry
from probing.lab.errors import LabError
from probing.lab.isolation import OVERLAID, PATH
from probing.lab.link import netem

DISTRIBUTIONS = {"debian": "apt-get install", "fedora": "dnf install", "arch": "pacman -S"}
# packages of a program on Debian and Ubuntu, Fedora, Arch; an empty name: not packaged there
PACKAGES: dict[str, tuple[str, str, str]] = {
    "ip": ("iproute2", "iproute", "iproute2"),
    "unshare": ("util-linux", "util-linux", "util-linux"),
    "nginx": ("nginx-light", "nginx", "nginx"),
    "apache2": ("apache2", "httpd", "apache"),
    "php": ("php-cli", "php-cli", "php"),
    "mariadbd": ("mariadb-server", "mariadb-server", "mariadb"),
    "vsftpd": ("vsftpd", "vsftpd", "vsftpd"),
    "sshd": ("openssh-server", "openssh-server", "openssh"),
    "ssh": ("openssh-client", "openssh-clients", "openssh"),
    "rsync": ("rsync", "rsync", "rsync"),
    "unison": ("unison", "unison", "unison"),
    "dnsmasq": ("dnsmasq", "dnsmasq", "dnsmasq"),
    "chronyd": ("chrony", "chrony", "chrony"),
    "curl": ("curl", "curl", "curl"),
    "wget": ("wget", "wget", "wget"),
    "lftp": ("lftp", "lftp", "lftp"),
    "swaks": ("swaks", "swaks", "swaks"),
    "dig": ("bind9-dnsutils", "bind-utils", "bind"),
    "ntpdig": ("ntpsec-ntpdig", "ntpsec", "ntpsec"),
    "nmap": ("nmap", "nmap", "nmap"),
    "hydra": ("hydra", "hydra", "hydra"),
    "sqlmap": ("sqlmap", "sqlmap", "sqlmap"),
    "sshpass": ("sshpass", "sshpass", "sshpass"),
    "openssl": ("openssl", "openssl", "openssl"),
    "mariadb-install-db": ("mariadb-server", "mariadb-server", "mariadb"),
    "libphp": ("libapache2-mod-php", "php", "php-apache"),
    "mysqli": ("php-mysql", "php-mysqlnd", "php"),
    "ssh-keygen": ("openssh-client", "openssh", "openssh"),
    "ssh-keyscan": ("openssh-client", "openssh-clients", "openssh"),
    "scp": ("openssh-client", "openssh-clients", "openssh"),
    "sftp": ("openssh-client", "openssh-clients", "openssh"),
    "setpriv": ("util-linux", "util-linux", "util-linux"),
    "python3": ("python3", "python3", "python"),
    "aiosmtpd": ("", "", ""),
}
# what is no program: modules of Apache and PHP, and packages of Python (those of the extra `probing`)
FILES = {"libphp": "/usr/lib*/apache2/modules/libphp*.so", "mysqli": "/usr/lib*/php/**/mysqli.so"}
MODULES = ("aiosmtpd",)


class Ability(NamedTuple):
    """Something that the machine must, or should, let the lab do."""

    name: str
    there: bool
    needed: bool  # False: the lab works without it, with limits
    says: str  # reason and remedy, "" when it is there


def programs(words: Iterable[str] = ()) -> dict[str, list[str]]:
    """The programs that corpora or scenarios (by default all) need, each with the scenarios that need it."""
    needed: dict[str, set[str]] = {"ip": set(), "unshare": set()}
    for client, server, name in _implementations(tuple(words)):
        for program in (*registry.client(client).programs, *registry.service(server).programs):
            needed.setdefault(program, set()).add(name)
    return {program: sorted(names) for program, names in sorted(needed.items())}


def _implementations(words: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """The (client, server, scenario) of all runs."""
    if not words:
        return {
            (c, s, n)
            for n, given in catalog.scenarios().items()
            for c in given.clients
            for s in given.servers
        }
    found = set()
    for word in words:
        for run in catalog.expand(catalog.find(word)):
            found.add((run.client, run.server, run.scenario))
            found |= {(other.client, other.server, other.scenario) for other in run.background}
    return found


def there(name: str) -> bool:
    """Whether a program, a module of one, or a Python package is installed."""
    if name in FILES:
        return bool(glob.glob(FILES[name], recursive=True))
    if name in MODULES:
        return find_spec(name) is not None
    return shutil.which(name, path=PATH) is not None


def missing(words: Iterable[str] = ()) -> dict[str, list[str]]:
    """The needed programs that are not installed, each with the scenarios that need it."""
    return {name: users for name, users in programs(words).items() if not there(name)}


def install_line(names: Iterable[str], distribution: str) -> str:
    """The command that installs packages of a distribution, "" when none is needed."""
    column = list(DISTRIBUTIONS).index(distribution)
    packages = sorted(
        {PACKAGES[name][column] for name in names if name in PACKAGES and PACKAGES[name][column]}
    )
    return f"{DISTRIBUTIONS[distribution]} {' '.join(packages)}" if packages else ""


def pip_line(names: Iterable[str]) -> str:
    """The command that installs Python packages where this program runs, "" when none is needed."""
    needed = any(name in MODULES for name in names)
    return f"{shlex.quote(sys.executable)} -m pip install 'wiresonde[probing]'" if needed else ""


def distribution() -> str:
    """The family of this machine's distribution, one of DISTRIBUTIONS."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "debian"
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    words = f"{known.get('ID', '')} {known.get('ID_LIKE', '')}".replace('"', "").split()
    return next((name for name in DISTRIBUTIONS if name in words), "fedora" if "rhel" in words else "debian")


def abilities() -> list[Ability]:
    """The abilities of this machine."""
    root, namespaces, real_time = os.geteuid() == 0, _namespaces(), _real_time()
    found = (
        ("root", root, True, "run as root: namespaces, TAP devices and mounts need it"),
        ("namespaces", not namespaces, True, namespaces),
        ("tun", os.access("/dev/net/tun", os.R_OK | os.W_OK), True,
         "/dev/net/tun cannot be opened (modprobe tun; in a container: --device /dev/net/tun)"),
        ("overlay", "\toverlay\n" in Path("/proc/filesystems").read_text(), True,
         "no overlay file system (modprobe overlay)"),
        ("real time", not real_time, False, f"{real_time}: choose lab run --link user or --link netem"),
        ("cpu quota", load.cgroup_root() is not None, False,
         "no cpu control group: load.hogs works, load.quota_pct does not"),
        ("netem", root and not namespaces and netem.available(), False,
         "the kernel has no sch_netem: lab run --link netem does not work"),
    )  # fmt: skip
    return [Ability(name, there, needed, "" if there else says) for name, there, needed, says in found]


def _namespaces() -> str:
    """The reason why private machines cannot be made, "" when they can."""
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "true"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def _real_time() -> str:
    """The reason why a thread cannot have real-time priority, "" when it can."""
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            os._exit(0)
        except OSError:
            os._exit(1)
    refused = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "no real-time priority for the lab's link (CAP_SYS_NICE gives it)" if refused else ""


def may() -> list[str]:
    """What a run does to the machine, in sentences."""
    return [
        "each run has its own process, mount, network, name and IPC namespaces; the kernel removes them when it ends",
        "interfaces are TAP devices inside those namespaces; no interface leads outside",
        f"{', '.join(p for p in OVERLAID if Path(p).is_dir())} and /run are private copies in a run",
        f"control groups {load.PREFIX}* limit the processor where a load is asked for",
        "one thread of each run, the link, has real-time priority",
        "files are written only below --out",
    ]


def report(words: Iterable[str] = ()) -> dict[str, Any]:
    """The abilities, the programs, what is missing, and how to install it."""
    lacking = missing(words)
    install = {f"on {name}": install_line(lacking, name) for name in DISTRIBUTIONS}
    install["with pip"] = pip_line(lacking)
    return {
        "abilities": [ability._asdict() for ability in abilities()],
        "programs": {name: name not in lacking for name in programs(words)},
        "missing": lacking,
        "install": {name: line for name, line in install.items() if line},
        "may": may(),
    }


def require(words: Iterable[str]) -> str:
    """The reason why these corpora and scenarios cannot run here, "" when they can."""
    lacking = [a for a in abilities() if a.needed and not a.there]
    if lacking:
        return f"{lacking[0].name}: {lacking[0].says}"
    if unmet := missing(words):
        lines = filter(None, (install_line(unmet, distribution()), pip_line(unmet)))
        return f"not installed: {', '.join(unmet)} ({' && '.join(lines)})"
    return ""


def link(wanted: str) -> str:
    """The link to use, ``user`` or ``netem``; auto is ``user``. Raises LabError where the wanted one cannot run."""
    if wanted == "netem" and not netem.available():
        raise LabError("--link netem: the kernel has no sch_netem (try modprobe sch_netem)")
    if wanted == "auto" and (refused := _real_time()):
        raise LabError(
            f"--link auto: {refused}; allow it, or choose --link user (the same link, whose delays then vary more) or "
            f"--link netem (the kernel's queues, whose drops do not follow the seed)"
        )
    return "netem" if wanted == "netem" else "user"
