"""A corpus in the making: several workers do its runs, finished runs are kept, and the end is one capture.

Meanwhile there is a folder ``NAME.runs`` with one folder for each finished run, which appears complete or not at all.
So a campaign can be stopped in any way at any time, and the same command continues it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from probing.lab import assemble, load
from probing.lab.errors import LabError
from probing.lab.run import How
from probing.lab.settings import Corpus, Run

logger = logging.getLogger(__name__)

TRIES = 2  # attempts at a run before it counts as failed
Progress = Callable[[int, int], None]  # called with the number of finished runs and of all runs


@dataclass
class Outcome:
    """How a campaign ended."""

    done: int = 0  # number of finished runs, earlier calls included
    made: int = 0  # number of runs finished in this call
    problems: dict[str, str] = field(default_factory=dict)  # reason of failure, by run
    interrupted: bool = False
    discarded: int = 0  # number of finished runs removed because they had other settings
    manifest: dict[str, Any] | None = None  # manifest of the corpus, when it is complete


class Worker:
    """A process that does runs (worker.py)."""

    def __init__(self, folder: Path, how: How) -> None:
        command = [sys.executable, "-m", "probing.lab.worker", folder, os.getpid(), *how]
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that an interrupt reaches the lab, which ends its workers
            cwd=Path(__file__).resolve().parent.parent.parent,
        )

    def do(self, run: Run) -> str:
        """Do a run; returns the reason of its failure, "" when it succeeded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(run.model_dump_json() + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (OSError, ValueError) as error:
            answer, problem = "", str(error)
        else:
            problem = "the worker process ended"
        return str(json.loads(answer)["problem"]) if answer else problem

    @property
    def alive(self) -> bool:
        """Whether the process can do another run."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process, and with it the run that it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close(stream)
        load.sweep(self._process.pid)


def _close(stream: IO[str]) -> None:
    try:
        stream.close()
    except OSError:
        logger.debug("the stream was closed already")


class Campaign:
    """A corpus to be made in a folder."""

    def __init__(self, corpus: Corpus, runs: Sequence[Run], out: Path, jobs: int, how: How) -> None:
        self.corpus, self.runs, self.out, self.jobs, self.how = corpus, list(runs), out.absolute(), jobs, how
        self.folder = self.out / f"{corpus.name}.runs"
        self._stop = threading.Event()
        self._workers: list[Worker] = []
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End soon; runs under way are abandoned."""
        self._stop.set()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.kill()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of this corpus's folder. Raises LabError when another process has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise LabError(f"{self.folder}: {error.strerror or error}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LabError(
                    f"{self.folder}: another process is making this corpus; wait for it, or choose another --out"
                ) from None
            yield

    def make(self, command: str, progress: Progress | None = None, *, keep: bool = False) -> Outcome:
        """Do the missing runs and assemble the corpus, unless it is complete already.

        command: command line for the manifest. keep: keep the folder of runs.
        """
        began = time.monotonic()
        with self._alone():
            if assemble.is_made(self.out, self.corpus.name, self.runs, self.how):
                self._remove(keep)
                return Outcome(
                    done=len(self.runs), manifest=assemble.read_manifest(self.out, self.corpus.name)
                )
            load.sweep()
            missing, outcome = self._missing()
            if progress is not None:
                progress(outcome.done, len(self.runs))
            try:
                self._work(missing, outcome, progress)
            finally:
                seconds = self._spent(time.monotonic() - began)
            if self._stop.is_set():
                outcome.interrupted = True
                outcome.done = sum(self._is_done(run) for run in self.runs)  # some ended without an answer
            elif not outcome.problems:
                made = assemble.Made(command, seconds, self.jobs)
                outcome.manifest = assemble.assemble(self.corpus, self.runs, self.folder, self.out, made)
                self._remove(keep)
        return outcome

    def _remove(self, keep: bool) -> None:
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spent(self, seconds: float) -> float:
        """Seconds spent on this corpus so far, earlier calls included."""
        file = self.folder / ".seconds"
        before = float(file.read_text()) if file.exists() else 0.0
        file.write_text(str(before + seconds))
        return before + seconds

    def _missing(self) -> tuple[list[Run], Outcome]:
        """The runs that are still to do; removes what other settings left behind."""
        missing = [run for run in self.runs if not self._is_done(run)]
        outcome = Outcome(done=len(self.runs) - len(missing))
        kept = {".lock", ".seconds", ".templates", *(run.id for run in self.runs)} - {
            run.id for run in missing
        }
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                outcome.discarded += (entry / "run.json").exists() and entry.suffix != ".part"
                shutil.rmtree(entry, ignore_errors=True)
        return missing, outcome

    def _is_done(self, run: Run) -> bool:
        try:
            account = json.loads((self.folder / run.id / "run.json").read_text())
        except (OSError, ValueError):
            return False
        same = account.get("run") == run.model_dump(mode="json")
        return bool(same and account.get("how") == self.how._asdict())

    def _work(self, missing: Sequence[Run], outcome: Outcome, progress: Progress | None) -> None:
        todo: queue.SimpleQueue[tuple[Run, int]] = queue.SimpleQueue()
        for run in missing:
            todo.put((run, 1))
        broken: list[BaseException] = []

        def job() -> None:
            try:
                self._runs(todo, outcome, progress)
            except BaseException as error:
                broken.append(error)

        threads = [threading.Thread(target=job, name=f"job {k}") for k in range(min(self.jobs, len(missing)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # so that signals are handled
        if broken:
            raise LabError(f"{self.folder}: a job failed: {broken[0]}") from broken[0]

    def _runs(
        self, todo: queue.SimpleQueue[tuple[Run, int]], outcome: Outcome, progress: Progress | None
    ) -> None:
        """Do runs until none is left; the work of one job."""
        worker: Worker | None = None
        while not self._stop.is_set():
            try:
                run, attempt = todo.get_nowait()
            except queue.Empty:
                break
            if worker is None or not worker.alive:
                worker = Worker(self.folder, self.how)
                with self._lock:
                    self._workers.append(worker)
                if self._stop.is_set():
                    break
            problem = worker.do(run)
            if self._stop.is_set():
                break
            if problem and attempt < TRIES:
                logger.warning("run=%s failed, trying again: %s", run.id, problem)
                todo.put((run, attempt + 1))
                continue
            with self._lock:
                if problem:
                    outcome.problems[run.id] = problem
                else:
                    outcome.done += 1
                    outcome.made += 1
                if progress is not None:
                    progress(outcome.done + len(outcome.problems), len(self.runs))
        if worker is not None:
            worker.kill()
