"""Profiles of hypothesis: the default compiled one, and a thin one for plain kernels; who runs beside whom."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "compiled", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("plain", parent=settings.get_profile("compiled"), max_examples=5)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "compiled"))

# Folders whose tests run one after the other, the longest first: they share a broker, or look for what is left on
# the machine. Files of other folders run beside them.
IN_TURN = ("tests/integration/lab", "tests/integration/kafka", "tests/integration/live")
PLAIN = os.environ.get("NUMBA_DISABLE_JIT") == "1"


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real broker: KAFKA_BOOTSTRAP, or one of our own; skips where none can be had."""
    from tests.broker import given_or_started

    with given_or_started(tmp_path_factory.mktemp("broker")) as address:
        yield address


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, as plain Python, what only compiled kernels do in bearable time; begin with the longest when several
    workers share the tests.
    """
    if PLAIN:
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(pytest.mark.skip(reason="needs compiled kernels"))
    if hasattr(config, "workerinput"):
        scopes = list(IN_TURN)
        items.sort(
            key=lambda item: (
                scopes.index(scope) if (scope := scope_of(item.nodeid)) in scopes else len(scopes)
            )
        )


def scope_of(nodeid: str) -> str:
    """What runs on one worker: a folder of IN_TURN, else a file."""
    return next((folder for folder in IN_TURN if nodeid.startswith(f"{folder}/")), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """How pytest-xdist hands the tests out."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return ByScope(config, log)
