from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.replay import replay

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_the_fuzzer_reached_is_read_without_a_crash(path: Path) -> None:
    frames = replay(path.read_bytes())
    assert frames >= 0


def test_the_corpus_is_small_and_there() -> None:
    assert len(CORPUS) >= 10
    assert sum(path.stat().st_size for path in CORPUS) < 200_000
