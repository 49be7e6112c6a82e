"""The configuration: one YAML file, checked once, at the edge.

Sections of kernels and models are frozen dataclasses of their own rooms; pydantic builds and checks them in place.
An invalid value stops the start with an error that names its key; no value is ever replaced by a default or converted
to another type.
"""

from __future__ import annotations

import json
import operator
import re
from dataclasses import MISSING, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from connectors.files.yaml_core import YamlError, read_yaml, yaml_text
from connectors.live.settings import CaptureSettings
from engine.connections.bounds import TrackerConfig
from engine.errors import ConfigError, InputError
from engine.headers.decode import DecodeConfig
from engine.scoring.kind import Kind
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KitsuneSection

MAX_FILE = 1 << 20  # most bytes of a configuration file


def _forbid(section: Any) -> None:
    """Make unknown keys errors in a dataclass and those nested in it; their rooms need not import pydantic."""
    setattr(section, "__pydantic_config__", ConfigDict(extra="forbid"))  # noqa: B010
    for kind in get_type_hints(section).values():
        if is_dataclass(kind):
            _forbid(kind)


for _section in (CaptureSettings, TrackerConfig, DecodeConfig, *(kind.section for kind in KINDS.values())):
    _forbid(_section)


class Section(BaseModel):
    """Rules of every section: unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SensorSection(Section):
    """Identity of the sensor that publishes."""

    name: str = Field(
        "wiresonde",
        max_length=63,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="name of the sensor in metrics and alerts",
    )
    epoch: int | None = Field(
        None, ge=0, le=(1 << 62) - 1,
        description="number of this run of the sensor; none: derived from the captures, so that a capture "
        "published again is recognised; for a tap, the time of its start",
    )  # fmt: skip


def _not_empty(value: Any) -> Any:
    if value == "":  # Path would turn it into the current directory
        raise ValueError("a path cannot be empty")
    return value


FilePath = Annotated[Path, BeforeValidator(_not_empty), PlainSerializer(str)]


class SecretSection(Section):
    """Place of a secret: an environment variable or a file."""

    env: str | None = Field(
        None, min_length=1, description="name of the environment variable with the secret"
    )
    file: FilePath | None = Field(
        None, description="path of the file with the secret, read at each connection"
    )

    @model_validator(mode="after")
    def _is_one(self) -> SecretSection:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self


class SpillSection(Section):
    """Room for a tap's packets while Kafka is unavailable; when it is full, the oldest are dropped."""

    memory_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        le=1 << 36,
        description="most bytes of packets held in memory while Kafka is unavailable",
    )
    directory: FilePath | None = Field(
        None, description="directory for packets beyond that, kept across restarts; none: memory only"
    )
    disk_bytes: int = Field(
        1 << 30, ge=1 << 20, le=1 << 44, description="most bytes of packets held in that directory"
    )
    stop_seconds: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="most seconds at the end to publish waiting packets; the rest stays in the directory",
    )


class PrivacySection(Section):
    """What a sensor hides, and the privileges that it gives up."""

    pseudonym_key: SecretSection | None = Field(
        None,
        description="key of 32 bytes (64 hex digits) that hides addresses but keeps prefixes (Crypto-PAn): env or file",
    )
    user: str | None = Field(
        None, min_length=1, description="user that a tap started as root becomes once it is open"
    )


ClientValue = str | int | float | bool | None


class KafkaSection(Section):
    """Apache Kafka. ``client``, ``producer`` and ``consumer`` take any setting of kafka-python."""

    prefix: str = Field(
        "", max_length=200, pattern=r"^[A-Za-z0-9._-]*$", description="prefix of the names of all topics"
    )
    block_packets: int = Field(4096, ge=1, le=8192, description="packets in a message")
    in_flight_bytes: int = Field(
        32 << 20, ge=1 << 20, le=1 << 32, description="most unacknowledged bytes before publishing waits"
    )
    client: dict[str, ClientValue] = Field(
        {}, description="settings of every client, such as security_protocol"
    )
    producer: dict[str, ClientValue] = Field(
        {}, description="settings of producers, such as delivery_timeout_ms"
    )
    consumer: dict[str, ClientValue] = Field(
        {}, description="settings of consumers, such as session_timeout_ms"
    )
    secrets: dict[str, SecretSection] = Field(
        {}, description="sasl_plain_password, ssl_password or token (OAUTHBEARER): env or file"
    )

    @model_validator(mode="after")
    def _are_known(self) -> KafkaSection:
        if self.client or self.producer or self.consumer or self.secrets:
            from connectors.bus.kafka_client import check_settings

            check_settings(self.client, self.producer, self.consumer, self.secrets)
        return self


class DetectSection(Section):
    """A detector on Kafka. All values are seconds of real time."""

    snapshot_seconds: float = Field(
        60.0, gt=0, le=86400, description="seconds between snapshots of a partition"
    )
    flush_seconds: float = Field(
        1.0, gt=0, le=3600, description="most seconds that rows wait before they go to the sinks"
    )
    alive_seconds: float = Field(120.0, gt=0, description="seconds without progress before /healthz fails")


class BusSection(Section):
    """The bus that carries packets: the embedded one, or Kafka."""

    url: str | None = Field(
        None,
        pattern=r"^kafka://[^/\s,]+(,[^/\s,]+)*$",
        description="address of Kafka, kafka://HOST:PORT,…; none: the embedded bus",
    )

    partitions: int = Field(
        1, ge=1, le=1024, description="number of partitions of the embedded bus; Kitsune is exact with 1"
    )
    block_packets: int = Field(16384, ge=1, le=65536, description="packets in a message")
    queue_blocks: int = Field(
        32, ge=1, le=4096, description="most messages that a partition holds before publishing waits"
    )
    kafka: KafkaSection = KafkaSection()


class ModelEntry(Section):
    """A model; subclasses add the values of its kind's section."""

    kind: str = Field(..., description="kind of the model")
    shadow: bool = Field(
        False,
        description="whether the model only watches: its rows show what would alarm, but it raises no alerts",
    )

    def section(self) -> Any:
        """The values as the section of the model's kind."""
        kind = KINDS[self.kind].section
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})

    @model_validator(mode="after")
    def _fits_together(self) -> ModelEntry:
        if self.kind in KINDS:
            self.section()
        return self


def _entry_of(kind: Kind) -> type[ModelEntry]:
    hints = get_type_hints(kind.section)
    values: dict[str, Any] = {f.name: (hints[f.name], _default(f)) for f in fields(kind.section)}
    values["kind"] = (Literal[kind.name], ...)
    return create_model(f"{kind.name}Entry", __base__=ModelEntry, **values)


def _default(f: Any) -> Any:
    return f.default if f.default is not MISSING else Field(default_factory=f.default_factory)


if TYPE_CHECKING:
    AnyEntry = ModelEntry
else:
    _entries = [_entry_of(kind) for kind in KINDS.values()]
    AnyEntry = _entries[0]
    if len(_entries) > 1:  # pydantic takes a discriminator for a choice only
        AnyEntry = Annotated[reduce(operator.or_, _entries), Field(discriminator="kind")]

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


SliceName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # label name that Prometheus allows


class LabelsSection(Section):
    """Limits of probe labels, and those that become labels of metrics."""

    slice: tuple[SliceName, ...] = Field(
        (), max_length=6, description="names of the labels that become labels of metrics"
    )
    max_values: int = Field(
        32, ge=1, le=1024, description="most values of a label in metrics; the rest count as other"
    )
    max_probes: int = Field(65536, ge=1, le=1 << 24, description="most distinct label combinations accepted")

    @field_validator("slice")
    @classmethod
    def _are_free(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for k, name in enumerate(names):
            if name in ("model", "version", "le"):
                raise ValueError(f"{name} is already a label of the metrics: rename the probe label")
            if name in names[:k]:
                raise ValueError(f"{name} is listed twice")
        return names


class MetricsSection(Section):
    """The /metrics endpoint."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: all")
    port: int | None = Field(
        None, ge=0, le=65535, description="port to listen on; none: no endpoint; 0: any free port"
    )


class OutputSection(Section):
    """Files for scores and alerts."""

    directory: FilePath | None = Field(None, description="directory for scores and alerts; none: no files")
    flush_connections: int = Field(
        8192, ge=1, le=1 << 20, description="number of connections kept before they are written"
    )


class Config(Section):
    """The complete configuration."""

    sensor: SensorSection = SensorSection()
    capture: CaptureSettings = CaptureSettings()
    spill: SpillSection = SpillSection()
    privacy: PrivacySection = PrivacySection()
    decode: DecodeConfig = DecodeConfig()
    connections: TrackerConfig = TrackerConfig()
    kitsune: KitsuneSection = KitsuneSection()
    models: dict[ModelName, AnyEntry] = Field(
        {},
        max_length=16,
        description="models by name, each with its kind, whether it is a shadow, and the values of its kind; "
        "none: kitsune alone. A model of kind kitsune inherits the section kitsune where it sets nothing",
    )
    bus: BusSection = BusSection()
    labels: LabelsSection = LabelsSection()
    detect: DetectSection = DetectSection()
    metrics: MetricsSection = MetricsSection()
    output: OutputSection = OutputSection()

    @field_validator("models")
    @classmethod
    def _are_named_apart(cls, models: dict[str, ModelEntry]) -> dict[str, ModelEntry]:
        for name, entry in models.items():
            if name in KINDS and name != entry.kind:
                raise ValueError(
                    f"a model of kind {entry.kind} cannot be named {name}, which is another kind"
                )
        return models


def _filled(hint: Any, data: Any) -> Any:
    """Plain data in which a section that is null, since all in it is commented out, is one of defaults.

    hint: type of the value.
    """
    if get_origin(hint) is dict:
        inner = dict.fromkeys(data, get_args(hint)[1]) if isinstance(data, dict) else {}
    elif hint == AnyEntry:
        kind = data.get("kind") if isinstance(data, dict) else None
        inner = get_type_hints(KINDS[kind].section) if isinstance(kind, str) and kind in KINDS else {}
    elif is_dataclass(hint):
        inner = get_type_hints(hint)
    elif isinstance(hint, type) and issubclass(hint, Section):
        inner = {name: info.annotation for name, info in hint.model_fields.items()}
    else:
        return data
    if data is None:
        return {}
    if not isinstance(data, dict):
        return data
    return {key: _filled(inner.get(key), value) for key, value in data.items()}


def _inherited(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data in which models of kind kitsune inherit the section kitsune where they set nothing."""
    if not isinstance(data.get("models"), dict):
        return data
    base = data.get("kitsune")
    models = {
        name: _merged(base, entry) if isinstance(entry, dict) and entry.get("kind") == "kitsune" else entry
        for name, entry in data["models"].items()
    }
    return {**data, "models": models}


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def with_learning(config: Config, n: int) -> Config:
    """A configuration whose models learn and calibrate with n packets of each partition."""
    models = {}
    for name, entry in config.models.items():
        section = KINDS[entry.kind].learning(entry.section(), n)
        values = {f.name: getattr(section, f.name) for f in fields(section)}
        models[name] = entry.model_copy(update=values)
    kitsune = KINDS["kitsune"].learning(config.kitsune, n)
    return config.model_copy(update={"kitsune": kitsune, "models": models})


def parse(data: Any, where: str) -> Config:
    """The Config that plain data describe. Raises ConfigError naming ``where``, key, value and what is allowed."""
    data = _filled(Config, data)
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a mapping of sections is expected, found {type(data).__name__}")
    try:
        # as JSON, so that strict types still take a list as a tuple and a text as a path
        text = json.dumps(_inherited(data), ensure_ascii=False)
        text.encode()
        return Config.model_validate_json(text, strict=True)
    except UnicodeEncodeError as error:
        odd = error.object[: error.end].rpartition('"')[2]
        raise ConfigError(f"{where}: {odd!r} is not UTF-8") from None
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{where}: {error}") from None
        raise ConfigError("; ".join(_problem(e, where) for e in error.errors())) from None


_PATH = re.compile(r"[a-z_]+\.[a-z_.]+ ")


def _problem(error: Any, where: str) -> str:
    parts = [str(part) for part in error["loc"]]
    if parts[:1] == ["models"] and len(parts) > 2 and parts[2] in KINDS:
        del parts[2]  # pydantic inserts the name of the kind
    key = ".".join(part for part in parts if part != "[key]") or "configuration"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: {key}: unknown key"
    if error["type"].startswith("union_tag"):
        shown = error["input"].get("kind") if isinstance(error["input"], dict) else None
        given = "no kind is given" if shown is None else f"no kind {shown!r}"
        return f"{where}: {key}.kind: {given}; there are {', '.join(sorted(KINDS))}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"].startswith("bool"):
        message += ": true or false"
    if _PATH.match(message):  # a dataclass names a value of a nested one
        return f"{where}: {key}.{message}"
    shown = error.get("input") if error["type"] != "json_invalid" else None
    value = f" {shown!r}" if isinstance(shown, str | int | float | bool) else ""
    return f"{where}: {key}{value}: {message}"


def load(path: Path | None) -> Config:
    """The Config of a YAML file, or all defaults without one. The file, or pipe, is read once."""
    if path is None:
        return Config()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_FILE:
        raise ConfigError(f"{path}: larger than the {MAX_FILE} bytes that a configuration may have")
    try:
        data = read_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse(data, str(path))


def replace(config: Config, where: str, changes: dict[str, Any]) -> Config:
    """A configuration with the values of dotted keys changed, checked again. None leaves a value as it is."""
    data = config.model_dump()
    for key, value in changes.items():
        if value is None:
            continue
        section = data
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    return parse(data, where)


def show(config: Config, unicode: bool = True) -> str:
    """The complete configuration as YAML, defaults included; without ``unicode``, in ASCII with escapes."""
    return yaml_text(config.model_dump(mode="json"), unicode)
