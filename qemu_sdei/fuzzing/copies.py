"""Copies of a guest, which are fuzzed in its place: the guest runs on, and a lost copy is replaced in seconds."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from qemu_sdei import rundir
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.start import Boot
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.rundir import Running
from qemu_sdei.saving import saved_trust
from qemu_sdei.saving.saved import Saved
from qemu_sdei.vm.options import END

_PATIENCE: Final = 240.0
_COPY: Final = re.compile(r"-fuzz-\d+$")
_NAME: Final = 22
"""Characters of the guest's name that its copy's begins with."""


def save_running(guest: Running, path: Path) -> None:
    """Write a guest that another process owns into the new directory `path`; it goes on.

    Raises:
        UsageError: it has no owner that could, or a disk that a copy would write to too. `GuestError`: it did not work.
    """
    ask(
        guest.owner,
        "save",
        {"path": str(path), "end": False},
        lambda step: None,
        identity=guest.identity,
        patience=_PATIENCE,
    )
    try:
        _check(Saved.read(path), guest.name)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _check(saved: Saved, name: str) -> None:
    written = [drive for drive in saved.options.drives if "readonly=on" not in drive and "snapshot=on" not in drive]
    if written:
        raise UsageError(
            f"guest {name!r} writes to {written[0].partition(',')[0]}, and its copies would too: "
            "start it with readonly=on or snapshot=on for that drive"
        )


def copy_of(path: Path, *, trust: bool, progress: Progress = no_progress) -> Guest:
    """A guest that goes on, once it is started, where the one in directory `path` was.

    Args:
        path: the directory.
        trust: it may have what its options say (`Guest.saved`).
        progress: is told what takes long.

    Raises:
        UsageError: there is none. `UntrustedError`: it wants more than a stranger may have.
    """
    saved = Saved.read(path)
    if not trust:
        saved_trust.check(saved.path, saved.wants())
    options = replace(
        saved.options,
        name=_free(saved.config.name),
        memory=saved.config.ram_size,
        pad_memory=False,
        forwards=(),  # those ports the guest itself has
        net=saved.options.net or bool(saved.options.forwards),
        on_panic=END,
        die_with_owner=True,
    )
    return Guest(options, progress=progress, beginning=Boot(replace(saved, options=options, trusted=True)))


def closed(guest: Guest) -> None:
    """End a copy, in whatever state it is."""
    try:
        guest.close()
    except SdeiError:
        guest.close()  # each step of it can be done again


def _free(name: str) -> str:
    """What a copy of guest `name` is called."""
    taken = {each.name for each in rundir.running()}
    stem = f"{_COPY.sub('', name)[:_NAME]}-fuzz"
    return next(each for number in itertools.count(1) if (each := f"{stem}-{number}") not in taken)
