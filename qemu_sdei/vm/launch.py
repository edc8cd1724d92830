"""Starts QEMU: what it inherits, and that nothing of it is left open here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from qemu_sdei import boundedlog, locks
from qemu_sdei import rundir as files
from qemu_sdei.errors import LaunchError, UsageError
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm import debugger
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.process import Child
from qemu_sdei.vm.qemu_command import INCOMING, PAUSED, command_line, fd_wiring

_WAITING: Final = 4


def launch(
    plan: Plan, directory: RunDirectory, ram_fd: int, *, incoming: bool, listening: Callable[[], None]
) -> tuple[list[str], Child, int]:
    """Start QEMU in a run directory; `listening` is called when its sockets are there, and before it starts.

    Returns:
        Its command line, the process, and a descriptor by which its output is read (`boundedlog.pipe`).

    Raises:
        UsageError: the run directory cannot be used. `LaunchError`: QEMU cannot be started.
    """
    try:
        return _launch(plan, directory, ram_fd, incoming, listening)
    except OSError as error:
        raise UsageError(
            f"{directory.path} cannot be used: {error.strerror or error}; make room there, or set XDG_RUNTIME_DIR"
        ) from None


def _launch(
    plan: Plan, directory: RunDirectory, ram_fd: int, incoming: bool, listening: Callable[[], None]
) -> tuple[list[str], Child, int]:
    options = plan.options
    with contextlib.ExitStack() as ours:
        # We listen, QEMU inherits: everybody can connect from the first moment on, and again later.
        names = (files.DOORBELL, files.CONSOLE, files.QMP, *((files.HELPER,) if options.helper else ()))
        ports = map(files.exec_socket, range(files.EXEC_PORTS if options.channel else 0))
        sockets = [locks.listening(directory / name) for name in names]
        for sock in sockets:
            ours.callback(sock.close)
        doorbell, console, qmp, *helper = (sock.fileno() for sock in sockets)
        # More than one may wait there: a client that comes again while QEMU has not seen that it hung up.
        listeners = [locks.listening(directory / name, _WAITING) for name in ports]
        for sock in listeners:
            ours.callback(sock.close)
        channel = [sock.fileno() for sock in listeners]
        lock = directory.qemu_lock()
        ours.callback(os.close, lock)
        output, written = boundedlog.pipe()
        ours.callback(os.close, written)
        unread = ours.enter_context(contextlib.ExitStack())
        unread.callback(os.close, output)
        # For who adopts it: its descriptors of RAM and of what it says.
        os.write(lock, f"{ram_fd} {output}\n".encode())
        command = command_line(
            str(plan.qemu),
            nr_cpus=options.smp,
            topology=options.topology,
            ram_size=plan.ram_size,
            cpu=options.cpu,
            virtualization=options.has_el2,
            wiring=fd_wiring(
                str(directory / files.MONITOR),
                ram=ram_fd,
                doorbell=doorbell,
                console=console,
                qmp=qmp,
                helper=helper[0] if helper else None,
                channel=channel,
            ),
            reboot=plan.reboot,
            extra=(
                *plan.devices.arguments,
                # A guest that arrives finds its port still taken, by the QEMU that it comes from.
                *debugger.arguments(None if incoming else options.gdb),
                *options.qemu_args,
                *_waits(incoming, options.paused),
            ),
        )
        listening()
        try:
            child = Child(
                command,
                pass_fds=(ram_fd, lock, doorbell, console, qmp, *helper, *channel, output),
                log=written,
                stdin_pipe=False,
                die_with_parent=plan.die_with_owner,
            )
        except OSError as error:
            raise LaunchError(f"QEMU cannot be started: {error}", command=command) from None
        unread.pop_all()
        return command, child, output


def _waits(incoming: bool, paused: bool) -> tuple[str, ...]:
    """QEMU's options for a guest that does not run at once."""
    return INCOMING if incoming else (PAUSED,) if paused else ()
