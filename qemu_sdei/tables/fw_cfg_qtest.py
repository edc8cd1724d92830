"""What QEMU offers its firmware in fw_cfg, read from outside: a machine is made, never started, and asked by qtest.

For looking at a machine's ACPI tables without booting it. A guest's own tables are read at its RESET frame instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import LaunchError
from qemu_sdei.host import memory
from qemu_sdei.vm.process import complaints, describe_exit
from qemu_sdei.vm.qemu_command import Wiring, command_line

TIMEOUT: Final = 30.0
"""Seconds that QEMU has to come up and to answer."""
MAX_FILE: Final = 16 << 20
"""Bytes of one file."""

_DMA_REGISTER: Final = 0x0902_0010
"""Of the `virt` machine (docs/specs/fw_cfg.rst: offset 16)."""
_BUFFER: Final = RAM_BASE + (16 << 20)
"""Where in the machine's RAM, which nothing uses, QEMU puts what it is asked for."""
_DIRECTORY: Final = 0x19
_ERROR, _READ, _SELECT = 1, 2, 8
_MAX_ENTRIES: Final = 4096


More = Callable[[Mapping[str, bytes]], Iterable[str]]


class _Qtest:
    """The line protocol of `-qtest` (QEMU's system/qtest.c): guest physical memory from outside."""

    def __init__(self, connection: socket.socket) -> None:
        self._deadline = time.monotonic() + TIMEOUT
        self._connection = connection
        self._buffer = b""
        self.lost = False
        """QEMU's end is closed: it is ending, or has ended."""

    def _ask(self, line: str) -> str:
        try:
            self._connection.settimeout(max(self._deadline - time.monotonic(), 0.01))
            self._connection.sendall(line.encode() + b"\n")
            while b"\n" not in self._buffer:
                self._connection.settimeout(max(self._deadline - time.monotonic(), 0.01))
                data = self._connection.recv(1 << 16)
                if not data or len(self._buffer) > 4 * MAX_FILE:
                    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                self._buffer += data
        except TimeoutError:
            raise LaunchError(f"QEMU did not answer within {TIMEOUT:g} s: waited for its tables") from None
        except OSError as error:
            self.lost = True
            raise LaunchError(f"QEMU's tables cannot be read: {error.strerror or error}") from None
        answer, _, self._buffer = self._buffer.partition(b"\n")
        words = answer.decode("ascii", "replace").split(maxsplit=1)
        if not words or words[0] != "OK":
            raise LaunchError(f"QEMU did not take {line.split()[0]!r}: {answer[:80]!r}")
        return words[1] if len(words) > 1 else ""

    def write(self, address: int, data: bytes) -> None:
        self._ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def read(self, address: int, size: int) -> bytes:
        try:
            data = bytes.fromhex(self._ask(f"read {address:#x} {size:#x}").removeprefix("0x"))
        except ValueError:
            data = b""
        if len(data) != size:
            raise LaunchError("QEMU's answer cannot be understood: waited for its tables")
        return data


def _item(qtest: _Qtest, key: int, size: int) -> bytes:
    """The first `size` bytes of the item `key`, by the device's DMA interface."""
    request = struct.pack(">IIQ", key << 16 | _SELECT | _READ, size, _BUFFER + 16)
    qtest.write(_BUFFER, request)
    qtest.write(_DMA_REGISTER, struct.pack(">Q", _BUFFER))
    (control,) = struct.unpack(">I", qtest.read(_BUFFER, 4))
    if control:
        raise LaunchError(f"QEMU's fw_cfg refused to give item {key:#x} (control is {control:#x})")
    return qtest.read(_BUFFER + 16, size)


def _files(qtest: _Qtest, names: Iterable[str], more: More) -> dict[str, bytes]:
    (count,) = struct.unpack(">I", _item(qtest, _DIRECTORY, 4))
    if count > _MAX_ENTRIES:
        raise LaunchError(f"QEMU's fw_cfg says that it has {count} files")
    entries = _item(qtest, _DIRECTORY, 4 + 64 * count)[4:]
    there = {
        name.partition(b"\0")[0].decode("latin-1"): (size, key)
        for size, key, name in struct.iter_unpack(">IH2x56s", entries)
    }
    found: dict[str, bytes] = {}

    def get(wanted: Iterable[str]) -> None:
        for name in wanted:
            if name not in there:
                raise LaunchError(f"this QEMU machine has no {name}: it has no ACPI tables, or unusual ones")
            size, key = there[name]
            if size > MAX_FILE:
                raise LaunchError(f"QEMU's {name} has {size} bytes; at most {MAX_FILE >> 20} MiB are read")
            found[name] = _item(qtest, key, size)

    get(names)
    get(more(found))
    return found


def read_files(
    names: Sequence[str],
    *,
    qemu: Path,
    nr_cpus: int,
    topology: str = "",
    ram_size: int,
    cpu: str,
    virtualization: bool,
    extra: Sequence[str] = (),
    more: More = lambda _: (),
) -> Mapping[str, bytes]:
    """The fw_cfg files `names` of the machine that `run` would start with the same options.

    Args:
        extra: the end of QEMU's command line.
        more: called with the files; says which others are wanted because of what is in them.

    Raises:
        LaunchError: QEMU does not make this machine, has no such file, or did not answer in time.
        UsageError: there is not enough memory.
    """
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs, socket.socket(socket.AF_UNIX) as doorbell:
            doorbell.bind("")  # Linux gives it an abstract name: nothing is in the file system
            doorbell.listen(1)
            ram = memory.create(ram_size, None)
            stack.callback(os.close, ram)
            firmware = os.memfd_create("qemu-sdei-none", os.MFD_CLOEXEC)
            stack.callback(os.close, firmware)
            os.write(firmware, bytes(16))
            qtest = theirs.fileno()
            words = command_line(
                str(qemu),
                nr_cpus=nr_cpus,
                topology=topology,
                ram_size=ram_size,
                cpu=cpu,
                virtualization=virtualization,
                wiring=Wiring(
                    ram=f"/proc/self/fd/{ram}",
                    doorbell=f"fd={doorbell.fileno()}",
                    console=("-serial", "null"),
                    # Nothing is ever executed: any file serves as firmware.
                    monitor=f"/proc/self/fd/{firmware}",
                ),
                reboot=True,
                extra=[*extra, "-S", "-chardev", f"socket,id=qtest,fd={qtest}", "-qtest", "chardev:qtest",
                       "-qtest-log", "none"],
            )  # fmt: skip
            output, process = _start(stack, words, (ram, firmware, doorbell.fileno(), qtest))
        client = _Qtest(ours)
        try:
            return _files(client, names, more)
        except LaunchError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1 if client.lost else 0)
            said = complaints(output.read_text(errors="replace"))
            if process.returncode is None:
                raise
            end = describe_exit(process.returncode)
            message = f"QEMU {end} before its tables could be read" + (f": {said[-1]}" if said else "")
            raise LaunchError(message) from error


def _start(stack: contextlib.ExitStack, words: list[str], fds: Sequence[int]) -> tuple[Path, subprocess.Popen[bytes]]:
    """Start QEMU, to be ended with `stack`; return the file with what it says."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qemu-sdei-")))
    output = directory / "qemu.log"
    if setpriv := shutil.which("setpriv"):
        words = [setpriv, "--pdeathsig", "KILL", "--", *words]
    with output.open("wb") as log:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=tuple(fds), start_new_session=True
            )
        except OSError as error:
            raise LaunchError(f"QEMU cannot be started: {error.strerror}") from None
    stack.enter_context(_ended(process))
    return output, process


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()
