"""deploy/ fits the code: names of metrics, options of commands, configurations; and opens nothing to the world."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from connectors.prometheus import Series
from engine.cli import main
from engine.config import Config, load, parse
from engine.metrics import Metrics, SensorMetrics
from tests.support.demo import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULES_TEST = DEPLOY / "prometheus" / "rules_test.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PAGE = ROOT / "docs" / "deploy.md"
YAML = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])

METRIC = re.compile(r"\bwiresonde_[a-z0-9_]+")
INCREASE = re.compile(r"\b(?:rate|increase)\((\w+)")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def manifests(kind: str) -> list[dict[str, Any]]:
    found = [m for path in MANIFESTS for m in yaml.safe_load_all(path.read_text())]
    return [m for m in found if m["kind"] == kind]


def samples() -> dict[str, str]:
    """Names that /metrics shows, with the type of their metric."""
    return {s.name + end: s.kind for s in series() for end in SUFFIXES[s.kind]}


def series() -> list[Series]:
    """All metrics of detectors and sensors."""
    return [*Metrics(("task",)).series, *SensorMetrics().series]


def leaves(value: Any) -> Iterator[str]:
    """Every text of a document."""
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, str):
        yield value


def panels(path: Path) -> list[dict[str, Any]]:
    top = json.loads(path.read_text())["panels"]
    return [p for panel in top for p in (panel, *panel.get("panels", []))]


def expressions(path: Path) -> list[str]:
    """PromQL of a dashboard or of a file of rules."""
    if path.suffix == ".json":
        return [t["expr"] for panel in panels(path) for t in panel.get("targets", [])]
    return [rule["expr"] for group in document(path)["groups"] for rule in group["rules"]]


def alerts() -> list[str]:
    return [rule["alert"] for group in document(RULES)["groups"] for rule in group["rules"]]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Arguments of wiresonde in the services of compose.yaml and in the pods."""
    for name, service in document(COMPOSE)["services"].items():
        if service["image"].startswith("wiresonde:"):
            yield name, [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in service["command"]]
    for owner in manifests("StatefulSet") + manifests("Job"):
        for container in owner["spec"]["template"]["spec"]["containers"]:
            yield owner["metadata"]["name"], container["args"]


def containers() -> Iterator[dict[str, Any]]:
    for owner in manifests("StatefulSet") + manifests("Job"):
        pod = owner["spec"]["template"]["spec"]
        yield from (*pod.get("initContainers", []), *pod["containers"])


@pytest.mark.parametrize("path", YAML, ids=lambda p: str(p.relative_to(DEPLOY)))
def test_every_yaml_file_is_one(path: Path) -> None:
    assert [d for d in yaml.safe_load_all(path.read_text()) if d]


@pytest.mark.parametrize("path", [RULES, RULES_TEST, *DASHBOARDS], ids=lambda p: p.name)
def test_every_metric_named_is_one_that_is_shown(path: Path) -> None:
    texts = leaves(json.loads(path.read_text()) if path.suffix == ".json" else document(path))
    named = {name for text in texts for name in METRIC.findall(text)}
    assert named
    assert named <= samples().keys()


@pytest.mark.parametrize("path", [RULES, *DASHBOARDS], ids=lambda p: p.name)
def test_rates_are_taken_of_counters_only(path: Path) -> None:
    taken = {name for text in expressions(path) for name in INCREASE.findall(text)}
    assert taken
    assert {name for name in taken if samples()[name] == "gauge"} == set()


def test_every_metric_stands_on_a_dashboard() -> None:
    named = {name for path in DASHBOARDS for text in expressions(path) for name in METRIC.findall(text)}
    shown = {s.name for s in series() if any(s.name + e in named for e in SUFFIXES[s.kind])}
    assert {s.name for s in series()} == shown


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.name)
def test_panels_have_ids_of_their_own_and_fit_the_grid(path: Path) -> None:
    ids = [panel["id"] for panel in panels(path)]
    assert len(ids) == len(set(ids))
    places = [p["gridPos"] for p in panels(path)]
    cells = [
        (x, y) for g in places for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_alert_is_tested_and_explained() -> None:
    tested, page = RULES_TEST.read_text(), PAGE.read_text()
    for name in alerts():
        assert name in tested, name
        assert f"`{name}`" in page, name
    assert set(re.findall(r"`(Wiresonde\w+)`", page)) == set(alerts())


def test_the_page_names_panels_that_are_there() -> None:
    titles = {panel["title"] for path in DASHBOARDS for panel in panels(path)}
    table = PAGE.read_text().partition("| question | panel |\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"\*(.+?)\*", row.split("|")[2])}
    assert named
    assert named <= titles


def test_ports_are_published_on_loopback_only() -> None:
    ports = [p for service in document(COMPOSE)["services"].values() for p in service.get("ports", [])]
    assert ports
    assert [p for p in ports if not p.startswith("127.0.0.1:")] == []


def test_prometheus_asks_the_detectors_of_the_compose_file_where_they_listen() -> None:
    port = load(DEPLOY / "compose" / "wiresonde.yaml").metrics.port
    wanted = {
        f"{name}:{port}"
        for name, service in document(COMPOSE)["services"].items()
        if service.get("command", [""])[0] == "detect"
    }
    (job,) = document(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "wiresonde"
    assert {t for part in job["static_configs"] for t in part["targets"]} == wanted


def test_configurations_are_accepted() -> None:
    assert load(DEPLOY / "compose" / "wiresonde.yaml") != Config()
    (config,) = manifests("ConfigMap")
    for name, text in config["data"].items():
        assert parse(yaml.safe_load(text), name).bus.url is not None


@pytest.mark.parametrize(("name", "words"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_commands_have_the_options_that_are_given(name: str, words: list[str]) -> None:
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words[0]]
        words = words[1:]
    names = main.context_settings[
        "help_option_names"
    ]  # click keeps the option it makes for the first context
    command.make_context(name, list(words), help_option_names=names)


def test_containers_may_do_as_little_as_they_need() -> None:
    for container in containers():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
    for owner in manifests("StatefulSet") + manifests("Job"):
        assert owner["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_build_context_holds_what_the_image_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    copied += re.findall(r"bind,source=(\S+),", text)
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name.split("/")[0] in let_in, name
