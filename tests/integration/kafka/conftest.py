"""A published log with what an undisturbed detector makes of it, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.consumer.segments import Merged
from tests.integration.kafka.site import Site


@pytest.fixture(scope="module")
def published(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Merged]]:
    """The demo in the topic, and the rows of one process that nothing happened to."""
    site = Site(kafka_address, tmp_path_factory.mktemp("published"))
    site.make_topics()
    site.replay()
    yield site, site.undisturbed()
    site.close()


@pytest.fixture
def site(published: tuple[Site, Merged], tmp_path: Path) -> Iterator[Site]:
    """The same log for a test of its own: another folder, and so another state."""
    mine = replace(published[0], folder=tmp_path)
    yield mine
    mine.close()


@pytest.fixture
def wanted(published: tuple[Site, Merged]) -> Merged:
    return published[1]


@pytest.fixture
def empty_site(kafka_address: str, tmp_path: Path) -> Iterator[Site]:
    """Topics of a test's own, with nothing in them."""
    mine = Site(kafka_address, tmp_path)
    mine.make_topics()
    yield mine
    mine.close()
