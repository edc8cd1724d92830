"""What stock Linux makes of hardware errors: the cases of docs/reference/linux-ras.md, and how one is tried.

`python -m tests.guest.linux_ras` tries all of them on one kernel and prints what came: for the table below, which
`test_linux_ras.py` asserts, and from which the page is printed (`--page`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.ras_observing import Observed
from qemu_sdei.ras import kinds
from qemu_sdei.ras.addresses import has_place
from qemu_sdei.ras.kinds import Section

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
ROOT_PORT: Final = ("-device", "pcie-root-port,id=rp1,addr=1")
"""The device 0000:00:01.0 that the PCIe section is about."""


@dataclass(frozen=True, order=True)
class Case:
    """An error."""

    section: str
    severity: str
    source: str = "v2-normal"


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    said: str = ""
    """The line of the kernel's log that tells it apart; "": nothing at all."""
    traced: str = ""
    """Trace events of `ras:`."""
    page: str = ""
    """What `memory_failure` made of the page; "": it was not called."""
    signal: str = ""
    """si_code of the SIGBUS that its process got."""


_TELLING: Final = (
    r"section_type: .*|section type: unknown.*",
    r"It has been corrected.*",
)


class Trial:
    """Tries cases on one guest, each at pages that no other had."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._next = 0x5000_0000

    def __call__(self, case: Case) -> Outcome:
        """What comes of it. Of a recoverable error the page is a victim's."""
        guest, section = self._guest, SECTIONS[case.section]
        pid = virtual = address = None
        if has_place(section):
            if case.severity == "recoverable":
                victim = guest.ras.victim()
                pid, virtual = victim.pid, victim.virtual
            else:
                self._next += 0x1000
                address = self._next
        report = guest.ras.inject(
            self._varied(section), severity=case.severity, source=case.source, pid=pid, virtual=virtual, address=address
        )
        assert report.outcome == "completed", (case, report)
        return outcome(self._settled(report.observed, wants_signal=pid is not None))

    def _varied(self, section: Section) -> Section:
        """The same with another FRU: Linux drops what is equal to one of the last ten seconds."""
        self._next += 0x1000
        if section.kind.name == "pcie":
            return section
        if section.kind.table is kinds.RAW:
            return kinds.raw(section.kind.guid, self._next.to_bytes(16, "little"))
        return section

    @staticmethod
    def _settled(look: object, *, wants_signal: bool) -> Observed:
        """What was observed when nothing more comes: work of the kernel's goes on after the handler."""
        assert callable(look)
        deadline = time.monotonic() + 20
        before = None
        while True:
            found: Observed = look()
            now = (len(found.log), len(found.trace), len(found.signals))
            quiet = before == now and (bool(found.signals) or not wants_signal or not _failed(found))
            if quiet or time.monotonic() > deadline:
                return found
            before = now


def _failed(found: Observed) -> bool:
    return any("Recovered" in line for line in found.log)


def outcome(found: Observed) -> Outcome:
    """What was observed, without what differs from run to run."""
    lines = [re.sub(r"^\{\d+\}\[Hardware Error\]: +", "", line) for line in found.log]
    said = next((line.strip() for line in lines if re.search(r"section_type: |section type: ", line)), "")
    actions = [match[1] for line in lines if (match := re.search(r"recovery action for (.*)", line))]
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
    for source in ("v2-critical", "v1-normal", "v1-critical"):
        for section in ("memory", "arm", "pcie"):
            for severity in ("corrected", "recoverable"):
                yield Case(section, severity, source)


def main(series: str) -> None:
    """Try all cases on a kernel, and print what came."""
    import tempfile
    from pathlib import Path

    from qemu_sdei.vm.options import GuestOptions

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(EVENTS)
        file.flush()
        options = GuestOptions(
            series=series, ras=True, helper=True, events=Path(file.name), qemu_args=ROOT_PORT, stall_timeout=600,
            start_timeout=300,
        )  # fmt: skip
        with Guest(options) as guest:
            guest.wait_shell(900)
            guest.run("dmesg -n 1; sysctl -w kernel.printk_ratelimit=0")
            trial = Trial(guest)
            for case in cases():
                try:
                    print(f"    {case}: {trial(case)},", flush=True)
                except Exception as error:
                    print(f"    # {case}: {type(error).__name__} {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
