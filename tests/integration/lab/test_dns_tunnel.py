"""A tunnel through names, and the ordinary look-ups beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from probing.lab.services import tunnel_daemon
from probing.lab.services.tunnel_daemon import DOWN, NULL, TXT, UP, Piece, Server, carried, piece_in, question
from tests.support.lab import perform

BENIGN = {"long-names", "texts"}


@pytest.mark.lab
def test_bytes_cross_the_tunnel_in_spite_of_loss_and_look_ups_beside_it_are_ordinary(tmp_path: Path) -> None:
    entry = {"scenario": "dns-tunnel", "samples": 2, "users": 2, "link": {"delay_ms": 5, "loss_pct": 2},
             "parameters": {"content_bytes": 1500, "requests": 5, "pause_ms": 5}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 5
    for run in done:
        assert run.account["failed_samples"] == 0, run.account["problems"]
        for row, connection in run.joined():
            what = f"{run.run.id}: {row} {connection}"
            up, down, content = connection["orig_bytes"], connection["resp_bytes"], row["content_bytes"]
            assert (row["attack"], row["attack_kind"]) == (
                (0, "none") if row["activity"] in BENIGN else (1, "dns-tunnel")
            ), what
            assert (row["succeeded"], row["termination"], row["dport"]) == (True, "none", 53), what
            if row["activity"] == "upload":
                assert 1.6 * content < up < 4 * content, (
                    what
                )  # five bits a character, and the rest of the name
            elif row["activity"] == "download":
                assert content < down - up, what
            elif row["activity"] == "exchange":
                assert up + down > content, what
            else:
                assert row["packets_up"] >= 5, what


@pytest.mark.parametrize("size", [0, 1, UP - 1, UP])
def test_a_name_holds_its_bytes(size: int) -> None:
    piece = Piece("0a01", "up", 77, bytes(range(size)))
    name = piece.name()
    assert piece_in(name) == piece
    assert len(name) < 253
    assert all(0 < len(label) <= tunnel_daemon.LABEL for label in name.split("."))


@pytest.mark.parametrize(
    "name", ["www.lab.test", "x.t.lab.test", "a1!.up-00-0.t.lab.test", "up-00-zz.t.lab.test"]
)
def test_other_names_hold_nothing(name: str) -> None:
    assert piece_in(name) is None


@pytest.mark.parametrize("kind", [TXT, NULL])
def test_an_answer_holds_its_bytes_and_fits_into_a_datagram(tmp_path: Path, kind: int) -> None:
    content = bytes(range(256)) * 3
    (tmp_path / "0a01.down").write_bytes(content)
    server, got = Server(tmp_path), b""
    for number in range(len(content) // DOWN[kind] + 1):
        answer = server.answer(question(number, Piece("0a01", "down", number).name(), kind))
        assert len(answer) <= 512
        got += carried(answer)
    assert got == content


def test_a_name_that_is_not_of_the_tunnel_does_not_exist_in_its_zone(tmp_path: Path) -> None:
    answer = Server(tmp_path).answer(question(5, "x.t.lab.test", TXT))
    assert answer[3] & 15 == 3
    assert carried(answer) == b""
