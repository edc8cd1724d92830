"""A `run` whose guest hangs or panics, or that is cancelled, says at its end what was the matter with the guest."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from qemu_sdei.cli.signals import Terminated
from qemu_sdei.errors import GuestPanicError, GuestTimeoutError, SdeiError

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

_WIDTH: Final = 88


def explained(guest: Guest, *, where: bool = False) -> list[str]:
    """What is found in the guest as it is now, as lines; none if nothing is. `where`: where its vCPUs are then."""
    from qemu_sdei.explain.lines import short

    try:
        return short(guest.explain(), width=_WIDTH, where=where)
    except SdeiError:
        return []  # it has just ended: the error itself says so


@contextmanager
def explaining(guest: Guest) -> Iterator[None]:
    """Errors by which a guest's hang or panic shows, and Ctrl-C, get what is found in the guest."""
    try:
        yield
    except GuestPanicError as error:
        error.explanation = explained(guest)
        raise
    except GuestTimeoutError as error:
        error.explanation = explained(guest, where=True)
        raise
    except Terminated as end:
        if end.number == signal.SIGINT:  # the others are to be obeyed at once
            for line in explained(guest):
                end.add_note(line)
        raise
