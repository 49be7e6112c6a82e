"""Kernels are compiled before the first packet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.calls import called
from tests.support.demo import piece

ROOT = Path(__file__).parents[4]
CHECK = """
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from engine.commands.models import chosen_models
from engine.commands.score import Job, score
from engine.config import Config, replace
from engine.commands.warm import warm_up

def compiled():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("engine", "models", "connectors"):
            for kernel in vars(module).values():
                if isinstance(kernel, Dispatcher):
                    found[kernel.py_func.__module__, kernel.py_func.__name__] = len(kernel.signatures)
    return found

config = replace(Config(), "test", {"bus.partitions": 2, "kitsune.kitnet.map_samples": 500,
    "kitsune.kitnet.learn_samples": 2000, "kitsune.scorer.calibrate_packets": 1000})
models = chosen_models(config, sys.argv[1:])
warm_up(config, models)
before = compiled()
summary = score(Job([Path("demo/demo.pcap.zst")], config, models=models))
assert summary.phase == "score" and summary.packets > 20_000, summary
print(sorted(f"{m}.{n}" for (m, n), k in compiled().items() if k != before[m, n] and m != "connectors.files.pcap"))
"""


def after_warming_up(*bundles: Path) -> str:
    """Kernels that a process compiles after it has warmed up."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *map(str, bundles)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


READING = ("[]", "['connectors.files.window.u16', 'connectors.files.window.u32']")


@pytest.mark.compiled
def test_nothing_but_the_reading_of_a_file_is_compiled_after_warming_up() -> None:
    assert after_warming_up() in READING


@pytest.mark.compiled
def test_what_a_bundle_needs_is_compiled_too(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("kitsune: {kitnet: {precision: float64}}\n")
    capture = piece(tmp_path / "c.pcap", 3000)
    words = ("-c", tmp_path / "w.yaml", "-o", tmp_path / "m.bundle")
    assert called("train", "kitsune", capture, *words).exit_code == 0
    assert called("train", "baseline", capture, "-o", tmp_path / "b.bundle").exit_code == 0
    assert after_warming_up(tmp_path / "m.bundle", tmp_path / "b.bundle") in READING
