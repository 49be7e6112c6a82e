"""What the lab needs of a machine."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from probing.lab import check, registry
from probing.lab.errors import LabError
from probing.lab.link import netem


def test_every_program_has_a_package() -> None:
    """Programs of all scenarios, and of the servers and clients that no scenario uses by default."""
    known = {p for n in registry.SERVICES for p in registry.service(n).programs}
    known |= {p for n in registry.CLIENTS for p in registry.client(n).programs}
    assert known | set(check.programs()) <= set(check.PACKAGES), sorted(known - set(check.PACKAGES))
    for program, packages in check.PACKAGES.items():
        assert packages[0] or program in check.MODULES, f"{program} is in Debian"


def test_ci_installs_what_the_lab_needs() -> None:
    text = (Path(__file__).parents[4] / ".ci" / "run").read_text()
    for program in check.programs():
        package = check.PACKAGES[program][0]
        assert package in text or program in check.MODULES or package in ("util-linux", "python3"), program


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "PATH", "/nowhere")
    lacking = check.missing(["dns"])
    assert lacking.keys() >= {"dig", "dnsmasq", "ip"}
    assert lacking["dig"] == ["dns"]
    assert check.install_line(["dig", "dnsmasq"], "debian").startswith(
        "apt-get install bind9-dnsutils dnsmasq"
    )
    assert check.install_line(["dig"], "fedora") == "dnf install bind-utils"
    report = check.report(["dns"])
    assert report["programs"]["dig"] is False
    assert set(report["install"]) == {f"on {name}" for name in check.DISTRIBUTIONS}


def test_a_missing_python_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `make setup`, which leaves the extra `probing` out."""
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    assert check.missing(["small"])["aiosmtpd"] == ["smtp"]
    assert "aiosmtpd" not in check.missing(["dns"])
    line = check.report(["small"])["install"]["with pip"]
    assert line == f"{sys.executable} -m pip install 'wiresonde[probing]'"
    monkeypatch.setattr(check, "abilities", list)
    says = check.require(["small"])
    assert "aiosmtpd" in says
    assert line in says


def test_the_packages_of_python_are_those_of_the_extra() -> None:
    extra = [line for line in requires("wiresonde") or () if 'extra == "probing"' in line]
    assert {re.split(r"[\s<>=;]", line)[0] for line in extra} == set(check.MODULES)


def test_a_corpus_needs_the_programs_of_its_background_too() -> None:
    assert {"dnsmasq", "nginx"} <= check.programs(["train"]).keys()


def test_netem_is_taken_only_when_it_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, real_time, wanted, got in (
        (True, True, "auto", "user"), (False, True, "auto", "user"), (True, True, "netem", "netem"),
        (True, False, "netem", "netem"), (True, True, "user", "user"), (True, False, "user", "user"),
    ):  # fmt: skip
        monkeypatch.setattr(netem, "available", lambda there=there: there)
        monkeypatch.setattr(check, "_real_time", lambda real_time=real_time: "" if real_time else "refused")
        assert check.link(wanted) == got


@pytest.mark.parametrize("there", [True, False])
def test_without_real_time_priority_the_error_names_the_links_to_choose(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netem, "available", lambda: there)
    monkeypatch.setattr(check, "_real_time", lambda: "no real-time priority")
    with pytest.raises(LabError, match=r"no real-time priority.*--link user.*--link netem"):
        check.link("auto")


def test_netem_is_refused_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netem, "available", lambda: False)
    with pytest.raises(LabError, match="no sch_netem"):
        check.link("netem")


def test_without_root_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert check.require(["http"]).startswith("root: ")
