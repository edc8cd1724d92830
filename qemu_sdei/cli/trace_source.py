"""Which trace a user means: the trace of a running guest, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.rundir import Running


def trace_of(what: str | None) -> tuple[Running | None, Path]:
    """The guest, if it is one, and its ring; or the file. `what` None: the only guest that runs.

    Raises:
        UsageError: there is no such guest, or it has no ring.
    """
    from qemu_sdei import rundir

    if what is not None and (Path(what).is_file() or ("/" in what and not Path(what).is_dir())):
        return None, Path(what)
    guest = rundir.find(what)
    path = guest.path / rundir.TRACE
    if not path.exists():
        raise UsageError(f"guest {guest.name!r} has no trace ring: an older version of this program started it")
    return guest, path
