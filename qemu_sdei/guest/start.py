"""How a `Guest` comes to run: booted, restored from a directory, or taken over from an owner that was killed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei import rundir as files
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.adoption import Adoption
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.local_migration import Mover
from qemu_sdei.host import memory
from qemu_sdei.monitor.image import with_proof
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.saving.saved import VM
from qemu_sdei.vm import event_loop, machine_type
from qemu_sdei.vm.plan import Plan, check_boot, guest_config, monitor_image, prepare
from qemu_sdei.vm.silence import longest
from qemu_sdei.vm.supervisor import Supervisor

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

CLOSE_LIMIT: Final = 20.0
"""Seconds that ending everything may take; each step in it has a smaller limit of its own."""
_SHOWN: Final = 4096
"""Bytes of what was printed before that whoever looks on is shown."""
_UNDECIDED: Final = (
    "\r\nqemu-sdei: this guest stands still: its owner was killed when it was about to go on at {where}.\r\n"
    "Look there; if it is not there, `qemu-sdei migrate {name} --resume` has it go on here.\r\n"
)
_RESTORE: Final = 180.0
_SETTLE: Final = 60.0


def start(guest: Guest) -> None:
    """Boot or restore it."""
    plan = guest._plan = prepare(guest.options, guest._progress)
    directory = guest._directory = RunDirectory.create(guest.options.name)
    saved = guest._saved
    if saved is not None:
        saved.check()
        plan = guest._plan = machine_type.pinned(plan, machine_type.of_stream(saved.path / VM))
        config = saved.furnish(directory)
    else:
        initrd = plan.initrd
        if plan.busybox is not None:
            initrd = _write(directory, files.INITRD, plan.initramfs(guest._nonce))
        config = guest_config(plan, directory.name, initrd)
        check_boot(config)
    _write(directory, files.CONFIG, config.to_json().encode())
    _write(directory, files.MONITOR, with_proof(monitor_image(plan)) if saved is None else saved.monitor())
    plan.devices.create()
    where = guest.options.memory_path
    guest._ram_fd = memory.create(plan.ram_size, None if where is None else Path(where))
    guest._config = config
    supervisor = _supervise(guest, plan, directory, guest._ram_fd, incoming=saved is not None)
    guest._progress("starting QEMU and the backend")
    limit = guest.options.start_timeout
    guest._call(supervisor.start(limit), longest(limit) + CLOSE_LIMIT)
    if saved is not None:
        guest._progress("restoring the guest")
        with contextlib.suppress(OSError):
            guest.console_text.recall((directory / files.CONSOLE_LOG).read_bytes())
        guest._call(saved.arrive(supervisor), _RESTORE)
    _open(guest, directory)


def take_over(guest: Guest, name: str, identity: str) -> None:
    """Become the owner of a guest that runs and has none."""
    guest._progress("taking the guest over")  # where its RAM is still being fetched, that takes long
    adoption = Adoption.take(name, identity)
    try:
        directory = guest._directory = adoption.directory
        guest._ram_fd, guest._config = adoption.ram_fd, adoption.config
        plan, guest._nonce = adoption.description.plan, adoption.description.nonce
        guest._plan = plan
        with contextlib.suppress(OSError):
            said = (directory / files.CONSOLE_LOG).read_bytes()
            guest.console_text.recall(said)
            if guest._sink is not None:
                guest._sink(said[-_SHOWN:])
        supervisor = _supervise(guest, plan, directory, adoption.ram_fd, incoming=False)
        limit = guest.options.start_timeout

        async def adopt() -> None:
            await supervisor.adopt(adoption.qemu(), limit, output=adoption.output())
            await adoption.settle(supervisor)

        guest._call(adopt(), longest(limit) + _SETTLE)
        if supervisor.undecided and guest._sink is not None:
            guest._sink(_UNDECIDED.format(where=supervisor.undecided, name=directory.name).encode())
        _open(guest, directory)
    finally:
        adoption.close()


def _supervise(guest: Guest, plan: Plan, directory: RunDirectory, ram_fd: int, *, incoming: bool) -> Supervisor:
    guest._loop, guest._thread = event_loop.start(f"guest {directory.name}")
    supervisor = Supervisor(plan, directory, ram_fd, guest.console_text, incoming=incoming, nonce=guest._nonce)
    guest._supervisor = supervisor
    supervisor.attach(guest._sink)
    guest._mover = Mover(guest)
    return supervisor


def _open(guest: Guest, directory: RunDirectory) -> None:
    assert guest._mover is not None
    guest._call(guest._mover.open(directory), CLOSE_LIMIT)
    guest._client = ControlClient(directory / files.CONTROL, identity=files.identity(directory.path))


def _write(directory: RunDirectory, name: str, data: bytes) -> Path:
    path = directory / name
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
        ) from None
    return path
