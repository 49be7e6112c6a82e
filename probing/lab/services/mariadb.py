"""MariaDB for the pages of a server host, reached through a socket file, so that the link carries nothing of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from probing.lab.errors import LabError
from probing.lab.session import Site, program_version

PROGRAMS = ("mariadbd", "mariadb-install-db")
_SIZES = ("--innodb-data-file-path=ibdata1:8M:autoextend", "--innodb-autoextend-increment=1",
          "--innodb-log-file-size=4M", "--innodb-undo-tablespaces=0", "--innodb-buffer-pool-size=16M")  # fmt: skip
# the data ends with the run, so nothing has to reach a disk
_QUICK = ("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite",
          "--innodb-use-native-aio=0", "--innodb-read-io-threads=1", "--innodb-write-io-threads=1",
          "--innodb-purge-threads=1", "--innodb-buffer-pool-load-at-startup=0", "--performance-schema=off",
          "--key-buffer-size=1M", "--aria-pagecache-buffer-size=8M")  # fmt: skip


def start(site: Site, name: str, statements: str) -> Path:
    """Start a database filled by statements, one a line; returns its socket. name: name of the statements' template."""
    template = site.template(f"mariadb-{name}", lambda place: _make(place, statements))
    shutil.copytree(template, site.folder / "database")
    place = site.folder / "mariadb.socket"
    argv = [*_server(site.folder / "database"), *_QUICK, f"--socket={place}", f"--pid-file={site.folder}/mariadb.pid",
            "--skip-networking", "--max-connections=300"]  # fmt: skip
    process = site.host.start(argv, log="mariadb")
    site.host.wait_until(place.exists, process, "mariadb")
    return place


def version() -> str:
    """The version of the program."""
    words = program_version("mariadbd", "--no-defaults", "--version").split()
    return words[words.index("Ver") + 1] if "Ver" in words else ""


def _server(data: Path) -> list[str]:
    return ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-log-bin", *_SIZES]


def _make(place: Path, statements: str) -> None:
    """Make a fresh data directory and fill it."""
    data = [f"--datadir={place}", "--no-defaults", "--user=root", "--auth-root-authentication-method=normal"]
    _run(["mariadb-install-db", *reversed(data), "--skip-test-db", "--skip-name-resolve", *_SIZES], "")
    _run([*_server(place), "--bootstrap"], statements)


def _run(argv: list[str], statements: str) -> None:
    done = subprocess.run(argv, input=statements, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or "ERROR" in done.stderr:
        raise LabError(f"{argv[0]}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
