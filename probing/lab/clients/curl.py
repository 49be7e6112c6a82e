"""curl: requests of a command line."""

from __future__ import annotations

import re
import time

from probing.lab.clients import web
from probing.lab.session import Session, program_version

# a line of --verbose with --trace-time: "15:40:01.123456 < HTTP/1.1 200 OK"
LINE = re.compile(rb"^(\d\d):(\d\d):(\d\d)\.(\d{6}) ([<>{}]) (.*)$", re.MULTILINE)
STATUS = re.compile(rb"HTTP/\S+ (\d+)")
DAY_NS = 86_400 * 10**9


class Curl:
    """curl."""

    programs = ("curl",)

    def perform(self, session: Session) -> None:
        """Any activity, in one connection that curl itself ends."""
        web.only_fin(session, "curl")
        with web.visit(session) as requests:
            done = session.run(
                *_options(session, requests), feed=requests[0].body, env={"TZ": "UTC"}, seconds=web.LIMIT_S
            )
            web.judge(session, requests, _read(session, done.stderr))

    def version(self) -> str:
        """Its version."""
        return program_version("curl", "--version").split(" ")[1]


def _options(session: Session, requests: list[web.Request]) -> list[str]:
    words = ["curl", "-q", "--silent", "--show-error", "--verbose", "--trace-time", "--insecure", "--location",
             "--noproxy", "*"]  # fmt: skip
    if session.parameters.pause_ms:
        # from request to request, for curl knows no pause behind an answer
        words += ["--rate", f"{max(1, round(3_600_000 / session.parameters.pause_ms))}/h"]
    for request in requests:
        if request.body is not None:
            words += ["--data-binary", "@-"]
        if request.changed is not None:
            words += ["--time-cond", web.date(request.changed)]
        if not request.redirected:
            words += ["--output", "/dev/null", web.url(session, request)]
    return words


def _read(session: Session, trace: bytes) -> list[int]:
    """Statuses of the answers; tells the session when requests, answers and contents began, by curl's own clock."""
    now = time.time_ns()
    epoch = now - time.monotonic_ns()
    statuses: list[int] = []
    due = b""  # sign of the line with which a content begins
    for found in LINE.finditer(trace):
        sign, text = found[5], found[6]
        phase = ""
        if sign == b">" and text.startswith((b"GET ", b"POST ")):
            phase, due = "request", b"}" if text.startswith(b"POST ") else b""
        elif sign == b"<" and (status := STATUS.match(text)) and int(status[1]) >= 200:
            statuses.append(int(status[1]))
            phase, due = "response", b"{" if statuses[-1] == 200 and due != b"done" else b""
        elif sign == due:
            phase, due = "transfer", b"done"
        if phase:
            session.span.marks.append((phase, _clock(found, now) - epoch))
    return statuses


def _clock(found: re.Match[bytes], now: int) -> int:
    """Time of a line, ns since the epoch: the last time before now that it was so late in the day."""
    hour, minute, second, micro = (int(word) for word in found.groups()[:4])
    of_day = ((hour * 60 + minute) * 60 + second) * 10**9 + micro * 1000
    return now - (now - of_day) % DAY_NS


CURL = Curl()
