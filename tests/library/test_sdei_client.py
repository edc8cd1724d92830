"""The client module's Python side, with a guest that answers from a table."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, ProtocolError, SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import Count, Dumps, SdeiClient, SdeiClientError, kernel_lines
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.vm.options import GuestOptions

STATUS = """\
version 1.1 vendor 0x4b564d
run-for 0
dumps 3 suppressed 2 lost 1
event 0x0 registered 1 enabled 1
cpu 0 event 0x0 count 4 returned 4
cpu 1 event 0x0 count 3 returned 2
"""
RECORD = (
    "cpu 1 number 2 event 0x100 parameter 0xdabfdabf time 81 pc 0xffff800008cbb554 pstate 0x604000c5 sp 0x10"
    + "".join(f" x{n} {n:#x}" for n in range(31))
)
USER = RECORD.replace("0x604000c5", "0x60000010").replace("time 81", "time 99") + "".join(
    f" c{n} {n:#x}" for n in range(18)
)


class FakeGuest:
    def __init__(self, answers: dict[str, str | CommandResult]) -> None:
        self.answers = answers
        self.commands: list[str] = []

    def run(self, command: str) -> CommandResult:
        self.commands.append(command)
        for part, answer in self.answers.items():
            if part in command:
                return answer if isinstance(answer, CommandResult) else CommandResult(0, answer)
        return CommandResult(0, "")


def client(**answers: str | CommandResult) -> tuple[SdeiClient, FakeGuest]:
    guest = FakeGuest(answers)  # keys: part of a command
    return SdeiClient(guest.run, "/x.ko"), guest


def test_status_as_objects() -> None:
    typed, _ = client(status=STATUS)
    assert typed.counts() == [Count(0, 0, 4, 4), Count(1, 0, 3, 2)]
    assert (typed.count(), typed.count(cpu=1), typed.count(event=1)) == (6, 2, 0)
    assert typed.dumps() == Dumps(3, 2, 1)


def test_records_as_objects() -> None:
    typed, guest = client(records=f"noise\n{USER}\n{RECORD}\n")
    user, kernel = typed.records(cpu=1, event=0x100, last=5)
    assert "tail -n 5" in guest.commands[-1]
    assert (kernel.cpu, kernel.number, kernel.event, kernel.pc) == (1, 2, 0x100, 0xFFFF800008CBB554)
    assert kernel.regs == tuple(range(31))
    assert kernel.context is None
    assert (kernel.user, kernel.aarch32, kernel.irqs_masked) == (False, False, True)
    assert user.context == tuple(range(18))
    assert (user.user, user.aarch32, user.irqs_masked) == (True, True, False)
    assert typed.record() == user, "the newest is not the last one of the last CPU"


def test_no_record() -> None:
    typed, _ = client()
    with pytest.raises(GuestError, match="no such event"):
        typed.record(cpu=0)


@pytest.mark.parametrize("line", ["cpu 1 number", "cpu 1 number x", "cpu 1 number 2 event 0x0"])
def test_records_that_are_none(line: str) -> None:
    typed, _ = client(records=line)
    with pytest.raises(ProtocolError):
        typed.records()


def test_commands_are_the_modules() -> None:
    typed, guest = client()
    typed.load([0, 0x100], verbose=3)
    typed.register(1)
    typed.route(0x200)
    typed.route(0x200, 1)
    typed.mask()
    typed.unmask(2)
    typed.irqs_off(1, 5)
    assert guest.commands[1:] == [
        "insmod /x.ko events=0x0,0x100 verbose=3 records=256",
        *(
            f"echo {words} >/proc/sdei_test/control"
            for words in ("register 0x1", "route 0x200 any", "route 0x200 1", "mask", "unmask 2", "irqs-off 1 5")
        ),
    ]


def test_what_the_guest_refuses() -> None:
    typed, _ = client(signal=CommandResult(1, "sh: write error: No such device\n"))
    with pytest.raises(SdeiClientError, match="'echo signal 9' failed: sh: write error: No such device") as error:
        typed.signal(9)
    assert error.value.errno == "No such device"


def test_a_module_of_another_kernel_is_not_loaded() -> None:
    words = "the client module is built for kernel 6.1, and this is 6.12"
    typed, guest = client(vermagic=CommandResult(1, f"{words}\n"))
    with pytest.raises(SdeiClientError, match=words):
        typed.load()
    assert len(guest.commands) == 1


def test_the_comparison_of_kernels_is_a_shell_s(tmp_path: Path) -> None:
    """Of any shell with tr and sed, on a file with bytes of all kinds in it."""
    ko = tmp_path / "x.ko"
    for release, status in ((os.uname().release, 0), ("6.1.0-other", 1)):
        ko.write_bytes(bytes(range(256)) + f"\0license=GPL\0vermagic={release} SMP mod_unload\0\xff".encode("latin-1"))
        done: list[int] = []

        def run(command: str, done: list[int] = done) -> CommandResult:
            if command.startswith("insmod"):
                return CommandResult(0, "")
            out = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
            done.append(out.returncode)
            return CommandResult(out.returncode, out.stdout)

        if status:
            with pytest.raises(SdeiClientError, match=r"built for kernel 6\.1\.0-other, and this is"):
                SdeiClient(run, str(ko)).load()
        else:
            SdeiClient(run, str(ko)).load()
        assert done == [status]


def test_an_event_that_the_kernel_keeps_for_itself_is_told() -> None:
    busy = CommandResult(1, "insmod: can't insert '/x.ko': Device or resource busy\n")
    typed, _ = client(insmod=busy)
    with pytest.raises(SdeiClientError, match=r"CONFIG_ARM_SDEI_NMI is set\): leave it out") as error:
        typed.load()
    assert error.value.errno == "Device or resource busy"


def test_a_guest_that_is_not_started_has_no_client() -> None:
    with pytest.raises(SdeiError, match="not started"):
        Guest(GuestOptions()).sdei_client()


def test_time_stamps_go() -> None:
    assert kernel_lines("[    1.500000] one\n[12345.678901] two\nthree") == ["one", "two", "three"]


PLACES = """\
watchdog event 0x40ff0000 interrupt 30 panic 0
cpu 1 ticks 23 lockups 1
lockup cpu 1 time 31 pc 0xffffa0f0fe32b668 pstate 0x800000c5 pid 38 comm kworker/1:1 name
  lr 0xffffa0f0c81aa4cc spin+0x44/0x68 [sdei_test]
  0xffffa0f0fd5992fc ktime_get_mono_fast_ns+0x4c/0xc8
  0xffffa0f0c81aa4cc spin+0x44/0x68 [sdei_test]
"""


def test_places_as_objects() -> None:
    typed, guest = client(lockups=PLACES, backtrace=PLACES.replace("lockup cpu", "backtrace cpu") + "silent cpu 0\n")
    (found,) = typed.lockups()
    assert (found.cpu, found.pid, found.comm, found.irqs_masked) == (1, 38, "kworker/1:1 name", True)
    assert found.stack == ("ktime_get_mono_fast_ns+0x4c/0xc8", "spin+0x44/0x68 [sdei_test]")
    assert found.lr == found.stack[1]
    assert typed.backtrace() == [found]
    typed.watchdog(500, panic=True)
    assert guest.commands[-1] == "echo watchdog 500 panic >/proc/sdei_test/control"


@pytest.mark.parametrize("line", ["lockup cpu x", "backtrace cpu 1 time 3 pc 0x1 pstate 0x5 pid 1", "lockup "])
def test_places_of_another_form_are_refused(line: str) -> None:
    typed, _ = client(lockups=line)
    with pytest.raises(ProtocolError, match="not of its form"):
        typed.lockups()


def test_names_from_the_guest_are_printable() -> None:
    typed, _ = client(lockups=PLACES.replace("name", "\x1b[2Jname"))
    assert "\x1b" not in typed.lockups()[0].comm
