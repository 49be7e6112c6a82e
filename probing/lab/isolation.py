"""A private machine for one run: its own namespaces for processes, mounts, networks, names and IPC.

The kernel removes all of it when its first process ends, for whatever reason: no process, interface, mount or user of
a run outlives it, and nothing written to /etc, /var, /home, /root, /run or /srv reaches the real machine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from probing.lab.hosts import call

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
_REC, _PRIVATE, _BIND = 16384, 1 << 18, 4096
_PDEATHSIG = 1

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # search path for the programs of runs
ROOM = Path("/run/lab")  # folder of the run, in memory: it ends with the run
OUT = ROOM / "out"  # folder of results, which is outside the private machine
OVERLAID = ("/etc", "/var", "/home", "/root", "/srv", "/opt")
USER, PASSWORD, UID = "ada", "correct-horse-7", 61001  # user of the lab, who exists in runs only
GUEST = "bob"  # a second user, with the same password
USERS = {USER: UID, GUEST: UID + 1}


class Ended(NamedTuple):
    """The end of a private machine."""

    code: int  # exit status; for a signal, minus its number
    timed_out: bool


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    call("prctl", _PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def alone(work: Callable[[], None], out: Path, limit_s: float, error: str = "error.txt") -> Ended:
    """Do ``work`` as the first process of a private machine, in which ``out`` is OUT; wait for its end.

    An exception is written to the file ``error`` there. The machine is killed after ``limit_s`` seconds. This forks, so
    call it while no other thread runs.
    """
    here = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_with_parent(here)
            call("unshare", NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET)
            first = os.fork()
            if first == 0:
                code = _first(work, out, error)
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        except BaseException:
            (out / error).write_text(traceback.format_exc())
        finally:
            os._exit(code if code >= 0 else 128 - code)
    end, timed_out = time.monotonic() + limit_s, False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return Ended(os.waitstatus_to_exitcode(status), timed_out)
        if time.monotonic() > end and not timed_out:
            timed_out = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _first(work: Callable[[], None], out: Path, error: str) -> int:
    try:
        # the parent's id is not visible here; it cannot have died unnoticed, since it waits for this process
        call("prctl", _PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the lab itself stops runs
        _furnish(out)
        work()
        sys.stdout.flush()
        return 0
    except BaseException:
        problem = traceback.format_exc()
        place = OUT if OUT.exists() else out
        (place / error).write_text(problem)
        return 1


def _furnish(out: Path) -> None:
    """Mount a private /proc and /run, and writable copies of the folders that servers write to."""
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    ours = {place: os.open(place, os.O_RDONLY | os.O_DIRECTORY) for place in _code()}
    call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
    call("mount", b"proc", b"/proc", b"proc", 0, None)
    call("mount", b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755,size=8g")
    OUT.mkdir(parents=True)
    call("mount", f"/proc/self/fd/{folder}".encode(), str(OUT).encode(), None, _BIND, None)
    os.close(folder)
    for place in OVERLAID:
        if Path(place).is_dir():
            upper, work = (ROOM / f"overlay{place}-{part}" for part in ("upper", "work"))
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            options = f"lowerdir={place},upperdir={upper},workdir={work}"
            call("mount", b"overlay", place.encode(), b"overlay", 0, options.encode())
    # an overlay hides what is mounted below the folder that it covers
    for code, handle in ours.items():
        call("mount", f"/proc/self/fd/{handle}".encode(), str(code).encode(), None, _BIND, None)
        os.close(handle)
    for path in (ROOM / "tmp", Path("/run/sshd"), Path("/run/lock")):
        path.mkdir(exist_ok=True)
    (ROOM / "tmp").chmod(0o1777)
    os.environ["TMPDIR"] = str(ROOM / "tmp")
    os.environ["HOME"] = "/root"
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = PATH
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    os.chdir(ROOM)
    _users()


def _code() -> list[Path]:
    """The folders of this program and of Python that lie below a copied folder."""
    places = {
        Path(__file__).resolve().parents[2],
        Path(sys.prefix).resolve(),
        Path(sys.base_prefix).resolve(),
    }
    return sorted(place for place in places if f"/{place.parts[1]}" in OVERLAID)


def _users() -> None:
    """Replace the accounts: the machine's, without passwords, and the users of the lab."""
    etc = Path("/etc")
    hashed = HASH
    kept = [line for line in (etc / "passwd").read_text().splitlines() if line.split(":")[0] not in USERS]
    shadow = [f"{line.split(':')[0]}:*:19000::::::" for line in kept if line]
    groups = (etc / "group").read_text().rstrip("\n").splitlines()
    for name, uid in USERS.items():
        kept.append(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh")
        shadow.append(f"{name}:{hashed}:19000::::::")
        groups.append(f"{name}:x:{uid}:")
        home = Path("/home") / name
        home.mkdir(parents=True, exist_ok=True)
        os.chown(home, uid, uid)
        home.chmod(0o755)
    (etc / "passwd").write_text("\n".join(kept) + "\n")
    (etc / "group").write_text("\n".join(groups) + "\n")
    (etc / "shadow").unlink(missing_ok=True)
    (etc / "shadow").touch(0o600)
    (etc / "shadow").write_text("\n".join(shadow) + "\n")
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("")
    call("sethostname", b"lab", 3)


# hash of PASSWORD, by `openssl passwd -6 -salt wiresonde`: hashing it again would cost every run 5 ms
HASH = "$6$wiresonde$shVlA82IUWRBmiHymsxLxI2OKXJY5OM0cQqBwLI.XDVRNk90nSdUkdsczxbWV7x57hFrrRgMaQBbSWjVcqiuh/"
