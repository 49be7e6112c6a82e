"""The error of the lab."""

from __future__ import annotations

from engine.errors import WiresondeError


class LabError(WiresondeError):
    """A run, or the whole lab, cannot continue; the message says what failed and where."""
