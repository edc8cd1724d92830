"""A debugger at a guest: QEMU's gdb server, and what its user must know to begin."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

HOST: Final = "127.0.0.1"
"""Whoever can reach the port can do anything to the guest, so no other host can."""
NO_KASLR: Final = "nokaslr"
"""Word for the kernel command line: the kernel then lies where its vmlinux says."""


def check(port: int) -> None:
    """Raise `UsageError`: `port` is none, or somebody has it."""
    if not 1 <= port <= 65535:
        raise UsageError(f"--gdb {port} is not a TCP port: give 1 to 65535, such as 1234")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(f"--gdb {port}: the port cannot be used ({error.strerror}): give another one") from None


def arguments(port: int | None) -> tuple[str, ...]:
    """Options for QEMU."""
    return () if port is None else ("-gdb", f"tcp:{HOST}:{port}")


def command_line(append: str) -> str:
    """A kernel command line with which addresses are those of vmlinux; a word of the user's own stays."""
    return append if re.search(rf"(?:^|\s){NO_KASLR}(?:\s|$)", append) else f"{append} {NO_KASLR}".strip()


def told(port: int, vmlinux: Path | None) -> str:
    """What to type, and what of the kernel's addresses is to be known, in one line."""
    symbols = "" if vmlinux is None else f"{shlex.quote(str(vmlinux))} "
    hint = "" if vmlinux is not None else "; its symbols are in a vmlinux, which a build tree as --kernel has"
    return (
        f"gdb: `gdb-multiarch {symbols}-ex 'target remote {HOST}:{port}'`; {NO_KASLR} is on the kernel's command line, "
        f"so addresses are those of its vmlinux{hint}"
    )
