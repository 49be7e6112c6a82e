"""YAML of the core schema: what is read as what, and what is refused."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.files.yaml_core import MOST_DIGITS, YamlError, read_yaml, yaml_text


def read(text: str, **options: Any) -> Any:
    return read_yaml(text.encode(), **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None), ("nUll", "nUll"),
        ("true", True), ("FALSE", False), ("tRue", "tRue"), ("y", "y"), ("n", "n"),
        ("0", 0), ("-12", -12), ("+7", 7), ("0o17", 15), ("0x1F", 31), ("0X1F", "0X1F"), ("1 2", "1 2"),
        ("1.", 1.0), (".5", 0.5), ("-1.5e-3", -0.0015), ("1e3", 1000.0), ("1E+3", 1000.0), ("-.Inf", -math.inf),
        (".", "."), ("e3", "e3"), ("1e", "1e"), ("'010'", "010"), ('"yes"', "yes"), ("'5:00'", "5:00"),
        ("2024-01-31", "2024-01-31"), ("2024-01-31 12:30:00", "2024-01-31 12:30:00"), ("<<", "<<"), ("=", "="),
        ("a:1", "a:1"), ("127.0.0.1:9092", "127.0.0.1:9092"), ("::1", "::1"), ("a_1", "a_1"), ("_", "_"),
        ("|\n  010\n", "010\n"), ("1.2.3", "1.2.3"), ("1_a", "1_a"), ("a_0x1", "a_0x1"),
        ("00ff", "00ff"), ("[1, a, ~]", [1, "a", None]),
    ],
)  # fmt: skip
def test_a_word_is_what_the_core_schema_says(text: str, value: Any) -> None:
    found = read(text)
    assert (found, type(found)) == (value, type(value))


def test_not_a_number_is_one() -> None:
    assert math.isnan(read(".nan"))


@pytest.mark.parametrize(
    "word",
    [
        "yes", "No", "ON", "off", "010", "-07", "00", "089", "0_7", "0b11", "-0x1f", "5:00", "-1:30", "190:20:30.15",
        "10:59:59", "1_000", "1_000.5", "0x_ff", "1_0e3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["{}", "a: {}", "a: [1, {}]", "a: {{b: {}}}", "a:\n  b:\n  - c: {}"])
def test_a_word_that_yaml_1_1_reads_otherwise_is_refused_with_its_place(word: str, text: str) -> None:
    with pytest.raises(
        YamlError, match=r"line \d+, column \d+: .*means different things in YAML 1.1 and 1.2"
    ):
        read(text.format(word))


def test_the_keys_of_a_refused_word_are_named() -> None:
    with pytest.raises(
        YamlError, match=r"line 3, column 7: a\.b\.c: yes means .*: write true or false, or quote"
    ):
        read("a:\n  b:\n   c: yes\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!int 1.5", "1.5: not a value of type int"),
        ("!!bool maybe", "maybe: not a value of type bool"),
        ("!!float x", "x: not a value of type float"),
        ("!!timestamp 2024-01-31", "could not determine a constructor for the tag"),
        ("!!set {a}", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("no: 1", "a key that is not text"),
        ("010: 1", "a key that is not text"),
        ("9" * (MOST_DIGITS + 1), "not a value of type int"),
        ("<<: {a: 1}\n<<: {b: 1}", "the key << is given twice"),
    ],
)
def test_what_is_not_of_the_core_schema_is_refused(text: str, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        read(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_aliases_and_merge_keys_are_taken_where_asked_for() -> None:
    text = "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]"
    assert read(text, aliases=True) == {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": [{"b": 1}, {"b": 1}]}
    with pytest.raises(YamlError, match="aliases are not allowed"):
        read(text)


def test_nodes_that_aliases_repeat_are_checked_once() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
    began = time.monotonic()
    read(bomb, aliases=True)
    assert time.monotonic() - began < 30  # each of 2^40 paths would take years


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", ".5e1", "1.", "nan", "089", "010", "no", "5:00", "1_0e3", "0b1", "~", "TRUE"]
)
def test_a_text_that_is_another_word_in_either_version_is_quoted(text: str) -> None:
    assert read(yaml_text({"a": [text]})) == {"a": [text]}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"[-+0-9_:.e]+"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(data=plain, unicode=st.booleans())
def test_what_is_written_is_read_back(data: Any, unicode: bool) -> None:
    assert read(yaml_text(data, unicode)) == data
