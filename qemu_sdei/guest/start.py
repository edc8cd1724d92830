"""How a `Guest` comes to run: booted, restored from a directory, or taken over from an owner that was killed.

A `Beginning` gives its placement, or leaves nothing behind (`undo`, `discard`). One that arrives from another host is
in `receive.py`.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Final, Protocol

from qemu_sdei import rundir as files
from qemu_sdei.config import GuestConfig
from qemu_sdei.guest.adoption import Adoption
from qemu_sdei.guest.placement import Placement, PlacementBuilder, Ram
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.host.progress import NOTE
from qemu_sdei.monitor.image import with_proof
from qemu_sdei.rundir import RunDirectory, Running
from qemu_sdei.saving.saved import VM, Saved
from qemu_sdei.vm import machine_type
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.guest_json import check_boot, guest_config, monitor_image
from qemu_sdei.vm.plan import Plan, prepare
from qemu_sdei.vm.silence import longest
from qemu_sdei.vm.supervisor import Supervisor

CLOSE_LIMIT: Final = 20.0
"""Seconds that ending everything may take; each step in it has a smaller limit of its own."""
SHOWN: Final = 4096
"""Bytes of what was printed before that whoever looks on is shown."""
_UNDECIDED: Final = (
    "\r\nqemu-sdei: this guest is paused: its owner was killed when the guest was about to be resumed at {where}.\r\n"
    "Look there; if it is not there, `qemu-sdei migrate {name} --resume` resumes it here.\r\n"
)
_RESTORE: Final = 180.0
_SETTLE: Final = 60.0


class Beginning(Protocol):
    """How one guest comes to run."""

    @property
    def builder(self) -> PlacementBuilder:
        """What there is of it so far."""

    @property
    def here(self) -> bool:
        """The guest is here already, although `begin` has not returned."""

    def begin(self, record: GuestRecord, loop: EventLoop) -> Placement:
        """Have it run; starts the loop. Raises `SdeiError`: it does not, and `undo` and `discard` are to be called."""

    def begun(self) -> None:
        """`begin` has returned, and other processes can ask for the guest."""

    def undo(self, loop: EventLoop) -> None:
        """End what belongs to nobody else yet, in the running loop; as often as one likes.

        Raises `GuestTimeoutError`: that takes too long.
        """

    def discard(self) -> None:
        """Give back RAM and run directory, if they belong to nobody else yet; as often as one likes."""


class Boot:
    """It is booted, or restored from a directory."""

    here = False

    def __init__(self, saved: Saved | None = None) -> None:
        self.builder = PlacementBuilder()
        self._saved = saved

    def begin(self, record: GuestRecord, loop: EventLoop) -> Placement:
        """See `Beginning`."""
        options, saved, builder = record.options, self._saved, self.builder
        plan = prepare(options, record.progress)
        for remark in plan.remarks:
            record.progress(f"{NOTE}{remark}")
        directory = builder.directory = RunDirectory.create(options.name)
        if saved is None:
            config, monitor = self._furnish(plan, directory, record.nonce)
        else:
            record.nonce = saved.nonce
            saved.check()
            plan = machine_type.pinned(plan, machine_type.of_stream(saved.path / VM))
            config, monitor = saved.furnish(directory), saved.monitor()
        builder.configure(config)
        builder.write(files.MONITOR, monitor)
        builder.make(plan)
        builder.ram = Ram.create(plan.ram_size, options.memory_path)
        loop.start(f"guest {directory.name}")
        supervisor = builder.supervise(plan, record.console, record.nonce, arriving=saved is not None)
        supervisor.attach(record.onlookers)
        record.progress("starting QEMU and the backend")
        limit = options.start_timeout
        # Processes that wait for a guest look at no RAM before it arrives: it is filled while they start.
        fill = None if saved is None else partial(saved.fill, builder.ram.fd)
        loop.call(supervisor.start(limit), longest(limit) + CLOSE_LIMIT, meanwhile=fill)
        if saved is not None:
            record.progress("restoring the guest")
            with contextlib.suppress(OSError):
                record.console.recall((directory / files.CONSOLE_LOG).read_bytes())
            loop.call(saved.arrive(supervisor), _RESTORE)
        return builder.done()

    def begun(self) -> None:
        """See `Beginning`."""

    def _furnish(self, plan: Plan, directory: RunDirectory, nonce: str) -> tuple[GuestConfig, bytes]:
        initrd = plan.initrd
        if plan.busybox is not None:
            initrd = self.builder.write(files.INITRD, plan.initramfs(nonce))
        config = guest_config(plan, directory.name, initrd)
        check_boot(config)
        return config, with_proof(monitor_image(plan))

    def undo(self, loop: EventLoop) -> None:
        """See `Beginning`."""
        loop.call(self.builder.stop(), CLOSE_LIMIT)

    def discard(self) -> None:
        """See `Beginning`."""
        self.builder.discard()


class TakeOver:
    """It runs, and its owner was killed: this process becomes its owner."""

    here = False

    def __init__(self, guest: Running) -> None:
        """`guest`: as it was looked up."""
        self.builder = PlacementBuilder()
        self._guest = guest

    def begin(self, record: GuestRecord, loop: EventLoop) -> Placement:
        """See `Beginning`."""
        record.progress("taking the guest over")  # where its RAM is still being fetched, that takes long
        adoption = Adoption.take(self._guest.name, self._guest.identity)
        try:
            directory = self.builder.directory = adoption.directory
            self.builder.ram = Ram(adoption.ram_fd, adoption.config.ram_size)
            self.builder.know(adoption.config)
            plan, record.nonce = adoption.description.plan, adoption.description.nonce
            with contextlib.suppress(OSError):
                said = (directory / files.CONSOLE_LOG).read_bytes()
                record.console.recall(said)
                record.onlookers(said[-SHOWN:])
            loop.start(f"guest {directory.name}")
            supervisor = self.builder.supervise(plan, record.console, record.nonce)
            supervisor.attach(record.onlookers)
            limit = record.options.start_timeout
            loop.call(self._adopt(adoption, supervisor, limit), longest(limit) + _SETTLE)
            if supervisor.place.where:
                record.onlookers(_UNDECIDED.format(where=supervisor.place.where, name=directory.name).encode())
            return self.builder.done()
        finally:
            adoption.close()

    def begun(self) -> None:
        """See `Beginning`."""

    @staticmethod
    async def _adopt(adoption: Adoption, supervisor: Supervisor, limit: float) -> None:
        await supervisor.adopt(adoption.qemu(), limit, output=adoption.output())
        await adoption.settle(supervisor)

    def undo(self, loop: EventLoop) -> None:
        """See `Beginning`; a guest that could not be taken over goes on as it was."""
        supervisor = self.builder.supervisor
        if supervisor is None:
            return
        if supervisor.failure is not None or supervisor.power_off is not None:
            loop.call(self.builder.stop(), CLOSE_LIMIT)
            return
        self.builder.supervisor = self.builder.directory = None
        with contextlib.suppress(Exception):
            loop.call(supervisor.release(), CLOSE_LIMIT)

    def discard(self) -> None:
        """See `Beginning`."""
        directory = self.builder.directory
        if self.builder.supervisor is None and directory is not None:
            directory.release()  # it goes on as it was
            self.builder.directory = None
        self.builder.discard()
