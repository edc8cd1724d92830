"""A debugger at a guest: what QEMU, the kernel and the user are told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.vm import debugger


def test_the_kernel_stays_where_its_vmlinux_says() -> None:
    assert debugger.command_line("console=ttyAMA0") == "console=ttyAMA0 nokaslr"
    assert debugger.command_line("nokaslr quiet") == "nokaslr quiet"
    assert debugger.command_line("") == "nokaslr"


def test_only_this_host_reaches_the_port() -> None:
    assert debugger.arguments(1234) == ("-gdb", "tcp:127.0.0.1:1234")
    assert debugger.arguments(None) == ()


def test_what_to_type_is_told() -> None:
    text = debugger.told(1234, Path("/tree of mine/vmlinux"))
    assert "gdb-multiarch '/tree of mine/vmlinux' -ex 'target remote 127.0.0.1:1234'" in text
    assert "nokaslr" in text
    assert "build tree" in debugger.told(1234, None)


def test_a_port_that_cannot_be() -> None:
    for port in (0, -1, 65536):
        with pytest.raises(UsageError, match="is not a TCP port"):
            debugger.check(port)
    with socket.socket() as taken:
        taken.bind((debugger.HOST, 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"cannot be used \(Address already in use\)"):
            debugger.check(taken.getsockname()[1])
        port = taken.getsockname()[1]
    debugger.check(port)
