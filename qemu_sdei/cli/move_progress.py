"""The progress of a migration, a save or a snapshot, as lines."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from qemu_sdei.cli.output import Progress

_REFRESH: Final = 0.2
"""Seconds between two numbers."""


class Shown:
    """Progress as lines: one for each phase, on a terminal with how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = ""
        self._next = 0.0

    def __call__(self, step: dict[str, Any]) -> None:
        phases = {
            "hold": "waiting for the hold point",
            "start": "starting the destination",
            "stop": "stopping the guest",
            "ram": "transferring",
            "verify": "comparing RAM",
            "restore": "restoring the firmware's state",
            "snapshot": "saving the guest",
            "load": "loading the snapshot",
            "fetch": "it runs there; fetching the rest of its RAM",
            "connect": "connecting to the other host",
            "files": "sending files that a reset needs",
            "again": "a service of the guest had micro-operations in flight when QEMU paused it: trying again",
            "inquire": "the connection broke: asking what became of the guest",
        }
        phase = str(step.get("phase"))
        text = phases.get(phase, phase)
        if phase in ("ram", "fetch") and sys.stderr.isatty() and step.get("total") and time.monotonic() >= self._next:
            self._next = time.monotonic() + _REFRESH
            done, total = (int(step.get(name, 0)) >> 20 for name in ("done", "total"))
            text += f" {done} of {total} MiB, {float(step.get('rate', 0)) / (1 << 20):.1f} MiB/s sent"
        elif phase in ("ram", "fetch") and self._last.startswith(text):
            return
        if text != self._last:
            self._progress(text)
            self._last = text
