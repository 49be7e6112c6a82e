"""Kernels are compiled before the first packet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
warm_up(config, chosen_models(config))
before = compiled()
summary = score(Job([Path("demo/demo.pcap.zst")], config))
assert summary.phase == "score" and summary.packets > 20_000, summary
print(sorted(f"{m}.{n}" for (m, n), k in compiled().items() if k != before[m, n] and m != "connectors.files.pcap"))
"""


@pytest.mark.compiled
def test_nothing_but_the_reading_of_a_file_is_compiled_after_warming_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() in ("[]", "['connectors.files.window.u16', 'connectors.files.window.u32']")
