"""Hypothesis knows its profiles also where this folder is alone (mutants.py)."""

from __future__ import annotations

import tests.examples  # noqa: F401
