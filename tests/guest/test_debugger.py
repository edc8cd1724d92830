"""`--gdb`: a debugger stops a guest, and finds its kernel where the vmlinux says."""

from __future__ import annotations

import socket

import pytest

from qemu_sdei import Guest, GuestOptions

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


def test_a_debugger_stops_the_guest_and_lets_it_go() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Guest(GuestOptions(series="6.12", gdb=port)) as guest:
        # Where it was linked to: what KASLR adds is a multiple of 64 KiB that is never 0 there.
        place = guest.run("grep ' T _text$' /proc/kallsyms").output.split()[0]
        assert place == "ffff800080000000"
        with socket.create_connection(("127.0.0.1", port), 10) as gdb:
            gdb.settimeout(10)
            gdb.sendall(b"+$?#3f")
            said = b""
            while b"$T" not in said:
                said += gdb.recv(4096)
            gdb.sendall(b"+$D#44")
            while b"$OK" not in said:
                said += gdb.recv(4096)
        assert guest.run("nproc").output.strip() == "2"
