"""What differs from run to run, and is left out of a comparison of two traces."""

from __future__ import annotations

from typing import Final

FOLDS: Final = {
    "addresses": "entry points, arguments of handlers, context ids, and all arguments of functions that nobody serves",
    "values": "results that are a register's content, a time or a random number, such as EVENT_CONTEXT's",
    "repeats": "how often the same call and answer come in a row, and how often the same run of a handler was there",
    "counts": "how often a function is called that always answers the same, such as SDEI_VERSION",
    "moments": "at which of a vCPU's calls a handler interrupts, and which of the two calls it ends by",
    "places": "which vCPU makes a call that is the same on each of them: about a shared event, the machine, other CPUs",
    "idle": "CPU_SUSPEND: when, and how often",
}
"""What can be left out of a comparison, by name. All of it is, if nothing else is said."""
