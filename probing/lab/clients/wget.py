"""wget: downloads of a command line."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

from probing.lab.clients import web
from probing.lab.errors import LabError
from probing.lab.services.web_site import WWW
from probing.lab.session import Session, program_version

# what wget says as soon as it is so: a connection is there, a request is sent, its answer begins, so does a content
SAID = re.compile(r"(?P<connected>connected\.\n)|(?P<sent>awaiting response\.\.\. )"
                  r"|(?<=awaiting response\.\.\. )(?P<status>\d{3}) |(?P<saving>Saving to: )")  # fmt: skip
REFUSED = 8  # exit code where a server answers with an error


class Wget:
    """wget."""

    programs = ("wget",)

    def perform(self, session: Session) -> None:
        """Any activity, in one connection that wget itself ends."""
        web.only_fin(session, "wget")
        with web.visit(session) as requests:
            web.judge(session, requests, _follow(session, _command(session, requests), requests[0].body is not None))

    def version(self) -> str:
        """Its version."""
        return program_version("wget", "--version").split(" ")[2]


def _command(session: Session, requests: list[web.Request]) -> list[str]:
    words = ["wget", "--no-config", "--no-hsts", "--no-proxy", "--no-check-certificate", "--tries=1",
             "--progress=dot:giga", f"--wait={session.parameters.pause_ms / 1e3:g}"]  # fmt: skip
    first = requests[0]
    if first.body is not None:
        (session.folder / "upload").write_bytes(first.body)
        words += ["--post-file=upload"]
    if first.changed is not None:
        shutil.copy2(WWW / first.path, session.folder / Path(first.path).name)
        words += ["--timestamping"]
    else:
        words += ["--output-document=/dev/null"]
    return words + [web.url(session, request) for request in requests if not request.redirected]


def _follow(session: Session, command: list[str], upload: bool) -> list[int]:
    """Run wget and tell the session when it is how far. Returns the statuses of the answers.

    wget prints no times, so these are when its words arrive. An upload is under way when it says that it is sent:
    it begins with the connection.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True, cwd=session.folder, bufsize=0,
    )  # fmt: skip
    assert process.stderr is not None
    text, at, statuses = "", 0, list[int]()
    end = time.monotonic() + web.LIMIT_S
    while select.select([process.stderr], [], [], max(0.0, end - time.monotonic()))[0]:
        if not (part := os.read(process.stderr.fileno(), 65_536)):
            break
        text += part.decode(errors="replace")
        for found in SAID.finditer(text, at):
            at = found.end()
            if found["status"]:
                statuses.append(int(found["status"]))
            for phase in _phases(found.lastgroup or "", upload):
                session.mark(phase)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    if process.wait() not in (0, REFUSED):
        raise LabError(f"wget: exit {process.returncode}: {text.strip()[-400:]}")
    return statuses


def _phases(said: str, upload: bool) -> tuple[str, ...]:
    """Phases that begin when wget says so."""
    if upload:
        return {"connected": ("request", "transfer"), "status": ("response",)}.get(said, ())
    return {"sent": ("request",), "status": ("response",), "saving": ("transfer",)}.get(said, ())


WGET = Wget()
