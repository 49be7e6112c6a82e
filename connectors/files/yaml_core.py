"""YAML 1.2's core schema (yaml.org/spec/1.2.2, 10.3.2), without surprises, from and to plain data.

PyYAML reads YAML 1.1, where 010 is 8, 5:00 is 300, 1_000 is 1000, and yes and off are booleans. Such words, which would
change their meaning with the version, are refused unless quoted. So are aliases (a few lines of them can expand to
billions of values), keys given twice, keys that are not text, and tags of other types. A date is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
MOST_DIGITS = 4000  # most digits of a number; Python refuses to convert more than 4,300


class YamlError(Exception):
    """Not YAML, or not of the core schema. The message names the line and column, and the key where one is at fault."""


def read_yaml(data: bytes, aliases: bool = False) -> Any:
    """The document in UTF-8 text, None if it is empty. Raises YamlError.

    aliases: takes aliases and merge keys (<<) too, for files that the user wrote for this machine.
    """
    try:
        return yaml.load(data.decode(), Loader=_Aliases if aliases else _Loader)
    except UnicodeDecodeError as error:
        raise YamlError(f"byte {error.start}: not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlError(f"{at}{problem}") from None
    except RecursionError:
        raise YamlError("nested too deeply") from None


def yaml_text(data: Any, unicode: bool = True) -> str:
    """Plain data as YAML that ``read_yaml`` reads back, a list on a line; without ``unicode``, in ASCII."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=100)
    return text


# words that mean something else in YAML 1.1: pattern, and what to write instead
OTHERWISE = (
    (re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF"), "write true or false"),
    (re.compile(r"[-+]?0[0-9_]+|[-+]?0b[01_]+|[-+]0x[0-9a-fA-F_]+"), "write a decimal number without zeros before it"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "write a decimal number without colons"),
    (re.compile(r"[-+]?[0-9][0-9.]*_[0-9_.]*([eE][-+]?[0-9]+)?|[-+]?0x[0-9a-fA-F]*_[0-9a-fA-F_]*"),
     "write a number without underscores"),
)  # fmt: skip


def _problem(node: yaml.Node) -> str | None:
    """What to write instead of a word, None if it means the same in all versions."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return None
    return next((instead for pattern, instead in OTHERWISE if pattern.fullmatch(node.value)), None)


class _Loader(yaml.SafeLoader):
    """Reads what ``read_yaml`` describes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node. Raises ComposerError for an alias."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        """The data of a document. Raises ConstructorError."""
        _check(node, (), set())
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node; keys that are not text or appear twice are errors."""
        seen = set()
        for key, _ in node.value:
            if key.tag == MERGE:
                continue
            if key.tag != f"{TAG}str" or _problem(key):
                raise _error("a key that is not text: put it in quotes", key)
            if key.value in seen:
                raise _error(f"the key {key.value} is given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Aliases(_Loader):
    """Takes aliases and merge keys, too."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, or the one that an alias means."""
        node: yaml.Node | None = yaml.SafeLoader.compose_node(self, parent, index)
        return node


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and quotes a text that is a number or another word in either version."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence(f"{TAG}seq", items, flow_style=True)
)


def _check(node: yaml.Node, path: tuple[str, ...], seen: set[int]) -> None:
    """Raise ConstructorError for a value that is another one in YAML 1.1.

    path: keys of the node. seen: nodes that were checked, changed in place: aliases lead to a node again.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _check(value, (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "?"), seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check(value, path, seen)
    elif instead := _problem(node):
        key = f"{'.'.join(path)}: " if path else ""
        raise _error(
            f"{key}{node.value} means different things in YAML 1.1 and 1.2: {instead}, or quote a text", node
        )


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    word = text.lower()
    if word.endswith((".inf", ".nan")):
        return math.nan if word.endswith("nan") else -math.inf if word[0] == "-" else math.inf
    return float(text)


# type -> pattern, first characters, and the value of a text; in the order in which they are tried
CORE: Mapping[str, tuple[str, str, Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|", "~nN\0", lambda _: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _int),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        _float,
    ),
}


def _constructor(name: str, value_of: Callable[[str], Any], pattern: re.Pattern[str]) -> Callable[..., Any]:
    def construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        text = str(loader.construct_scalar(node))  # type: ignore[arg-type]
        try:
            if not pattern.fullmatch(text):
                raise ValueError
            return value_of(text)
        except ValueError:
            raise _error(f"{text[:40]}{'…' * (len(text) > 40)}: not a value of type {name}", node) from None

    return construct


def _set_up() -> None:
    plain = yaml.SafeLoader.yaml_constructors
    _Loader.yaml_constructors = {f"{TAG}{name}": plain[f"{TAG}{name}"] for name in ("str", "seq", "map")}
    _Loader.yaml_constructors[None] = plain[None]  # an error that names the tag
    _Loader.yaml_implicit_resolvers = {}
    for name, (pattern, first, value_of) in CORE.items():
        compiled = re.compile(rf"(?:{pattern})\Z", re.ASCII)
        characters = ["" if c == "\0" else c for c in first]
        _Loader.add_implicit_resolver(f"{TAG}{name}", compiled, characters)
        _Loader.add_constructor(f"{TAG}{name}", _constructor(name, value_of, compiled))
        _Dumper.add_implicit_resolver(f"{TAG}{name}", compiled, characters)
    for other, _ in OTHERWISE:
        words = re.compile(rf"(?:{other.pattern})\Z")
        _Dumper.add_implicit_resolver(f"{TAG}otherwise", words, list("-+0123456789_.yYnNoO"))
    _Aliases.yaml_implicit_resolvers = {
        **_Loader.yaml_implicit_resolvers,
        "<": [(MERGE, re.compile(r"<<\Z"))],
    }


_set_up()
