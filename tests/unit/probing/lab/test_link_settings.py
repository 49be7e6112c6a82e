"""Settings of a link that are refused, and the labels and digests that follow from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog, labels, trace
from probing.lab.errors import LabError
from probing.lab.settings import Corpus, Entry, Link, Run


def refused(setting: dict[str, Any], message: str) -> None:
    """Check that a setting is refused in a line that says this."""
    with pytest.raises(LabError, match=message) as caught:
        catalog.check(setting, Link, "mine.yaml: link")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"reorder_pct": 5}, "reorder_pct needs delay_ms"),
        ({"burst_packets": 4}, "burst_packets needs burst_loss_pct"),
        ({"burst_loss_pct": 4}, "burst_loss_pct needs burst_packets"),
        ({"burst_loss_pct": 4, "burst_packets": 0.5}, "burst_packets 0.5 must be at least 1"),
        (
            {"burst_loss_pct": 80, "burst_packets": 3},
            "burst_loss_pct 80 must be at most 75 with burst_packets 3",
        ),
        ({"outage_ms": 4}, "outage_ms needs outage_every_ms"),
        ({"outage_every_ms": 4}, "outage_every_ms needs outage_ms"),
        ({"cross_kbit": 100}, "cross_kbit needs rate_kbit or delivery_trace"),
        ({"queue_discipline": "codel"}, "queue_discipline needs rate_kbit or delivery_trace"),
        ({"queue_discipline": "red"}, "queue_discipline: .*'drop-tail' or 'codel'"),
        ({"congestion_control": "snail"}, "congestion_control: the kernel has .*reno"),
        ({"mtu": 500}, "mtu: .*greater than or equal to 576"),
        ({"keep_order": True}, "keep_order: Extra inputs"),
        ({"delivery_trace": "/nowhere.trace"}, "delivery_trace: /nowhere.trace: No such file"),
    ],
)
def test_an_impossible_link_is_refused_by_the_names_of_its_keys(
    setting: dict[str, Any], message: str
) -> None:
    refused(setting, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nthree\n", r"bad\.trace: line 3: 'three' must be a whole number of ms"),
        ("1\n\n2\n", r"bad\.trace: line 2: '' must be"),
        ("5\n4\n", r"bad\.trace: line 2: 4 must not be less than the line before, 5"),
        ("", r"bad\.trace: a trace needs at least one line greater than 0"),
        ("0\n0\n", r"bad\.trace: a trace needs at least one line greater than 0"),
    ],
)
def test_a_bad_trace_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.trace"
    file.write_text(text)
    refused({"delivery_trace": str(file)}, message)


def test_a_trace_excludes_a_rate(tmp_path: Path) -> None:
    (tmp_path / "a.trace").write_text("1\n")
    refused(
        {"delivery_trace": str(tmp_path / "a.trace"), "rate_kbit": 1},
        "rate_kbit and delivery_trace exclude each other",
    )


def test_the_content_of_a_trace_is_part_of_a_run_and_its_name_is_the_label(tmp_path: Path) -> None:
    file = tmp_path / "tram.down.trace"

    def planned(text: str) -> Run:
        file.write_text(text)
        entry = Entry(scenario="http", server="nginx", client="curl", activity="get",
                      link={"delivery_trace": str(file)})  # fmt: skip
        (run,) = catalog.expand(Corpus(name="c", about="", runs=(entry,)))
        return run

    one, two = planned("1\n2\n"), planned("1\n2\n5\n")
    assert one.link == two.link
    assert one != two
    assert two.trace_digests == {str(file): trace.read(file).digest}
    assert Run.model_validate_json(two.model_dump_json()) == two
    with pytest.raises(ValueError, match=re.escape(f"{file}: changed since the run was planned")):
        Run.model_validate_json(one.model_dump_json())
    assert labels.link_labels(one.link)["delivery_trace"] == "tram.down"


def test_every_setting_of_a_link_is_a_label() -> None:
    assert set(labels.link_labels(Link())) <= set(labels.LABELS)
    assert len(Link.model_fields) >= 14


@pytest.mark.parametrize(("given", "word"), [(True, "on"), (False, "off"), ("on", "on")])
def test_offload_can_be_given_as_true_or_false(given: Any, word: str) -> None:
    assert Link.model_validate({"segmentation_offload": given}).segmentation_offload == word
