"""Profiles of hypothesis: the default compiled one, and a thin one for plain kernels; who runs beside whom."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "compiled", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("plain", parent=settings.get_profile("compiled"), max_examples=5)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "compiled"))

PLAIN = os.environ.get("NUMBA_DISABLE_JIT") == "1"


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real broker: KAFKA_BOOTSTRAP, or one of our own; skips where none can be had."""
    from tests.support.broker import given_or_started

    with given_or_started(tmp_path_factory.mktemp("broker")) as address:
        yield address


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """As plain Python, leave out what only compiled kernels do in bearable time; with several workers, begin with the
    longest.
    """
    if PLAIN:
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(pytest.mark.skip(reason="needs compiled kernels"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith("tests/integration/"))  # what takes longest
