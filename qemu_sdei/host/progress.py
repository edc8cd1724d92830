"""One short line about work that takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Progress = Callable[[str], None]
"""Receives one short line on what is being done now."""
NOTE: Final = "note: "
"""A line that begins so is none of what is being done: whoever shows progress leaves it to be read."""


def no_progress(_: str) -> None:
    """A `Progress` that says nothing."""
