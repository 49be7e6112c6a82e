"""What the kernel's netem is told."""

from __future__ import annotations

import numpy as np
import pytest

from probing.lab import link_kernels as kernels
from probing.lab import netem
from probing.lab.errors import LabError
from probing.lab.link import Log
from probing.lab.relay_kernels import UNKNOWN
from probing.lab.settings import Link


@pytest.mark.parametrize(
    ("setting", "towards", "words"),
    [
        ({}, "client", "netem limit 10000"),
        ({"delay_ms": 10}, "server", "netem limit 10000 delay 10ms"),
        ({"delay_ms": 10, "jitter_ms": 2.5}, "client", "netem limit 10000 delay 10ms 2.5ms distribution normal"),
        ({"delay_ms": 10, "jitter_ms": 2, "distribution": "uniform"}, "client", "netem limit 10000 delay 10ms 2ms"),
        (
            {"delay_ms": 1, "loss_pct": 1, "corrupt_pct": 2, "duplicate_pct": 3, "reorder_pct": 4, "rate_kbit": 500,
             "queue_packets": 20},
            "client", "netem limit 20 delay 1ms loss 1% corrupt 2% duplicate 3% reorder 4% rate 500kbit",
        ),
        ({"delay_ms": 1, "loss_pct": 1, "impaired": "client"}, "server", "netem limit 10000 delay 1ms"),
        ({"delay_ms": 1, "loss_pct": 1, "impaired": "client"}, "client", "netem limit 10000 delay 1ms loss 1%"),
    ],
)  # fmt: skip
def test_a_setting_in_the_words_of_tc(setting: dict[str, object], towards: str, words: str) -> None:
    assert " ".join(netem.words(Link.model_validate(setting), towards)) == words


def test_what_netem_cannot_do_is_refused() -> None:
    with pytest.raises(LabError, match="keep_order"):
        netem.words(Link(delay_ms=1, jitter_ms=1, keep_order=True), "client")


def log(rows: list[tuple[int, int, int, int, int]]) -> Log:
    """Frames of one connection: (in, out, origin, target, length)."""
    records = np.zeros(len(rows), kernels.RECORD)
    for k, (came, left, origin, target, length) in enumerate(rows):
        records[k] = (came, came, left, 0, 0, length, -1 if origin == UNKNOWN else 0, origin, target, 0, 0)
        records[k]["verdict"] = kernels.COPY if origin == UNKNOWN else 0
    ports = np.zeros(2, kernels.PORT)
    ports["client"] = [0, 1]
    return Log(records, np.zeros(1, kernels.FLOW), np.zeros(2000, np.uint8), ports, 0, True)


@pytest.mark.compiled
def test_what_never_came_out_was_lost_and_what_came_out_changed_was_damaged() -> None:
    given = log([(1, 5, 0, 1, 100), (2, 0, 0, 1, 100), (3, 0, 0, 1, 200), (4, 6, UNKNOWN, 1, 200)])
    netem.settle(given)
    assert given.records["verdict"].tolist() == [0, kernels.LOST, kernels.CORRUPT, kernels.COPY]
    assert given.records["out_ts"].tolist() == [5, 0, 6, 0]
    assert given.records["origin"].max() == 0
    assert given.flows[0]["lost"].tolist() == [1, 0]
    assert given.flows[0]["corrupted"].tolist() == [1, 0]
