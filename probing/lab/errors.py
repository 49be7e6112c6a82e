"""What goes wrong in the lab."""

from __future__ import annotations

from engine.errors import WiresondeError


class LabError(WiresondeError):
    """A run, or the lab as a whole, cannot go on; the message says what and where."""
