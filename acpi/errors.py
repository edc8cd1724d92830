"""The errors of this package: whatever is wrong with its input ends as one of these."""

from __future__ import annotations


class AcpiError(Exception):
    """Base of everything that this package raises on purpose."""


class DtError(AcpiError):
    """The device tree is damaged, or not the tree of the machine that was described."""
