"""Scenarios and corpora by name; a corpus as the list of its runs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from connectors.files.yaml_core import YamlError, read_yaml
from probing.lab import design
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
    """All runs of a corpus, in an order that mixes its entries.

    Id, seed, address block and place in the order follow from a run's own settings and the corpus's seed, so that the
    others stay as they are when a run is added. (Rarely, a run that is listed earlier takes another's address block.)
    """
    plans: list[dict[str, Any]] = []
    met: Counter[str] = Counter()
    for index, entry in enumerate(corpus.runs):
        where = f"corpus {corpus.name}: runs.{index} ({entry.scenario})"
        for cell in design.cells(entry, where):
            settings = list(_settings(cell, where))
            if not settings:
                raise LabError(f"{where}: no activity fits this server and this client")
            _check_hosts(cell, settings, where)
            for setting in settings:
                plans.extend(_plans(cell, setting, corpus.seed, met, where))
    if len(plans) > MAX_RUNS:
        raise LabError(f"corpus {corpus.name}: {len(plans)} runs, at most {MAX_RUNS} are possible")
    numbers: set[int] = set()
    runs = []
    for plan in plans:
        words = (plan["scenario"], plan["activity"], plan["server"], plan["client"])
        name = f"{plan['seed']:012x}-{'-'.join(words)}{plan['twin']}"
        number = _free_number(name, numbers)
        runs.append(
            check({"id": name, "number": number, "vantage": corpus.vantage, **plan}, Run, corpus.name)
        )
    return sorted(runs, key=lambda run: (_digest(run.id), run.id))


def _plans(
    entry: Entry, setting: dict[str, Any], seed: int, met: Counter[str], where: str
) -> Iterator[dict[str, Any]]:
    """The plans of a setting's copies and their twins. met: number of earlier plans of each content.

    Samples and users are no part of the content: a thinned corpus has the same runs.
    """
    content = {
        **{name: value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value
           for name, value in setting.items()},
        "group": entry.group, "part": entry.part, "twins": entry.twins,
        "background": [other.model_dump(mode="json", exclude_defaults=True) for other in entry.background],
    }  # fmt: skip
    text = json.dumps(content, sort_keys=True)
    for _ in range(entry.copies):
        own = int.from_bytes(_digest(f"{seed}/{met[text]}/{text}")[:6], "big")
        met[text] += 1
        yield from _twins(entry, setting, own, where)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _free_number(name: str, taken: set[int]) -> int:
    """A number of an address block, the first of this name's own series that is not taken; it is taken now."""
    for k in itertools.count():
        number = int.from_bytes(_digest(f"{name}/{k}")[:2], "big")
        if number not in taken:
            taken.add(number)
            return number
    raise AssertionError


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
              "group": entry.group, "part": entry.part, "limit_s": entry.limit_s}  # fmt: skip
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
            for link, load, parameters, pause in itertools.product(
                _grid(entry.link),
                _grid(entry.load),
                _grid(defaults | entry.parameters),
                _listed(entry.pause_s),
            ):
                yield {
                    "scenario": given.name, "activity": activity, "server": server, "client": client,
                    "link": check(link, Link, f"{where}: link"), "load": check(load, Load, f"{where}: load"),
                    "parameters": check(parameters, Parameters, f"{where}: parameters"), "pause_s": pause,
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
    lists = [_listed(value) for value in values.values()]
    for chosen in itertools.product(*lists):
        yield dict(zip(values, chosen))


def _listed(value: Any) -> list[Any]:
    """The values of a list, or a value alone."""
    return value if isinstance(value, list) else [value]
