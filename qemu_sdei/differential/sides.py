"""The two firmwares of a comparison: ours, set up like the other one, and that other one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei import blobs
from qemu_sdei.conformance.image import ImageMachine, check_image
from qemu_sdei.conformance.machine import Machine, OurMachine
from qemu_sdei.differential.answers import Facts
from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.constants import INVALID_PARAMETERS, MAX_PRIVATE_SLOTS, MAX_SHARED_SLOTS
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import BUILTIN, GuestOptions

GUEST: Final = "compare"
MAX_CPUS: Final = 4
"""Each waits for the others at each step: more show nothing else, and cost."""
_M64: Final = (1 << 64) - 1
_VERSIONS: Final = {0x1_0000: "1.0", 0x1_0001: "1.1"}


class Side(Protocol):
    """One firmware."""

    @property
    def name(self) -> str:
        """For people."""

    def start(self) -> AbstractContextManager[Machine]:
        """A guest on it, that has not begun yet."""


@dataclass(frozen=True)
class OurSide:
    """Our firmware, with these options."""

    name: str
    options: GuestOptions

    def start(self) -> AbstractContextManager[Machine]:
        """As `Side`."""
        words = f"smp={self.options.smp}"
        append = f"{words} {self.options.append}".strip()
        # Nobody takes over a guest that was for one comparison.
        return OurMachine(replace(self.options, kernel=f"{BUILTIN}{GUEST}", append=append, die_with_owner=True))


@dataclass(frozen=True)
class ImageSide:
    """Another firmware: an image for QEMU's `virt,secure=on`, that enters the guest at `entry` (None: it has it)."""

    image: Path
    entry: int | None
    options: GuestOptions

    @property
    def name(self) -> str:
        """As `Side`."""
        return self.image.name

    def start(self) -> AbstractContextManager[Machine]:
        """As `Side`."""
        options = self.options
        words = f"smp={options.smp} {options.append}".strip()
        return ImageMachine(options, self.image, self.entry, blobs.read(GUEST), words)


def image_side(image: str | Path, entry: int | None, options: GuestOptions) -> ImageSide:
    """Raises `UsageError`: QEMU cannot take the image, or there is no such machine."""
    return ImageSide(check_image(image, entry, check_machine(options)[1]), entry, options)


def check_cpus(options: GuestOptions) -> None:
    """Raises `UsageError`: too many."""
    if not 1 <= options.smp <= MAX_CPUS:
        raise UsageError(f"--smp {options.smp}: sequences use 1 to {MAX_CPUS} vCPUs")


def has_sdei(facts: Facts) -> bool:
    """The firmware answers SDEI_VERSION."""
    return facts.get("version") >> 63 == 0 and facts.get("version") > 0


def like(options: GuestOptions, facts: Facts) -> GuestOptions:
    """`options` for a firmware of ours that is set up as the one of `facts`: configuration does not differ then.

    What the user has set stays.
    """
    changes: dict[str, Any] = {}
    word = facts.get("version")
    version = _VERSIONS.get((word >> 48 & 0x7FFF) << 16 | (word >> 32 & 0xFFFF))
    if options.sdei_version is None and version is not None:
        changes["sdei_version"] = version
    if options.sdei_vendor is None:
        changes["sdei_vendor"] = word & 0xFFFF_FFFF
    if options.sdei_signal is None:
        refused = facts.get("signal") == INVALID_PARAMETERS & _M64
        changes["sdei_signal"] = "invalid" if refused else "pend"
    if options.sdei_slots is None:
        changes["sdei_slots"] = slots(facts)
    return replace(options, **changes)


def slots(facts: Facts) -> tuple[int, int]:
    """How many PPIs and SPIs can be bound."""
    word = facts.get("slots")
    if word >> 63:
        return 0, 0
    return min(word & 0xFFFF, MAX_PRIVATE_SLOTS), min(word >> 16 & 0xFFFF, MAX_SHARED_SLOTS)
