"""A `run` whose guest hangs or panics, or that is cancelled, says at its end what was the matter with the guest."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from qemu_sdei.cli.signals import Terminated
from qemu_sdei.cli.symbol_options import symbols_of
from qemu_sdei.errors import GuestPanicError, GuestTimeoutError, KdumpError, SdeiError

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.symbols.symbolizer import Symbolizer

_WIDTH: Final = 88


def explained(guest: Guest, *, where: bool = False) -> list[str]:
    """What is found in the guest as it is now, as lines; none if nothing is. `where`: where its vCPUs are then."""
    from qemu_sdei.explain.lines import short

    try:
        return short(guest.explain(_symbolizer(guest)), width=_WIDTH, where=where)
    except SdeiError:
        return []  # it has just ended: the error itself says so


def _symbolizer(guest: Guest) -> Symbolizer | None:
    """Symbols of the kernel that it was booted with, if it has some."""
    from qemu_sdei import rundir

    here = rundir.Running(guest.name, guest.placement.directory.path, None)
    options = argparse.Namespace(symbols=[], symbols_force=False)
    return symbols_of(options, here, tell=lambda sentence: None)


@contextmanager
def explaining(guest: Guest) -> Iterator[None]:
    """Errors by which a guest's hang or panic shows, and Ctrl-C, get what is found in the guest."""
    try:
        yield
    except GuestPanicError as error:
        error.explanation = explained(guest)
        raise
    except (GuestTimeoutError, KdumpError) as error:
        error.explanation = explained(guest, where=True)
        raise
    except Terminated as end:
        if end.number == signal.SIGINT:  # the others are to be obeyed at once
            for line in explained(guest):
                end.add_note(line)
        raise
