"""The table has a row a packet, and says what is not known."""

from __future__ import annotations

import json
import math

import pytest

from probing.trace.text import as_json, flags_text, lines
from tests.support.traced import marks, traced

KNOWN = traced(
    [(0, 74, 0, "new"), (20.5, -66, 0, "ack"), (30, 166, 100, "retransmitted"), (31, 166, 100, "new"),
     (40, -54, 0, "new")],
    marks=marks((10, "request")), verdict=["sent", "sent", "lost", "sent overtaken", "sent"],
    recovery=[False, False, True, True, False], labels={"loss_pct": "2"},
)  # fmt: skip


def test_the_table_is_as_expected() -> None:
    assert list(lines([KNOWN], "the note")) == [
        "CAAAAAAAAAAAAAAAA  10.0.0.1:40000 > 10.0.0.2:80 tcp  SF  x.pcap  loss_pct=2",
        "thresholds  m 0.35 (* above)",
        "  seconds  from  size  payload  flags  segment        recovery  link            phase         m",
        " 0.000000  orig    74        0  A      new                      sent            –        0.0000",
        " 0.020500  resp    66        0  A      ack                      sent            request       –",
        " 0.030000  orig   166      100  A      retransmitted  yes       lost            request  0.2000",
        " 0.031000  orig   166      100  A      new            yes       sent overtaken  request  0.3000",
        " 0.040000  resp    54        0  A      new                      sent            request  0.4000*",
        "",
        "the note",
    ]


def test_columns_of_which_nothing_is_known_are_left_out_and_null_in_json() -> None:
    bare = traced(thresholds={"m": math.nan})
    text = "\n".join(lines([bare], ""))
    assert "link" not in text
    assert "phase" not in text
    assert "*" not in text
    got = json.loads(json.dumps(as_json([bare], "time", "note")))["connections"][0]
    assert got["thresholds"] == {"m": None}
    assert [p["scores"]["m"] for p in got["packets"]][:4] == [0.0, 0.1, None, 0.3]
    assert {p["link"] for p in got["packets"]} == {p["phase"] for p in got["packets"]} == {None}


def test_packets_left_out_are_counted() -> None:
    assert any("1,234 later packets" in line for line in lines([traced(left_out=1234)], ""))


@pytest.mark.parametrize(("bits", "text"), [(0, "."), (2, "S"), (18, "SA"), (255, "FSRPAUEC")])
def test_flags_are_letters(bits: int, text: str) -> None:
    assert flags_text(bits) == text
