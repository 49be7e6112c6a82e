"""Runs the command line in a process that kills itself (SIGKILL) at a chosen point.

    python crash.py POINT ARGUMENT…

POINT is WHERE:N, the Nth time that place is reached. The product knows nothing of this.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def install(where: str, nth: int) -> None:
    """Put the bomb in its place."""
    import engine.commands.detect
    import engine.consumer.snapshot
    from engine.consumer.member import Member
    from engine.consumer.outlet import Outlet
    from engine.scoring.detector import Detector

    setattr(engine.commands.detect, "warm_up", lambda *_: None)  # noqa: B010 -- it passes the same places
    reached = 0

    def counted() -> bool:
        nonlocal reached
        reached += 1
        return reached == nth

    def wrap(owner: Any, name: str, *, before: bool) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            now = counted()
            if now and before:
                die()
            result = real(*args, **kwargs)
            if now:
                die()
            return result

        setattr(owner, name, wrapped)

    if where in ("before-rename", "after-rename"):
        real = os.replace

        def replace(src: str, dst: str) -> None:
            now = str(dst).endswith(".safetensors") and counted()
            if now and where == "before-rename":
                die()
            real(src, dst)
            if now:
                die()

        os.replace = replace  # type: ignore[assignment]
    elif where == "during-write":

        def half(folder: str, name: str, data: bytes) -> None:
            if counted():
                temporary = Path(folder) / f".{name}.{0:032x}.tmp"
                temporary.write_bytes(data[: len(data) // 2])
                die()
            written(folder, name, data)

        written = engine.consumer.snapshot._write_whole
        engine.consumer.snapshot._write_whole = half
    elif where == "before-flush":
        wrap(Outlet, "flush", before=True)
    elif where == "after-flush":
        wrap(Outlet, "flush", before=False)
    elif where == "after-sync":
        wrap(Outlet, "sync", before=False)
    elif where == "during-restore":
        wrap(Detector, "restore", before=True)
    elif where == "before-commit":
        wrap(Member, "_committed", before=True)
    elif where == "slow":  # not a crash: the Nth message takes longer than max_poll_interval_ms
        real_take = Member._take

        def take(self: Member, message: Any) -> None:
            if counted():
                time.sleep(float(os.environ["SLOW_SECONDS"]))
            real_take(self, message)

        Member._take = take  # type: ignore[method-assign]
    elif where == "slow-restore":
        real_restore = Member._restore

        def restore(self: Member, partition: int) -> None:
            if counted():
                time.sleep(float(os.environ["SLOW_SECONDS"]))
            real_restore(self, partition)

        Member._restore = restore  # type: ignore[method-assign]
    else:
        raise SystemExit(f"crash.py: unknown point {where}")


def main() -> None:
    where, _, nth = sys.argv[1].partition(":")
    install(where, int(nth or 1))
    from engine.cli import main as cli

    cli(sys.argv[2:])


if __name__ == "__main__":
    main()
