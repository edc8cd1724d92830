"""What takes long is told in one short line."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Receives one short line on what is being done now."""


def no_progress(_: str) -> None:
    """A `Progress` that says nothing."""
