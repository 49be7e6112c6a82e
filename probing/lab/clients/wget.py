"""wget: downloads from the command line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from probing.lab.clients import web
from probing.lab.services.web_site import WWW
from probing.lab.session import Session, program_version

# patterns in the output of --debug
_HEADS = rb"---(?P<request>request) begin---|---response begin---\s+HTTP/\S+ (?P<response>[2-5]\d\d)"
DOWNLOAD = re.compile(_HEADS + rb"|(?P<transfer>Saving to): ")
UPLOAD = re.compile(_HEADS + rb"|(?P<transfer>writing BODY)")
REFUSED = 8  # exit status when the server answers with an error


class Wget:
    """wget."""

    programs = ("wget",)

    def perform(self, session: Session) -> None:
        """Do any activity, in one connection that wget itself ends."""
        web.only_fin(session, "wget")
        with web.visit(session) as requests:
            said = DOWNLOAD if requests[0].body is None else UPLOAD
            command = _command(session, requests)
            web.judge(session, requests, web.follow(session, command, said, ok=(0, REFUSED)))

    def version(self) -> str:
        """The version of the program."""
        return program_version("wget", "--version").split(" ")[2]


def _command(session: Session, requests: list[web.Request]) -> list[str]:
    words = ["wget", "--debug", "--no-config", "--no-hsts", "--no-proxy", "--inet4-only", "--no-check-certificate",
             "--tries=1", "--progress=dot:giga", f"--wait={session.parameters.pause_ms / 1e3:g}"]  # fmt: skip
    first = requests[0]
    if first.body is not None:
        words += [f"--post-file={web.upload(session, first.body)}"]
    if first.changed is None:
        words += ["--output-document=/dev/null"]
    else:
        shutil.copy2(WWW / first.path, session.folder / Path(first.path).name)
        words += ["--timestamping"]
    return words + [web.url(session, request) for request in requests if not request.redirected]


WGET = Wget()
