"""The configuration file: what is accepted, and how what is wrong is named."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from connectors.files.yaml_core import read_yaml
from engine.config import MAX_FILE, Config, load, parse, replace, show
from engine.errors import ConfigError, InputError
from engine.scoring.kinds import KINDS


def loaded(path: Path, text: str) -> Config:
    file = path / "w.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def problem(path: Path, text: str) -> str:
    """What `load` says of a file; always one line that begins with its path."""
    with pytest.raises(ConfigError) as caught:
        loaded(path, text)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{path / 'w.yaml'}: ")
    return said.removeprefix(f"{path / 'w.yaml'}: ")


def paths(data: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all keys of nested mappings."""
    if not isinstance(data, dict):
        return []
    return [p for k, v in data.items() for p in [(*at, k), *paths(v, (*at, k))]]


def nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def at(data: Any, path: tuple[str, ...]) -> Any:
    return at(data[path[0]], path[1:]) if path else data


DEFAULTS = yaml.safe_load(show(Config()))
FREE = [
    ("models",),
    *(("bus", "kafka", name) for name in ("client", "producer", "consumer", "secrets")),
]  # names that the user gives; keys of kafka-python
SECTIONS = [(), *(p for p in paths(DEFAULTS) if isinstance(at(DEFAULTS, p), dict) and p not in FREE)]
LEAVES = [p for p in paths(DEFAULTS) if p not in SECTIONS and p not in FREE]


def test_no_file_and_an_empty_file_are_all_defaults(tmp_path: Path) -> None:
    assert load(None) == loaded(tmp_path, "") == loaded(tmp_path, "# nothing\n") == Config()


def test_what_is_shown_is_read_back(tmp_path: Path) -> None:
    assert loaded(tmp_path, show(Config())) == Config()


def test_every_value_that_differs_from_its_default_is_shown_and_read_back(tmp_path: Path) -> None:
    other = {
        "sensor": {"name": "tap-1", "epoch": 7},
        "decode": {"tunnels": ["gre", "vxlan"], "vxlan_port": 8472},
        "connections": {"capacity": 1000, "tcp_timeout": 12.5},
        "kitsune": {
            "features": {"lambdas": [4, 2, 1, 0.5, 0.25], "flows": 500},
            "kitnet": {"map_samples": 10, "clip": [-0.5, 1.5], "precision": "float64"},
            "threshold": {"method": "lognormal", "false_positive_rate": 1e-6},
            "scorer": {"aggregate": "mean"},
        },
        "bus": {"partitions": 4},
        "labels": {"slice": ["task", "attack"]},
        "metrics": {"port": 9100, "host": "::1"},
        "output": {"directory": "größe/out"},
    }
    config = loaded(tmp_path, yaml.safe_dump(other, allow_unicode=True))
    assert loaded(tmp_path, show(config)) == config != Config()
    shown = yaml.safe_load(show(config))
    for path in paths(other):
        assert isinstance(at(other, path), dict) or at(shown, path) == at(other, path)


@pytest.mark.parametrize("section", SECTIONS, ids=".".join)
def test_an_unknown_key_is_named_at_every_level(tmp_path: Path, section: tuple[str, ...]) -> None:
    text = yaml.safe_dump(nested((*section, "nonsense"), 1))
    assert problem(tmp_path, text) == f"{'.'.join((*section, 'nonsense'))}: unknown key"


@pytest.mark.parametrize(
    ("kafka", "said"),
    [
        ({"client": {"nonsense": 1}}, "client.nonsense: kafka-python has no such setting"),
        ({"producer": {"group_id": "g"}}, "producer.group_id: kafka-python has no such setting"),
        ({"consumer": {"session_timeout_ms": [1]}}, "bus.kafka.consumer.session_timeout_ms"),
        ({"client": {"bootstrap_servers": "x"}}, "client.bootstrap_servers: cannot be set here"),
        ({"client": {"ssl_password": "x"}}, "client.ssl_password: secrets do not belong here"),
        ({"secrets": {"password": {"env": "X"}}}, "secrets.password: not one of sasl_plain_password"),
        ({"secrets": {"token": {}}}, "bus.kafka.secrets.token: give either env or file"),
        ({"secrets": {"token": {"env": "X", "file": "y"}}}, "bus.kafka.secrets.token: give either env or file"),
    ],
)  # fmt: skip
def test_settings_of_kafka_that_cannot_be_are_named(
    tmp_path: Path, kafka: dict[str, object], said: str
) -> None:
    assert said in problem(tmp_path, yaml.safe_dump({"bus": {"kafka": kafka}}))


@pytest.mark.parametrize("url", ["kafka://", "127.0.0.1:9092", "kafka://a b", "kafka://a,", "http://a"])
def test_an_address_that_is_none_of_kafka_is_named(tmp_path: Path, url: str) -> None:
    assert "bus.url" in problem(tmp_path, yaml.safe_dump({"bus": {"url": url}}))


@pytest.mark.parametrize("leaf", LEAVES, ids=".".join)
def test_a_value_of_a_wrong_type_is_named_with_its_key(tmp_path: Path, leaf: tuple[str, ...]) -> None:
    said = problem(tmp_path, yaml.safe_dump(nested(leaf, {"a": 1})))
    assert ".".join(leaf) in said


@pytest.mark.parametrize("leaf", LEAVES, ids=".".join)
@pytest.mark.parametrize("value", [True, "4", 4.5, [True], [[1]], float("nan"), -1, 2**70, "", "\x00"])
def test_no_value_is_silently_replaced(tmp_path: Path, leaf: tuple[str, ...], value: Any) -> None:
    text = yaml.safe_dump(nested(leaf, value), allow_unicode=True)
    refused = None
    try:
        kept = yaml.safe_load(show(loaded(tmp_path, text)))
    except ConfigError as error:
        refused = str(error)
    if refused is not None:
        assert leaf[-1].split("_")[0].rstrip("s") in refused
        return
    kept = at(kept, leaf)
    assert kept == value
    assert type(kept) is type(value) or (type(kept), type(value)) == (float, int)


@pytest.mark.parametrize("section", [s for s in SECTIONS if s], ids=".".join)
@pytest.mark.parametrize("value", [5, "x", [1], True])
def test_a_section_that_is_no_mapping_is_named(tmp_path: Path, section: tuple[str, ...], value: Any) -> None:
    assert ".".join(section) in problem(tmp_path, yaml.safe_dump(nested(section, value)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bus: {partitions: 0}", "bus.partitions 0: Input should be greater than or equal to 1"),
        ("bus: {partitions: 1025}", "bus.partitions 1025: Input should be less than or equal to 1024"),
        ("bus: {partitions: '4'}", "bus.partitions '4': Input should be a valid integer"),
        ("bus: {partitions: true}", "bus.partitions True: Input should be a valid integer"),
        ("bus: {partitions: 4.0}", "bus.partitions 4.0: Input should be a valid integer"),
        ("sensor: {name: a b}", "sensor.name 'a b': String should match pattern '^[A-Za-z0-9._-]+$'"),
        ("metrics: {port: 65536}", "metrics.port 65536: Input should be less than or equal to 65535"),
        ("labels: {slice: [task, task]}", "labels.slice: task is listed twice"),
        ("labels: {slice: [model]}", "labels.slice: model is already a label of the metrics: rename"),
        ("labels: {slice: [a-b]}", "labels.slice.0 'a-b': String should match pattern '^[A-Za-z][A-Za-z0-9_]*$'"),
        ("labels: {slice: task}", "labels.slice 'task': Input should be a valid array"),
        ("kitsune: {scorer: {aggregate: median}}", "kitsune.scorer.aggregate 'median': Input should be"),
        ("kitsune: {kitnet: {features: 40}}", "kitsune.kitnet.features 40 must be 20 for each of the 5"),
        ("kitsune: {threshold: {false_positive_rate: .nan}}", "kitsune.threshold: false_positive_rate nan must"),
        ("decode: {tunnels: [gre, carrier]}", "decode: tunnels ['carrier'] must be among"),
        ("- 1", "a mapping of sections is expected, found list"),
        ("5", "a mapping of sections is expected, found int"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_key_and_bound(tmp_path: Path, text: str, said: str) -> None:
    assert problem(tmp_path, text).startswith(said)


def test_all_wrong_values_are_named_at_once(tmp_path: Path) -> None:
    said = problem(tmp_path, "bus: {partitions: 0, queue_blocks: 0}\nsensor: {epoch: -1}")
    assert [word in said for word in ("bus.partitions 0", "bus.queue_blocks 0", "sensor.epoch -1")] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bus:\n  partitions: [1\n", "line 3, column 1: "),
        ("bus:\n\tpartitions: 1\n", "line 2, column 1: found character '\\t'"),
        ("bus:\n  partitions: 1\n  partitions: 2\n", "line 3, column 3: the key partitions is given twice"),
        ("bus: {}\nsensor: {}\nbus: {}\n", "line 3, column 1: the key bus is given twice"),
        ("1: 2", "line 1, column 1: a key that is not text"),
        ("? [a]\n: 2", "line 1, column 3: a key that is not text"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: could not determine a constructor"),
        ("a: *b", "line 1, column 4: aliases are not allowed"),
        ("\x00", "unacceptable character #x0000"),
        ("[" * 5_000, "nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert problem(tmp_path, text).startswith(said)


@pytest.mark.parametrize("section", [s for s in SECTIONS if s], ids=".".join)
@pytest.mark.parametrize("empty", ["", "~", "null", "\n# all of it\n# commented out\n"])
def test_an_empty_section_is_one_of_defaults_at_every_level(
    tmp_path: Path, section: tuple[str, ...], empty: str
) -> None:
    text = "\n".join("  " * k + f"{key}:" for k, key in enumerate(section)) + f" {empty}"
    assert loaded(tmp_path, text) == Config()


def test_empty_sections_of_models_are_of_defaults_or_inherited(tmp_path: Path) -> None:
    assert loaded(tmp_path, "models:\n  # none\n") == Config()
    text = "kitsune: {kitnet: {seed: 7}}\nmodels:\n  one:\n    kind: kitsune\n    kitnet:\n    scorer: ~\n"
    section = loaded(tmp_path, text).models["one"].section()
    assert section.kitnet.seed == 7
    assert section.scorer == Config().kitsune.scorer
    assert problem(tmp_path, "models:\n  one:\n") == (
        "models.one.kind: no kind is given; there are " + ", ".join(sorted(KINDS))
    )
    assert "features" in problem(tmp_path, "models: {one: {kind: kitsune, features: 5}}")
    assert "seed" in problem(tmp_path, "models: {one: {kind: kitsune, kitnet: {seed: ~}}}")


@pytest.mark.parametrize("name", ["client", "producer", "consumer", "secrets"])
def test_empty_names_of_kafka_are_none(tmp_path: Path, name: str) -> None:
    assert loaded(tmp_path, f"bus:\n  kafka:\n    {name}:\n") == Config()


def test_a_value_that_is_no_section_is_not_replaced_when_it_is_null(tmp_path: Path) -> None:
    assert "bus.partitions" in problem(tmp_path, "bus: {partitions: }")
    assert "labels.slice" in problem(tmp_path, "labels:\n  slice:\n    # - task\n")
    assert loaded(tmp_path, "privacy: {pseudonym_key: ~}\nsensor: {epoch: ~}") == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics:\n  port: 010\n", "line 2, column 9: metrics.port: 010 means different things"),
        ("connections:\n  tcp_timeout: 5:00\n", "line 2, column 16: connections.tcp_timeout: 5:00 means"),
        ("capture:\n  promiscuous: yes\n", "line 2, column 16: capture.promiscuous: yes means"),
        ("bus: {kafka: {client: {api_version_auto: off}}}", "line 1, column 42: bus.kafka.client.api_version_auto"),
        ("connections: {tcp_server_ports: [80, 0443]}", "line 1, column 38: connections.tcp_server_ports: 0443"),
        ("bus: {block_packets: 16_384}", "line 1, column 22: bus.block_packets: 16_384 means"),
        ("models: {one: {kind: kitsune, kitnet: {seed: 0b11}}}", "line 1, column 46: models.one.kitnet.seed: 0b11"),
    ],
)  # fmt: skip
def test_a_word_whose_meaning_changed_between_versions_of_yaml_is_named(
    tmp_path: Path, text: str, said: str
) -> None:
    assert problem(tmp_path, text).startswith(said)


def test_a_boolean_must_be_true_or_false(tmp_path: Path) -> None:
    assert loaded(tmp_path, "capture: {promiscuous: False}").capture.promiscuous is False
    said = problem(tmp_path, "capture: {promiscuous: 'yes'}")
    assert said == "capture.promiscuous 'yes': Input should be a valid boolean: true or false"


@given(
    name=st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True) | st.sampled_from(["1e3", "0o7", "089", "no"])
)
def test_any_name_is_shown_so_that_it_is_read_back(name: str) -> None:
    config = parse({"sensor": {"name": name}}, "here")
    assert parse(read_yaml(show(config).encode()), "here") == config


def test_what_is_shown_in_ascii_is_read_back(tmp_path: Path) -> None:
    config = parse({"output": {"directory": "größe/日本"}}, "here")
    text = show(config, unicode=False)
    assert text.isascii()
    assert loaded(tmp_path, text) == config


def test_a_date_is_a_text_like_any_other(tmp_path: Path) -> None:
    assert loaded(tmp_path, "sensor: {name: 2024-01-31}").sensor.name == "2024-01-31"


def test_what_is_not_utf_8_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"sensor: {name: \xff}")
    with pytest.raises(ConfigError, match="byte 15: not UTF-8"):
        load(tmp_path / "w.yaml")


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "w.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=f"larger than the {MAX_FILE} bytes"):
        load(tmp_path / "w.yaml")
    with pytest.raises(ConfigError, match=f"larger than the {MAX_FILE} bytes"):
        load(Path("/dev/zero"))


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    text = "bus: {partitions: 2}\n#"
    assert loaded(tmp_path, text + "x" * (MAX_FILE - len(text))).bus.partitions == 2


def test_small_files_that_mean_huge_ones_end_at_once(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 16))
    assert "aliases are not allowed" in problem(tmp_path, bomb)


def test_a_file_that_is_not_there_or_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: No such file or directory"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        load(tmp_path)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from([*DEFAULTS, "features", "x"])


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


@given(data=st.recursive(scalars, larger))
def test_any_data_gives_a_config_or_one_line(data: Any) -> None:
    said = "here: "
    try:
        parse(data, "here")
    except ConfigError as error:
        said = str(error)
    assert said.startswith("here: ")
    assert "\n" not in said


def test_replaced_values_are_checked_and_named_by_their_place() -> None:
    config = replace(
        Config(), "command line", {"bus.partitions": 3, "output.directory": "out", "metrics.port": None}
    )
    assert (config.bus.partitions, config.output.directory, config.metrics.port) == (3, Path("out"), None)
    with pytest.raises(ConfigError, match=r"command line: bus\.partitions -1: "):
        replace(Config(), "command line", {"bus.partitions": -1})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().bus.partitions = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().connections.capacity = 2  # type: ignore[misc]


def sections(model: type) -> list[type]:
    """A section and all the sections in it."""
    kinds = [f.annotation for f in model.model_fields.values()] if issubclass(model, BaseModel) else []
    return [model] + [
        s
        for kind in kinds
        if inspect.isclass(kind) and paths(getattr(kind(), "__dict__", 0))
        for s in sections(kind)
    ]


@pytest.mark.parametrize("section", sections(Config), ids=lambda s: s.__name__)
def test_every_value_has_a_default_and_says_what_it_means(section: type) -> None:
    assert section.__doc__
    if not issubclass(section, BaseModel):  # a dataclass of another room, whose comments say it
        assert all(
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(cast(Any, section))
        )
        return
    for name, info in section.model_fields.items():
        assert not info.is_required()
        in_section = dataclasses.is_dataclass(info.default) or isinstance(info.default, BaseModel)
        assert in_section or info.description, f"{name} has no description"
