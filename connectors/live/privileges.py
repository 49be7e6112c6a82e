"""Gives up the privileges of the process, once a tap has its socket.

Only ``socket(AF_PACKET)`` needs a capability. Binding it, making its ring, filtering and promiscuous mode need none,
now or later. So open the socket first, without a protocol, and ``drop`` before anything from outside is read.

Linux keeps capabilities and no_new_privs for each thread, and no call changes them in another thread. So ``drop``
while there is one thread. Libraries start threads when they are imported (OpenBLAS below numpy and scipy, jemalloc
below pyarrow): import them afterwards, or call ``stay_single`` before. At its end ``drop`` reads all threads from
/proc, and raises if one kept a privilege.

System calls are left to systemd's SystemCallFilter: a filter made here would have to know every call of every library,
and systemd's groups follow the kernel.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

# linux/prctl.h, linux/capability.h
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 23, 24, 38
VERSION_3 = 0x20080522  # version of capget and capset: two words of 32 bits for each set
SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")  # sets in /proc/self/status; CapBnd grants nothing, it limits

QUIET = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

_NAMES = (  # names by number
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = tuple(f"CAP_{name}" for name in _NAMES.split())


class PrivilegeError(Exception):
    """Privileges cannot be given up; the process must not go on with them."""


class UnknownUserError(PrivilegeError):
    """The user to become does not exist or is root: the configuration is wrong."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def stay_single() -> None:
    """Keep libraries not yet imported from starting threads, unless the environment says otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def held() -> set[str]:
    """Names of this thread's effective capabilities, CAP_NET_RAW and so on; empty if there are none."""
    if sys.platform != "linux":
        return set()
    sets = (_Sets * 2)()
    _call("capget", ctypes.byref(_Header(VERSION_3, 0)), sets)
    bits = sets[0].effective | sets[1].effective << 32
    return {_name(n) for n in range(64) if bits >> n & 1}


def drop(user: str | None = None) -> bool:
    """Become ``user`` (None: keep the user), give up every capability for good, and prevent new ones by exec.

    Gives False, and does nothing, on systems other than Linux. Raises UnknownUserError before anything was changed, and
    PrivilegeError if something cannot be given up or another thread kept it: the process should end then.
    """
    if sys.platform != "linux":
        logger.warning("privileges kept: %s has no capabilities", sys.platform)
        return False
    account = _account(user)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    bounded = _clear_bounds()
    if account is not None:
        _become(*account)
    _call("capset", ctypes.byref(_Header(VERSION_3, 0)), (_Sets * 2)())  # also takes the ambient ones
    if kept := _keepers():
        text = "drop privileges before starting threads and before importing numpy or pyarrow"
        raise PrivilegeError(f"threads ({', '.join(kept)}) keep privileges: {text}")
    logger.info("privileges dropped uid=%s gid=%s bounding_set=%s", os.getuid(), os.getgid(), bounded)
    if os.getuid() == 0:
        logger.warning("still root, the owner of most files: name a user to become")
    return True


def _account(user: str | None) -> tuple[str, int, int] | None:
    """Name, uid and gid of the user to become; None if nothing changes."""
    if user is None:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise UnknownUserError(f"user {user!r} does not exist") from None
    if entry.pw_uid == 0:
        raise UnknownUserError(f"user {user!r} is root: name another user")
    if os.getresuid() == (entry.pw_uid,) * 3:
        return None
    if os.geteuid() != 0:
        raise PrivilegeError(
            f"user {user!r}: only root can become another user; this process has uid {os.geteuid()}"
        )
    return user, entry.pw_uid, entry.pw_gid


def _become(user: str, uid: int, gid: int) -> None:
    """Change the user of all threads, by the C library. Leaving uid 0 also empties their capability sets."""
    try:
        os.initgroups(user, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PrivilegeError(f"user {user!r}: cannot become it: {error.strerror}") from None


def _clear_bounds() -> str:
    """Empty the bounding set, if CAP_SETPCAP is there; without it no_new_privs limits what exec grants."""
    if "CAP_SETPCAP" not in held():
        return "kept"
    for number in range(64):
        try:
            _prctl(PR_CAPBSET_READ, number)
        except PrivilegeError:  # this kernel does not have the capability
            break
        _prctl(PR_CAPBSET_DROP, number)
    return "empty"


def _keepers() -> list[str]:
    """Names of threads that could still do, or gain by exec, what others cannot."""
    names = []
    try:
        for task in Path("/proc/self/task").iterdir():
            try:
                lines = (task / "status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):  # the thread has ended
                continue
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if any(int(status[name], 16) for name in SETS) or status["NoNewPrivs"] != "1":
                names.append(status["Name"])
    except OSError as error:
        raise PrivilegeError(f"cannot check that all threads gave up privileges: {error}") from None
    return sorted(names)


def _name(number: int) -> str:
    return NAMES[number] if number < len(NAMES) else f"CAP_{number}"


def _prctl(option: int, argument: int) -> None:
    _call("prctl", *(ctypes.c_ulong(n) for n in (option, argument, 0, 0, 0)))


def _call(function: str, *arguments: object) -> None:
    """Call the C library. Raises PrivilegeError."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) < 0:
        raise PrivilegeError(f"{function}: {os.strerror(ctypes.get_errno())}")
