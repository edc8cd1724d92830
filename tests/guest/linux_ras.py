"""What stock Linux makes of hardware errors: how one is tried, and the table of what came, `linux_ras.txt`.

`test_linux_ras.py` asserts the table, and docs/reference/linux-ras.md is printed from it:

    python -m tests.guest.linux_ras try 6.12       # tries all cases on that kernel, and prints their lines of the table
    python -m tests.guest.linux_ras page           # prints the page
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.ras_observing import Observed
from qemu_sdei.ras import kinds
from qemu_sdei.ras.addresses import has_place
from qemu_sdei.vm.options import GuestOptions

EVENTS: Final = """
[[event]]
number = 0
name = "software"
signalable = true

[[event]]
number = 0x320
name = "shared-normal"
type = "shared"

[[event]]
number = 0x321
name = "shared-critical"
type = "shared"
priority = "critical"

[[event]]
number = 0x322
name = "private-normal"

[[event]]
number = 0x323
name = "private-critical"
priority = "critical"

[[source]]
name = "v2-normal"
event = 0x320
block = 8192

[[source]]
name = "v2-critical"
event = 0x323

[[source]]
name = "v1-normal"
type = "ghes"
event = 0x322

[[source]]
name = "v1-critical"
type = "ghes"
event = 0x321
"""
"""Both versions of GHES, both priorities of events, both kinds."""

UNKNOWN: Final = UUID("12345678-1234-1234-1234-123456789abc")
CACHE: Final = {"type": "Cache Error"}
SECTIONS: Final = {
    "memory": kinds.Memory(memory_error_type="Multi-bit ECC"),
    "memory2": kinds.Memory2(memory_error_type="Multi-bit ECC"),
    "arm": kinds.Arm(mpidr_el1=0x8000_0000, error_information=[CACHE]),
    "processor": kinds.Processor(processor_error_type="Cache Error"),
    "pcie": kinds.Pcie(
        port_type="Root Port",
        device_id={"device_number": 1, "vendor_id": 0x1B36, "device_id": 0x0C},
        aer_info={"uncorrectable_error_status": {"completion_timeout": 1}},
    ),
    "firmware": kinds.Firmware(firmware_error_record_type=2),
    "cxl-protocol": kinds.CxlProtocol(),
    "cxl-general-media": kinds.CxlGeneralMedia(),
    "arm-ras": kinds.ArmRas(),
    "unknown": kinds.raw(UNKNOWN, b"0123456789abcdef"),
}
"""A section of each kind that kernels tell apart."""
TABLE: Final = Path(__file__).with_name("linux_ras.txt")
THRESHOLD: Final = 1 << 3
"""The flag of a data entry that says that there were too many corrected errors (ACPI 6.5 table 18.13)."""
ROOT_PORT: Final = ("-device", "pcie-root-port,id=rp1,addr=1")
"""The device 0000:00:01.0 that the PCIe section is about."""


@dataclass(frozen=True, order=True)
class Case:
    """An error."""

    section: str
    severity: str
    """With "threshold" behind it the flag is set that says that there were too many of them."""
    source: str = "v2-normal"


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    said: str = ""
    """The line of the kernel's log that tells it apart; "": nothing at all."""
    traced: str = ""
    """Trace events of `ras:`."""
    then: str = ""
    """What was done about it: to the page, to the device; "": nothing."""
    signal: str = ""
    """si_code of the SIGBUS that its process got."""


class Trial:
    """Tries cases on one guest, each at pages that no other had."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._next = 0x5000_0000

    def __call__(self, case: Case) -> Outcome:
        """What comes of it. Of a recoverable error the page is a victim's."""
        guest, section = self._guest, SECTIONS[case.section]
        pid = virtual = address = None
        severity, _, threshold = case.severity.partition(" ")
        self._next += 0x1000
        if has_place(section):
            if severity == "recoverable" or threshold:
                victim = guest.ras.victim()
                pid, virtual = victim.pid, victim.virtual
            else:
                address = self._next
        report = guest.ras.inject(
            section,
            severity=severity,
            source=case.source,
            pid=pid,
            virtual=virtual,
            address=address,
            flags=THRESHOLD if threshold else None,
            # Linux drops what is equal to one of the last ten seconds.
            fru_text=str(self._next),
            timeout=30,
        )
        assert report.outcome == "completed", (case, report)
        recovers = case.section == "pcie" and severity == "recoverable"
        return outcome(self._settled(report.observed, wants_signal=pid is not None, wants_recovery=recovers))

    @staticmethod
    def _settled(look: Callable[[], Observed], *, wants_signal: bool, wants_recovery: bool) -> Observed:
        """What was observed when nothing more comes: work of the kernel's goes on after the handler."""
        deadline = time.monotonic() + 20
        before = None
        while True:
            found = look()
            now = (len(found.log), len(found.trace), len(found.signals))
            awaits = wants_signal and _page_goes(found) and not found.signals
            awaits = awaits or (wants_recovery and not _recovered(found))
            quiet = before == now and not awaits
            if quiet or time.monotonic() > deadline:
                return found
            before = now


def _page_goes(found: Observed) -> bool:
    return any("recovery action for" in line for line in found.log)


def _recovered(found: Observed) -> list[str]:
    """What the kernel says of a device that it has tried to recover."""
    return [match[1] for line in found.log if (match := re.search(r"(device recovery .*)", line))]


def outcome(found: Observed) -> Outcome:
    """What was observed, without what differs from run to run."""
    lines = [re.sub(r"^\{\d+\}\[Hardware Error\]: +", "", line) for line in found.log]
    said = next((line.strip() for line in lines if re.search(r"section_type: |section type: ", line)), "")
    actions = [match[1] for line in lines if (match := re.search(r"recovery action for (.*)", line))]
    if found.corrupted and not actions:
        actions = ["page taken out of use, nothing is said"]
    actions += _recovered(found)
    return Outcome(
        said,
        ", ".join(dict.fromkeys(each.name for each in found.trace if each.name != "signal_generate")),
        ", ".join(actions),
        ", ".join(str(each.code) for each in found.signals),
    )


def cases() -> Iterator[Case]:
    """All that the page tells of, but fatal ones: each of these costs a kernel."""
    for section in SECTIONS:
        for severity in ("informational", "corrected", "recoverable"):
            yield Case(section, severity)
    yield Case("memory", "corrected threshold")
    for source in ("v2-critical", "v1-normal", "v1-critical"):
        for section in ("memory", "arm", "pcie"):
            for severity in ("corrected", "recoverable"):
                yield Case(section, severity, source)


def lines() -> list[list[str]]:
    """The cells of the table: kernels, those of a case, those of its outcome."""
    found = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return [[cell.strip() for cell in line.split("|")] for line in found]


def table(series: str) -> dict[Case, Outcome]:
    """What is known to come of each case on this kernel."""
    return {Case(*cells[1:4]): Outcome(*cells[4:]) for cells in lines() if series in cells[0].split(", ")}


def line_of(series: str, case: Case, came: Outcome) -> str:
    """A line of the table."""
    return " | ".join((series, *astuple(case), *astuple(came))).rstrip()


def page() -> str:
    """docs/reference/linux-ras.md."""
    head, tail = Path(__file__).with_name("linux_ras.in").read_text().split("@TABLE@\n")
    rows = ["| kernel | section | severity | source | its log | trace events | then | si_code |", "|" + "---|" * 8]
    rows += ["| " + " | ".join(cells + [""] * (8 - len(cells))) + " |" for cells in lines()]
    return head + "\n".join(rows) + "\n" + tail


def options(series: str, events: Path) -> GuestOptions:
    """A guest that the cases can be tried on; `events` is a file with `EVENTS`."""
    events.write_text(EVENTS)
    return GuestOptions(series=series, ras=True, helper=True, events=events, qemu_args=ROOT_PORT)


def prepared(guest: Guest) -> Trial:
    """A kernel that prints all that it has to say, but not on its console."""
    guest.wait_shell()
    guest.run("dmesg -n 1; sysctl -w kernel.printk_ratelimit=0")
    return Trial(guest)


def try_all(series: str) -> None:
    """Try all cases on a kernel, and print what came."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = replace(options(series, Path(folder) / "events.toml"), boot_timeout=600, start_timeout=300)
        with Guest(wanted) as guest:
            trial = prepared(guest)
            for case in cases():
                try:
                    print(line_of(series, case, trial(case)), flush=True)
                except SdeiError as error:
                    print(f"# {case}: {error}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        print(page(), end="")
    else:
        try_all(sys.argv[2])
