"""An exception in a user's `--script`: their own frames and what was raised, without ours and Python's."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Final

import qemu_sdei

_NOT_THEIRS: Final = (str(Path(qemu_sdei.__file__).parent), sysconfig.get_path("stdlib"), "<frozen ")


def shown(error: BaseException) -> list[str]:
    """The lines of a traceback of `error` with the frames of the user's files only."""
    report = traceback.TracebackException.from_exception(error)
    _keep_theirs(report)
    return "".join(report.format()).rstrip("\n").split("\n")


def _keep_theirs(report: traceback.TracebackException) -> None:
    report.stack = _theirs(report)
    for name in ("__cause__", "__context__"):
        earlier = getattr(report, name)
        if earlier is not None and _theirs(earlier):
            _keep_theirs(earlier)
        else:
            setattr(report, name, None)  # what happened within ours before it was told


def _theirs(report: traceback.TracebackException) -> traceback.StackSummary:
    return traceback.StackSummary.from_list(
        [frame for frame in report.stack if not frame.filename.startswith(_NOT_THEIRS)]
    )
