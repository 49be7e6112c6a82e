"""Privileges are given up for good, in every thread; the socket that needed them goes on."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.live import privileges
from tests.support.demo import ROOT
from tests.support.disks import NOBODY


def effective() -> int:
    """Bits of the effective capabilities, as /proc has them."""
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


SETGID, SETUID, SETPCAP, NET_RAW = 6, 7, 8, 13
needs_root = pytest.mark.skipif(
    not all(effective() >> n & 1 for n in (SETGID, SETUID, SETPCAP, NET_RAW)),
    reason="needs root with its capabilities",
)

# What scripts begin with. state(): of every thread, what /proc says.
BEGIN = """
import ctypes, errno, json, os, pwd, resource, socket, struct, subprocess, sys, threading
from connectors.live import privileges

def state():
    found = []
    for task in os.listdir("/proc/self/task"):
        lines = [line.partition(":") for line in open(f"/proc/self/task/{task}/status")]
        found.append({k: v.strip() for k, _, v in lines if k.startswith(("Cap", "NoNew"))})
    return found

def refused():
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        return errno.errorcode[error.errno]

def waiting():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""

# As systemd starts a service with User=, AmbientCapabilities=CAP_NET_RAW and CapabilityBoundingSet=CAP_NET_RAW.
AS_SERVICE = """
libc = ctypes.CDLL(None, use_errno=True)
for number in range(64):
    if number != 13:
        libc.prctl(24, number, 0, 0, 0)
assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
words = struct.pack("@6I", 1 << 13, 1 << 13, 1 << 13, 0, 0, 0)
assert libc.capset(struct.pack("@Ii", 0x20080522, 0), words) == 0
assert libc.prctl(47, 2, 13, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE
"""

EMPTY = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16) | {"NoNewPrivs": "1"}


def run(script: str, **environment: str) -> Any:
    """What a script gives to ``told`` as the last thing it does, in a process of its own."""
    lines = [BEGIN, "def told(value): print(json.dumps(value))", script]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def script_of(raising: str) -> str:
    """A script that tells the class and text of what is raised, and the state afterwards."""
    return f"""
try:
    {raising}
except privileges.PrivilegeError as error:
    told([type(error).__name__, str(error), state()])
"""


@needs_root
def test_nothing_is_left_in_any_thread() -> None:
    found = run(
        "assert privileges.drop() is True\nwaiting(); waiting()\ntold([state(), sorted(privileges.held())])"
    )
    assert found == [[EMPTY] * 3, []]


@needs_root
def test_a_service_that_may_only_open_sockets_keeps_nothing() -> None:
    before, first, second, after = run(
        AS_SERVICE + "before = sorted(privileges.held()), state(); first = refused()\n"
        "privileges.drop(); told([before, first, refused(), state()])"
    )
    assert before[0] == ["CAP_NET_RAW"]
    assert before[1][0]["CapAmb"] == f"{1 << NET_RAW:016x}"
    assert (first, second) == (None, "EPERM")
    # to clear the bounding set needs CAP_SETPCAP; no_new_privs makes it of no use
    assert after == [EMPTY | {"CapBnd": f"{1 << NET_RAW:016x}"}]


@needs_root
@pytest.mark.parametrize("start", ["", AS_SERVICE], ids=["root", "service"])
def test_programs_that_are_started_afterwards_may_no_more(start: str) -> None:
    status = run(
        start + "privileges.drop()\n"
        "told(subprocess.run(['cat', '/proc/self/status'], stdout=subprocess.PIPE, text=True, check=True).stdout)"
    )
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {name: found[name] for name in ("CapPrm", "CapEff", "CapAmb", "NoNewPrivs")} == {
        "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapAmb": "0" * 16, "NoNewPrivs": "1",
    }  # fmt: skip


@needs_root
def test_a_socket_that_was_open_receives_and_another_cannot_be_opened() -> None:
    script = """
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
before = refused()
privileges.drop("nobody")
sock.bind(("lo", 3))  # ETH_P_ALL
sock.settimeout(20)
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.sendto(b"a word of " + str(os.getpid()).encode(), ("127.0.0.1", 9))
while b"a word of " + str(os.getpid()).encode() not in sock.recv(65536):
    pass
told([before, refused()])
"""
    assert run(script) == [None, "EPERM"]


@needs_root
def test_a_socket_is_made_a_ring_filtered_and_promiscuous_without_privileges_or_locked_memory() -> None:
    script = """
import mmap
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
privileges.drop("nobody")
PACKET = 263
sock.setsockopt(PACKET, 10, 2)  # PACKET_VERSION: TPACKET_V3
sock.setsockopt(PACKET, 5, struct.pack("@7I", 1 << 20, 16, 2048, 16 * 512, 60, 0, 0))  # PACKET_RX_RING
ring = mmap.mmap(sock.fileno(), 16 << 20)
keep = ctypes.create_string_buffer(struct.pack("@HBBI", 6, 0, 0, 64))  # BPF: return 64
sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(keep)))  # SO_ATTACH_FILTER
lo = socket.if_nametoindex("lo")
sock.setsockopt(PACKET, 1, struct.pack("@iHH8s", lo, 1, 0, b""))  # PACKET_ADD_MEMBERSHIP: PACKET_MR_PROMISC
sock.bind(("lo", 3))
sock.bind(("lo", 0))
sock.bind(("lo", 3))
told(len(ring))
"""
    assert run(script) == 16 << 20


@needs_root
def test_root_becomes_the_user_for_good() -> None:
    script = """
privileges.drop("nobody")
try:
    os.setresuid(-1, 0, -1)
except PermissionError:
    told([os.getresuid(), os.getresgid(), os.getgroups(), os.access("/etc/shadow", os.R_OK), state()])
"""
    uids, gids, groups, readable, threads = run(script)
    assert uids == [NOBODY] * 3
    assert len(set(gids)) == 1
    assert groups == [gids[0]] != [0]
    assert not readable
    assert threads == [EMPTY]


@needs_root
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no such user", "user 'no such user' does not exist"),
        ("", "user '' does not exist"),
        ("nul\\0", "user 'nul\\x00' does not exist"),
        ("root", "user 'root' is root: name another user"),
    ],
)
def test_a_user_whom_nobody_can_become_is_refused_before_anything_changes(name: str, text: str) -> None:
    kind, said, after = run(
        f"before = state()\n{script_of(f'privileges.drop({name!r})')}".replace("\\\\0", "\\0")
    )
    assert (kind, said) == ("UnknownUserError", text)
    assert after[0]["NoNewPrivs"] == "0"
    assert int(after[0]["CapEff"], 16) >> NET_RAW & 1


@needs_root
def test_only_root_can_become_another_user() -> None:
    kind, said, after = run(AS_SERVICE + script_of("privileges.drop('daemon')"))
    assert kind == "PrivilegeError"
    assert said == f"user 'daemon': only root can become another user; this process has uid {NOBODY}"
    assert after[0]["CapEff"] == f"{1 << NET_RAW:016x}"


@needs_root
def test_root_that_may_not_change_users_is_told_so() -> None:
    take = "ctypes.CDLL(None).capset(struct.pack('@Ii', 0x20080522, 0), bytes(24))\n"
    kind, said, _ = run(take + script_of("privileges.drop('nobody')"))
    assert (kind, said) == ("PrivilegeError", "user 'nobody': cannot become it: Operation not permitted")


@needs_root
def test_a_process_that_is_the_user_already_stays_it() -> None:
    assert run(AS_SERVICE + "privileges.drop('nobody'); told([os.getuid(), sorted(privileges.held())])") == [
        NOBODY,
        [],
    ]


@needs_root
@pytest.mark.parametrize(
    "user", [None, "nobody"]
)  # a change of user takes capabilities, but no_new_privs is not set
def test_a_thread_that_kept_something_is_an_error(user: str | None) -> None:
    kind, said, after = run("waiting()\n" + script_of(f"privileges.drop({user!r})"))
    assert kind == "PrivilegeError"
    assert said.startswith("threads (")
    assert "keep privileges: drop privileges before starting threads" in said
    assert "\n" not in said
    assert sorted(one["NoNewPrivs"] for one in after) == ["0", "1"]


@needs_root
def test_a_thread_that_kept_a_capability_is_an_error_where_exec_gives_none_anyway() -> None:
    before = AS_SERVICE + "assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS\nwaiting()\n"
    kind, said, after = run(before + script_of("privileges.drop()"))
    assert kind == "PrivilegeError"
    assert "keep privileges" in said
    assert sorted(one["CapEff"] for one in after) == ["0" * 16, f"{1 << NET_RAW:016x}"]
    assert [one["NoNewPrivs"] for one in after] == ["1", "1"]


@needs_root
def test_a_process_that_stays_root_is_warned_of() -> None:
    script = """
import logging
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.basicConfig(handlers=[Keep()])
privileges.drop()
told(said)
"""
    assert run(script) == ["still root, the owner of most files: name a user to become"]


def test_a_process_without_privileges_gives_up_what_others_could_give_it() -> None:
    none = "ctypes.CDLL(None).capset(struct.pack('@Ii', 0x20080522, 0), bytes(24))\n"
    kept, threads = run(none + "privileges.drop(); told([sorted(privileges.held()), state()])")
    assert kept == []
    assert [one["NoNewPrivs"] for one in threads] == ["1"]


@pytest.mark.parametrize(
    "modules", ["numpy, scipy.special", "pyarrow", "engine.config, engine.commands.replay"]
)
def test_libraries_that_are_imported_after_stay_single_start_no_thread(modules: str) -> None:
    script = "for name in privileges.QUIET: os.environ.pop(name, None)\nprivileges.stay_single()\n"
    assert run(f"{script}import {modules}\ntold(len(os.listdir('/proc/self/task')))") == 1


def test_stay_single_leaves_what_the_environment_says() -> None:
    script = "privileges.stay_single(); told([os.environ[name] for name in privileges.QUIET])"
    assert run(script, OPENBLAS_NUM_THREADS="3") == ["3", "background_thread:false"]


def test_elsewhere_nothing_is_done_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert privileges.drop() is False
    assert privileges.held() == set()
    assert caplog.messages == ["privileges kept: darwin has no capabilities"]


def test_what_is_held_is_what_the_kernel_says() -> None:
    assert privileges.held() == {name for n, name in enumerate(privileges.NAMES) if effective() >> n & 1}


def test_capabilities_have_the_names_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
    numbers = {line[1]: int(line[2]) for line in words if len(line) == 3 and line[2].isdigit()}
    assert len(numbers) > 35
    names = privileges.NAMES
    assert {name: n for name, n in numbers.items() if n < len(names)} == {
        name: n for n, name in enumerate(names) if name in numbers
    }
