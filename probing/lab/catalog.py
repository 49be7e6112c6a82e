"""Scenarios and corpora by name; a corpus as the list of its runs."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from connectors.files.yaml_core import YamlError, read_yaml
from probing.lab.errors import LabError
from probing.lab.settings import (
    MAX_CLIENTS,
    MAX_SERVERS,
    Background,
    Corpus,
    Entry,
    Link,
    Load,
    Parameters,
    Run,
    Scenario,
)

HERE = Path(__file__).resolve().parent
MAX_FILE = 1 << 20  # most bytes of a file that describes scenarios or a corpus
MAX_RUNS = 65_536  # most runs of a corpus: there are no more address blocks
TWINS = "abcdefghijklmnopqrstuvwxyz"
Checked = TypeVar("Checked", bound=BaseModel)


def load_file(path: Path, kind: type[Checked]) -> Checked:
    """The model in a YAML file. Raises LabError that names file, key and value."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    if len(text) > MAX_FILE:
        raise LabError(f"{path}: larger than the {MAX_FILE} bytes that a description may have")
    try:
        data = read_yaml(text, aliases=True)
    except YamlError as error:
        raise LabError(f"{path}: not YAML: {error}") from None
    return check(data, kind, str(path))


def check(data: Any, kind: type[Checked], where: str) -> Checked:
    """The model in this data. Raises LabError that names the first wrong key."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        value = f" (got {first['input']!r:.80})" if first["type"] != "missing" and first["loc"] else ""
        raise LabError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}{value}{more}") from None


@cache
def scenarios() -> dict[str, Scenario]:
    """All scenarios, by name."""
    found = (load_file(path, Scenario) for path in sorted((HERE / "scenarios").glob("*.yaml")))
    return {scenario.name: scenario for scenario in found}


@cache
def corpora() -> dict[str, Path]:
    """The files of the bundled corpora, by name."""
    return {path.stem: path for path in sorted((HERE / "corpora").glob("*.yaml"))}


def scenario(name: str) -> Scenario:
    """The scenario of this name. Raises LabError when there is none."""
    if name not in scenarios():
        raise LabError(f"scenario {name!r} is not one of {', '.join(scenarios())}")
    return scenarios()[name]


def find(word: str) -> Corpus:
    """The corpus of this name or in this file; for a scenario's name, each of its activities once."""
    if word.endswith((".yaml", ".yml")):
        return load_file(Path(word), Corpus)
    if word in corpora():
        return load_file(corpora()[word], Corpus)
    if word in scenarios():
        return Corpus(name=word, about=scenarios()[word].about, runs=(Entry(scenario=word, users=1),))
    raise LabError(f"{word!r} is not a corpus ({', '.join(corpora())}), a scenario ({', '.join(scenarios())}) or a "
                   ".yaml file")  # fmt: skip


def thinned(corpus: Corpus, share: float) -> Corpus:
    """The same corpus with a share of each run's samples, at least one a run."""
    if not 0 < share <= 1:
        raise LabError(f"share {share:g} must be more than 0 and at most 1")
    runs = []
    for entry in corpus.runs:
        samples = max(1, round(entry.samples * share))
        runs.append(entry.model_copy(update={"samples": samples, "users": min(entry.users, samples)}))
    return corpus.model_copy(update={"runs": tuple(runs)})


def expand(corpus: Corpus) -> list[Run]:
    """All runs of a corpus, in an order that mixes its entries and never changes."""
    plans: list[dict[str, Any]] = []
    for index, entry in enumerate(corpus.runs):
        where = f"corpus {corpus.name}: runs.{index} ({entry.scenario})"
        settings = list(_settings(entry, where))
        if not settings:
            raise LabError(f"{where}: no activity fits this server and this client")
        _check_hosts(entry, settings, where)
        for point, setting in enumerate(settings):
            for copy in range(entry.copies):
                name = f"{corpus.name}/{corpus.seed}/{index}/{point}/{copy}"
                seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
                plans.extend(_twins(entry, setting, seed, where))
    if len(plans) > MAX_RUNS:
        raise LabError(f"corpus {corpus.name}: {len(plans)} runs, at most {MAX_RUNS} are possible")
    Random(corpus.seed).shuffle(plans)
    runs = []
    for number, plan in enumerate(plans):
        words = (plan["scenario"], plan["activity"], plan["server"], plan["client"])
        name = f"{number:05d}-{'-'.join(words)}{plan['twin']}"
        runs.append(
            check({"id": name, "number": number, "vantage": corpus.vantage, **plan}, Run, corpus.name)
        )
    return runs


def role_parameters(background: Background, where: str) -> Parameters:
    """The parameters of background users. Raises LabError when they cannot do their activity."""
    given = scenario(background.scenario)
    _chosen(background.activity, tuple(given.activities), f"{where}: activity")
    activity, client, server = background.activity, background.client, background.server
    fits = client in given.clients_of(activity) and server in given.servers_of(activity)
    if not fits or not given.fits(client, server):
        raise LabError(f"{where}: {client} cannot do {given.name} {activity} at {server}")
    given.check_ending(activity, background.parameters, where)
    values = given.parameters | given.activities[activity].parameters | background.parameters
    return check(values, Parameters, f"{where}: parameters")


def hosts_of(name: str, parameters: Parameters) -> int:
    """The number of client hosts of one user."""
    return parameters.hosts - 1 if scenario(name).several_hosts else 1


def _check_hosts(entry: Entry, settings: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise LabError when a run has more hosts than its address block has room for."""
    servers, others = {entry.scenario}, 0
    for k, background in enumerate(entry.background):
        parameters = role_parameters(background, f"{where}: background.{k}")
        servers.add(f"{background.scenario}/{background.server}")
        others += background.users * hosts_of(background.scenario, parameters)
    clients = others + entry.users * max(hosts_of(entry.scenario, s["parameters"]) for s in settings)
    if clients > MAX_CLIENTS or len(servers) > MAX_SERVERS:
        raise LabError(
            f"{where}: {clients} client and {len(servers)} server hosts; at most {MAX_CLIENTS} and {MAX_SERVERS}"
        )


def _twins(entry: Entry, setting: dict[str, Any], seed: int, where: str) -> Iterator[dict[str, Any]]:
    """The plan of a run, or one for each of its twins."""
    shared = {"seed": seed, "samples": entry.samples, "users": entry.users, "background": entry.background,
              "group": entry.group, "limit_s": entry.limit_s}  # fmt: skip
    if not entry.twins:
        yield {**setting, **shared, "pair": "", "twin": ""}
        return
    if not 2 <= len(entry.twins) <= len(TWINS):
        raise LabError(f"{where}: twins: {len(entry.twins)} link settings, must be 2 to {len(TWINS)}")
    for letter, link in zip(TWINS, entry.twins):
        own = check({**setting["link"].model_dump(), **link}, Link, f"{where}: twins")
        yield {**setting, **shared, "link": own, "pair": f"{seed:012x}", "twin": letter}


def _settings(entry: Entry, where: str) -> Iterator[dict[str, Any]]:
    """Every combination of an entry's lists."""
    given = scenario(entry.scenario)
    for activity in _chosen(entry.activity, tuple(given.activities), f"{where}: activity"):
        servers, clients = given.servers_of(activity), given.clients_of(activity)
        some_servers = _chosen(entry.server, given.servers, f"{where}: server")
        some_clients = _chosen(entry.client, given.clients, f"{where}: client")
        pairs = [
            (server, client)
            for server in some_servers
            for client in some_clients
            if server in servers and client in clients and given.fits(client, server)
        ]
        if not pairs and entry.activity != "all":
            raise LabError(
                f"{where}: {activity} can only be done by {', '.join(clients)} at {', '.join(servers)}"
            )
        given.check_ending(activity, entry.parameters, where)
        defaults = given.parameters | given.activities[activity].parameters
        for server, client in pairs:
            for link, load, parameters in itertools.product(
                _grid(entry.link), _grid(entry.load), _grid(defaults | entry.parameters)
            ):
                yield {
                    "scenario": given.name, "activity": activity, "server": server, "client": client,
                    "link": check(link, Link, f"{where}: link"), "load": check(load, Load, f"{where}: load"),
                    "parameters": check(parameters, Parameters, f"{where}: parameters"),
                }  # fmt: skip


def _chosen(value: Any, known: Sequence[str], where: str) -> tuple[str, ...]:
    """The names that a value of an entry stands for."""
    if value == "all":
        return tuple(known)
    names = tuple(value) if isinstance(value, list | tuple) else (value,)
    for name in names:
        if name not in known:
            raise LabError(f"{where}: {name!r} is not one of {', '.join(known)}")
    return names


def _grid(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of values that are lists."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for chosen in itertools.product(*lists):
        yield dict(zip(values, chosen))
