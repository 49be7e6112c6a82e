from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.replay import replay

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_files_found_by_the_fuzzer_are_read_without_a_crash(path: Path) -> None:
    frames = replay(path.read_bytes())
    assert frames >= 0


def test_the_corpus_exists_and_is_small() -> None:
    assert len(CORPUS) >= 10
    assert sum(path.stat().st_size for path in CORPUS) < 200_000
