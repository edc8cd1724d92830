"""The client module (`qemu_sdei/data/module/`) in a running Linux guest, as tests use it."""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import Record, SdeiClient
from qemu_sdei.host.client_module import build
from qemu_sdei.host.debian import DebianCache

KO = "/lib/sdei_test.ko"
"""Where the module is in the guest's initramfs."""


@cache
def module_for(series: str) -> Path:
    """The module for one of Debian's kernels."""
    debian = DebianCache()
    return build(debian, debian.kernel(series))


class Client:
    """The module in a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def shell(self, command: str) -> str:
        result = self.guest.run(command)
        assert result.status == 0, f"{command}: {result.status} {result.output}"
        return result.output

    def load(self, parameters: str = "") -> None:
        self.shell(f"dmesg -c >/dev/null; insmod {KO} {parameters}")

    def unload(self) -> None:
        self.shell("rmmod sdei_test")

    def log(self) -> list[str]:
        """The kernel log since `load`, without time stamps."""
        return [re.sub(r"^\[.*?\] ", "", line) for line in self.shell("dmesg").splitlines()]

    def do(self, command: str) -> str | None:
        """Write one command to the module's control file; the error, if it fails."""
        result = self.guest.run(f"echo {command} >/proc/sdei_test/control")
        return None if result.status == 0 else result.output.strip().rpartition(": ")[2]

    def proc(self) -> list[str]:
        """The module's status."""
        return self.shell("cat /proc/sdei_test/status").splitlines()

    def count(self, cpu: int, event: int = 0) -> tuple[int, int]:
        """Handlers that began and that returned."""
        pattern = rf"cpu {cpu} event {event:#x} count (\d+) returned (\d+)"
        (found,) = (match for line in self.proc() if (match := re.fullmatch(pattern, line)))
        return int(found[1]), int(found[2])

    def wait_count(self, cpu: int, event: int = 0, *, began: int = 1) -> None:
        """Wait until so many handlers have begun: a signal or an injection does not wait for its target."""
        deadline = time.monotonic() + 20
        while self.count(cpu, event)[0] < began:
            assert time.monotonic() < deadline, f"event {event:#x} did not arrive on CPU {cpu}"

    def dumps(self) -> list[tuple[int, list[str]]]:
        """(CPU, lines after the header) of every dump in the log."""
        assert self.do("flush") is None
        found: list[tuple[int, list[str]]] = []
        for line in self.log():
            if header := re.fullmatch(r"=========== SDEI Event \(CPU#(\d+)\) ===========", line):
                found.append((int(header[1]), []))
            elif found and re.match(r"Event: |PC: |Regs: |Context: | {9}[0-9a-f]{16}\b", line):
                # The kernel has something to say of its own at times, such as how long an hrtimer interrupt took.
                found[-1][1].append(line)
        return found

    def records(self, cpu: int | None = None, event: int | None = None) -> list[Record]:
        """What the module kept."""
        return SdeiClient(self.guest.run).records(cpu, event)

    def registered(self, event: int) -> list[bool]:
        """What the firmware has of an event's instances."""
        (known,) = (entry for entry in self.guest.status()["events"] if entry["event"] == event)
        return [instance["registered"] for instance in known["instances"]]
