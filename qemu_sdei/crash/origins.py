"""Guests that are about to crash: booted once, saved, and restored for each cell."""

from __future__ import annotations

import contextlib
import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from qemu_sdei.crash.cells import Origin
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.start import Boot
from qemu_sdei.host.client_module import MODULE_PATH
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.saving.saved import Saved
from qemu_sdei.vm.options import GuestOptions

VCPUS: Final = 3
"""One panics, one hangs in a thread, one in an interrupt's handler."""
MEMORY: Final = "640M"
CRASHKERNEL: Final = "224M"
_WITHOUT_NMI: Final = "initcall_blacklist=sdei_nmi_init"
"""Keeps a kernel with CONFIG_ARM_SDEI_NMI from taking event 0, which is the client module's then. To a kernel without
that function it says nothing."""
_names = itertools.count(1)
_one_takes = threading.Lock()
_running: list[Guest] = []


def options_of(origin: Origin, scratch: Path, *, timeout: float) -> GuestOptions:
    """A guest that has a capture kernel, and whose CPUs can be made to hang."""
    kernel = origin.kernel
    return GuestOptions(
        kernel=kernel.image,
        series=None if kernel.image is not None else kernel.name,
        smp=VCPUS,
        memory=MEMORY,
        kdump=True,
        crashkernel=CRASHKERNEL,
        kdump_cpus=origin.capture.vcpus(VCPUS),
        append="" if origin.by_kernel else _WITHOUT_NMI,
        vmcore=scratch / "vmcore",
        client=kernel.client or True,
        name=_name(),
        die_with_owner=True,
        boot_timeout=timeout,
    )


def _name() -> str:
    with _one_takes:
        return f"crash-{next(_names)}-{threading.get_native_id() % 100_000}"


def save(origin: Origin, directory: Path, *, timeout: float, progress: Progress = no_progress) -> str:
    """Boot such a guest, with the capture kernel loaded and event 0 registered on all CPUs by who is to have it, and
    write it into the new directory `directory`. Returns the kernel's release.

    Raises:
        UsageError: there is no such kernel, or no client module for it. `SdeiError`: it does not boot.
    """
    options = options_of(origin, directory.parent, timeout=timeout)
    with Guest(options, progress=progress) as guest:
        guest.wait_shell()
        progress("loading the client module")
        loaded = guest.run(f"insmod {MODULE_PATH} events={'' if origin.by_kernel else '0'} verbose=0")
        if loaded.status:
            said = loaded.output.strip().splitlines()
            raise UsageError(
                f"the client module does not load into kernel {origin.kernel.name}: {said[-1] if said else '?'}"
            )
        release = guest.run("uname -r").output.strip()
        progress("saving the guest")
        guest.save(directory, end=True, timeout=timeout)
    return release


def restored(directory: Path, vmcore: Path, *, poll: float) -> Guest:
    """A guest that goes on, once it is started, where the saved one was; its dump goes to `vmcore`, and a stage of the
    dump that takes longer than `poll` seconds ends a wait for it. Raises `UsageError`: there is none.
    """
    saved = Saved.read(directory)
    options = replace(
        saved.options,
        name=_name(),
        memory=saved.config.ram_size,
        pad_memory=False,
        vmcore=vmcore,
        kdump_timeout=poll,
        die_with_owner=True,
    )
    guest = Guest(options, beginning=Boot(replace(saved, options=options, trusted=True)))
    with _one_takes:
        _running.append(guest)
    return guest


def closed(guest: Guest) -> None:
    """End a guest, in whatever state it is."""
    try:
        guest.close()
    except SdeiError:
        guest.close()  # each step of it can be done again
    with _one_takes, contextlib.suppress(ValueError):
        _running.remove(guest)


def close_all() -> None:
    """End all that `restored` gave and nobody has ended."""
    with _one_takes:
        guests = list(_running)
    for guest in guests:
        closed(guest)
