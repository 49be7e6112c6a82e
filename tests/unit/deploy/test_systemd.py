"""The units in deploy/systemd: systemd understands them, they call commands that are there, and may do little."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from engine.cli import main
from tests.support.demo import ROOT

FOLDER = ROOT / "deploy" / "systemd"
CAPTURE, DETECT = FOLDER / "wiresonde-capture@.service", FOLDER / "wiresonde-detect.service"
UNITS = [CAPTURE, DETECT]
PROGRAM = "/opt/wiresonde/bin/wiresonde"

each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")

# What a service with these can do is little; the value, where it is not yes.
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
    "PrivateDevices": "yes", "PrivateIPC": "yes", "PrivateMounts": "yes", "ProtectProc": "invisible",
    "ProtectClock": "yes", "ProtectControlGroups": "yes", "ProtectHostname": "yes", "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes", "ProtectKernelTunables": "yes", "LockPersonality": "yes", "RemoveIPC": "yes",
    "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes", "UMask": "0077",
    "DynamicUser": "yes", "LimitCORE": "0", "SystemCallArchitectures": "native", "SystemCallErrorNumber": "EPERM",
}  # fmt: skip


def settings(path: Path) -> dict[str, list[str]]:
    """Values of each key, in their order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def one(path: Path, key: str) -> str:
    (value,) = settings(path)[key]
    return value


def environment(path: Path) -> dict[str, str]:
    words = [word for line in settings(path)["Environment"] for word in line.split()]
    return dict(word.split("=", 1) for word in words)


def words_of(path: Path) -> list[str]:
    """The command line as systemd makes it of the variables that the unit sets."""
    line: list[str] = []
    for word in one(path, "ExecStart").split():
        if word.startswith("$") and not word.startswith("${"):
            line += environment(path)[word[1:]].split()  # none, one or more words
        else:
            line.append(re.sub(r"\$\{(\w+)\}", lambda m: environment(path)[m[1]], word))
    return line


def figure(path: Path) -> str:
    """The exposure that the unit says it has."""
    (found,) = re.findall(r"^# .*Exposure .*: (\d\.\d)$", path.read_text(), re.MULTILINE)
    return str(found)


def installed(path: Path, folder: Path) -> Path:
    """A copy whose program is there."""
    program = folder / "wiresonde"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = folder / path.name
    copy.write_text(path.read_text().replace(PROGRAM, str(program)))
    return copy


def analyze(*arguments: object) -> str:
    """What systemd-analyze says; it must not complain."""
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@cache
def calls(group: str) -> frozenset[str]:
    """System calls of one of systemd's groups, or the one that is named."""
    if not group.startswith("@"):
        return frozenset({group})
    words = [line.strip() for line in analyze("syscall-filter", group).splitlines()[1:]]
    return frozenset().union(*(calls(word) for word in words if word and not word.startswith("#")))


def allowed(path: Path) -> set[str]:
    found = set(calls("@default"))
    for line in settings(path)["SystemCallFilter"]:
        named = set().union(*(calls(word) for word in line.removeprefix("~").split()))
        found = found - named if line.startswith("~") else found | named
    return found


@needs_systemd
@each_unit
def test_systemd_understands_every_line(path: Path, tmp_path: Path) -> None:
    assert analyze("verify", "--man=no", installed(path, tmp_path)) == ""


@needs_systemd
@each_unit
def test_a_unit_is_as_little_exposed_as_it_says(path: Path, tmp_path: Path) -> None:
    limit = round(float(figure(path)) * 10)  # systemd counts in tenths
    if not analyze("--version").startswith("systemd 252 "):
        limit += 3  # others may count settings that 252 does not know
    analyze("security", "--offline=true", "--no-pager", f"--threshold={limit}", installed(path, tmp_path))


@each_unit
def test_pages_give_the_figure_of_the_unit(path: Path) -> None:
    pages = {page.name: page.read_text() for page in (ROOT / "docs").glob("*.md")}
    found = re.findall(
        rf"^\| `{re.escape(path.name)}` \| (\d\.\d) \|", "\n".join(pages.values()), re.MULTILINE
    )
    assert found == [figure(path)] * ("systemd.md" in pages)


def test_the_capture_is_told_its_interface_as_it_is_written() -> None:
    assert words_of(CAPTURE)[:4] == [PROGRAM, "capture", "-i", "%i"]
    assert words_of(CAPTURE)[4:] == ["--config", "/etc/wiresonde/capture-%i.yaml"]


@pytest.mark.parametrize(
    ("path", "command"), [(CAPTURE, "capture"), (DETECT, "detect")], ids=["capture", "detect"]
)
def test_commands_have_the_options_that_are_given(path: Path, command: str) -> None:
    program, name, *arguments = words_of(path)
    assert (program, name) == (PROGRAM, command)
    assert "detect" in main.commands
    if name in main.commands:
        names = main.context_settings["help_option_names"]
        main.commands[name].make_context(name, arguments, help_option_names=names)


@each_unit
def test_everything_that_keeps_a_service_from_the_machine_is_on(path: Path) -> None:
    assert {key: one(path, key) for key in HARDENED} == HARDENED


def test_each_service_has_the_privileges_and_addresses_it_needs() -> None:
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert (one(CAPTURE, key), one(DETECT, key)) == ("CAP_NET_RAW", "")
    families = [set(one(path, "RestrictAddressFamilies").split()) for path in UNITS]
    assert families[1] == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert families[0] - families[1] == {"AF_PACKET", "AF_NETLINK"}
    assert one(DETECT, "PrivateUsers") == "yes"
    assert "PrivateUsers" not in settings(CAPTURE)  # its CAP_NET_RAW would not hold for the interface


@needs_systemd
def test_the_capture_can_give_its_privileges_back_and_nobody_can_get_others() -> None:
    needed = {
        "socket",
        "bind",
        "setsockopt",
        "mmap",
        "mprotect",
        "poll",
        "epoll_wait",
        "ioctl",
        "prctl",
        "clone3",
        "kill",
    }
    assert needed <= allowed(DETECT)
    assert allowed(CAPTURE) - allowed(DETECT) == {"capset"}
    forbidden = {
        "setuid",
        "setresuid",
        "setgroups",
        "ptrace",
        "bpf",
        "mount",
        "init_module",
        "reboot",
        "chroot",
        "keyctl_",
    }
    assert allowed(CAPTURE) & forbidden == set()


@each_unit
def test_what_numba_and_kafka_need_is_allowed_and_the_unit_says_why(path: Path) -> None:
    lists = re.findall(r"^#   (\w+)(?:=\w+)?  ", path.read_text(), re.MULTILINE)
    assert {"MemoryDenyWriteExecute", "PrivateNetwork", "IPAddressDeny"} <= set(lists)
    assert settings(path).keys() & set(lists) == set()


@each_unit
def test_what_a_service_writes_is_in_folders_that_systemd_makes_for_it(path: Path) -> None:
    made = {"%S": "StateDirectory", "%C": "CacheDirectory", "%L": "LogsDirectory"}
    named = [value for value in environment(path).values() if value.startswith("%")]
    assert environment(path)["NUMBA_CACHE_DIR"] in named
    for value in named:
        root, _, name = value.partition("/")
        assert name == one(path, made[root])
        assert one(path, f"{made[root]}Mode") == "0700"


def test_what_a_service_says_of_itself_is_listened_to() -> None:
    assert (one(CAPTURE, "Type"), one(CAPTURE, "NotifyAccess")) == ("notify", "main")
    assert int(one(CAPTURE, "WatchdogSec")) > 0
    assert one(CAPTURE, "ExecReload").split()[1:] == ["-HUP", "$MAINPID"]
    assert settings(DETECT).keys() & {"WatchdogSec", "ExecReload", "NotifyAccess"} == set()  # it says nothing


@each_unit
def test_a_service_comes_back_unless_its_configuration_is_wrong(path: Path) -> None:
    assert one(path, "Restart") == "on-failure"
    assert one(path, "StartLimitIntervalSec") == "0"
    assert one(path, "RestartPreventExitStatus") == "2"
    assert int(one(path, "TimeoutStopSec")) > 120  # s; delivery_timeout_ms of a Kafka producer


@each_unit
def test_an_instance_has_its_name_where_it_would_meet_another(path: Path) -> None:
    for key in ("StateDirectory", "CacheDirectory"):
        assert ("%i" in one(path, key)) == ("@" in path.name)
    assert ("%i" in environment(path)["WIRESONDE_CONFIG"]) == ("@" in path.name)
