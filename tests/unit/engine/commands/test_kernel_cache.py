"""A place for compiled kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine.commands.console import find_cache
from tests.support.demo import ROOT
from tests.support.disks import NOBODY, listing, open_folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Places that may be written: none at first. The folder for temporary files is tmp_path."""
    places: set[Path] = set()
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) in places)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/nobody")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "to be put back")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return places


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("home", ["/home/nobody", None])
def test_kernels_get_a_private_folder_where_nothing_else_can_be_written(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is None:
        monkeypatch.delenv("HOME")
    for _ in range(2):  # the second time it is there
        find_cache()
        place = Path(os.environ.pop("NUMBA_CACHE_DIR"))
        assert place == tmp_path / f"wiresonde-{os.getuid()}"
        assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", [ROOT / "engine", ROOT / "engine" / "__pycache__", Path("/home/nobody")])
def test_kernels_stay_where_numba_keeps_them_where_that_can_be_written(
    place: Path, nowhere: set[Path], tmp_path: Path
) -> None:
    nowhere.add(place)
    find_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("nowhere")
def test_a_place_for_kernels_that_is_given_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/given")
    find_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/given"
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("nowhere")
def test_a_folder_for_kernels_that_leads_elsewhere_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"wiresonde-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    find_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


@pytest.mark.usefixtures("nowhere")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
def test_a_folder_for_kernels_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / f"wiresonde-{os.getuid()}").mkdir()
    os.chown(tmp_path / f"wiresonde-{os.getuid()}", NOBODY, NOBODY)
    find_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may write nowhere")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
@pytest.mark.parametrize("user", [NOBODY, 54321], ids=["nobody", "a user without a name"])
def test_an_installation_that_cannot_be_written_runs_for_a_user_without_a_home(user: int) -> None:
    program = "from engine.commands.console import find_cache; find_cache(); "
    program += "import engine.clock; print(engine.clock.__file__)"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    with open_folder() as folder:
        for room in ("engine", "connectors"):
            shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tmp").mkdir()
        os.chown(folder / "tmp", user, user)
        os.chown(folder, 0, 0)
        environment = {"PYTHONPATH": str(folder), "TMPDIR": str(folder / "tmp"), "PATH": os.environ["PATH"]}
        if subprocess.run([*become, sys.executable, "-c", ""], env=environment, check=False).returncode:
            pytest.skip(f"another user cannot run {sys.executable}")
        line = [*become, sys.executable, "-c", program]
        done = subprocess.run(line, env=environment, cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{folder}/engine/clock.py\n"
        assert listing(folder / "tmp") == [f"wiresonde-{user}"]
