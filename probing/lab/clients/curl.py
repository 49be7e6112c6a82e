"""curl: requests from the command line."""

from __future__ import annotations

import re

from probing.lab.clients import web
from probing.lab.session import Session, program_version

# patterns in the output of --verbose: headers follow > and <, contents are } and {
_HEADS = rb"^> (?P<request>GET|POST) |^< HTTP/\S+ (?P<response>[2-5]\d\d)"
DOWNLOAD = re.compile(_HEADS + rb"|^< \r?\n(?P<transfer>\{)", re.MULTILINE)
# by HTTP/2, or else there is no answer
BY_HTTP2 = re.compile(DOWNLOAD.pattern.replace(rb"HTTP/\S+", rb"HTTP/2"), re.MULTILINE)
UPLOAD = re.compile(_HEADS + rb"|^[<>] \r?\n(?P<transfer>\})", re.MULTILINE)


class Curl:
    """curl."""

    programs = ("curl",)

    def perform(self, session: Session) -> None:
        """Do any activity, in one connection that curl itself ends."""
        web.only_fin(session, "curl")
        with web.visit(session) as requests:
            said = DOWNLOAD if requests[0].body is None else UPLOAD
            said = BY_HTTP2 if web.http2(session) else said
            web.judge(session, requests, web.follow(session, _command(session, requests), said))

    def version(self) -> str:
        """The version of the program."""
        return program_version("curl", "--version").split(" ")[1]


def _command(session: Session, requests: list[web.Request]) -> list[str]:
    words = [
        "curl",
        "-q",
        "--silent",
        "--show-error",
        "--verbose",
        "--insecure",
        "--location",
        "--noproxy",
        "*",
    ]
    if web.secure(session):  # a server that also serves visitors of HTTP/2 would offer it to all
        words.append("--http2" if web.http2(session) else "--http1.1")
    if web.http2(session) and len(requests) > 1:
        words.append("--parallel")  # streams of one connection
    if session.parameters.pause_ms:
        # from request to request: curl has no pause after an answer
        words += ["--rate", f"{max(1, round(3_600_000 / session.parameters.pause_ms))}/h"]
    first = requests[0]
    if first.body is not None:
        words += ["--data-binary", f"@{web.upload(session, first.body)}"]
    if first.changed is not None:
        words += ["--time-cond", web.date(first.changed)]
    for request in requests:
        if not request.redirected:
            words += ["--output", "/dev/null", web.url(session, request)]
    return words


CURL = Curl()
