"""Errors, split by what the caller does about them.

WiresondeError
├── ConfigError     a value in the configuration or on the command line is wrong: fix it, exit 2
├── InputError      a capture, label file or bundle cannot be read: names place and value, exit 1
├── OutputError     a result cannot be written (disk full, permission): nothing half written, exit 1
└── StateError      records are missing or belong to another configuration: stop, name the repair, exit 1

Unreadable packets are data, not errors: they carry a Reason and are counted.
"""

from __future__ import annotations


class WiresondeError(Exception):
    """Base of all errors that end a command with one line instead of a traceback."""


class ConfigError(WiresondeError, ValueError):
    """A value in the configuration or on the command line is wrong."""


class InputError(WiresondeError):
    """A capture, label file or bundle cannot be read."""


class OutputError(WiresondeError):
    """A result cannot be written."""


class StateError(WiresondeError):
    """Records are missing, or belong to another configuration."""
