"""`BootConfig`: what to boot, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from qemu_sdei import codec
from qemu_sdei.errors import UsageError

BUILTIN: Final = "builtin:"
"""Starts a `kernel` that the package carries: `builtin:selftest` is the flat binary `qemu_sdei/data/selftest.bin`."""

MAX_APPEND: Final = 2047
"""Bytes of a command line: arm64's COMMAND_LINE_SIZE less the NUL. Linux cuts what is longer without a word."""


ACPI_SIZE: Final = 0x20_0000
"""Bytes below the window that an ACPI boot takes (`area.py`): 2 MiB, so that what is left can be mapped in blocks."""


class Entry(NamedTuple):
    """How the boot CPU starts; all other registers are 0.

    Documentation/arch/arm64/booting.rst, "Call the kernel image".
    """

    pc: int
    x0: int
    """Physical address of the device tree."""
    x1: int
    """0 for Linux; physical address of the NUL-terminated command line for a flat binary."""


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What to load into guest RAM at a RESET frame, and where that RAM is."""

    kind: Literal["linux", "flat", "uefi"]
    """"uefi": nothing is loaded but the firmware, which boots what it finds."""
    kernel: str
    """Path of the kernel or binary, or `builtin:NAME` (flat only); empty with "uefi"."""
    initrd: str | None = None
    append: str = ""
    """The kernel command line."""
    tables: Literal["dt", "acpi"] = "dt"
    """What describes the machine to a Linux kernel."""
    uefi: str | None = None
    """Path of the UEFI image that is the guest's own firmware, and boots the kernel; None: the kernel is entered."""
    conduit: Literal["smc", "hvc"] = "smc"
    sdei: bool = True
    """Announce SDEI. (PSCI always is: without it there are no secondary CPUs and no power-off.)"""
    ram_base: int = 0x4000_0000
    ram_size: int = 1 << 30
    """Bytes of RAM that QEMU has, the hidden part included."""
    hidden_size: int = 0x20_0000
    """Bytes at the top of RAM that the guest is not told of: from `layout.window_base()` to the end of RAM, and before
    that the copy of its UEFI, if it has one.
    """
    nr_cpus: int = 1
    acpi_tables: tuple[str, ...] = ()
    """A user's own tables for an ACPI boot, in base64: see `user_tables.py`."""
    boot_errors: str = ""
    """What a BERT tells the first boot, in base64."""

    def __post_init__(self) -> None:
        if self.kind not in ("linux", "flat", "uefi"):
            raise UsageError(f"boot kind {self.kind!r}: give 'linux', 'flat' or 'uefi'")
        if (self.kind == "uefi") > (self.uefi is not None) or (self.kind == "flat" and self.uefi is not None):
            raise UsageError(f"boot kind {self.kind!r} and the UEFI image {self.uefi!r} cannot be together")
        if self.tables not in ("dt", "acpi"):
            raise UsageError(f"boot by {self.tables!r}: give 'dt' or 'acpi'")
        if self.tables == "acpi" and self.kind == "flat":
            raise UsageError("ACPI is for Linux kernels: a bare-metal guest of ours has no use for it")
        if self.conduit not in ("smc", "hvc"):
            raise UsageError(f"conduit {self.conduit!r}: give 'smc' or 'hvc'")
        if "\0" in self.append:
            raise UsageError("the kernel command line has a NUL character in it: take it out")
        try:
            length = len(self.append.encode(errors="surrogateescape"))
        except UnicodeEncodeError:
            raise UsageError("the kernel command line has characters that are no text: take them out") from None
        if length > MAX_APPEND:
            raise UsageError(f"the kernel command line has {length} bytes, Linux reads {MAX_APPEND}: make it shorter")
        if self.usable_size <= 0:
            raise UsageError(f"{self.ram_size:#x} bytes of memory leave nothing to the guest: give it more memory")

    @property
    def usable_size(self) -> int:
        """Bytes of RAM that the guest may use from its start on."""
        return self.ram_size - self.hidden_size - (ACPI_SIZE if self.tables == "acpi" else 0)

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object."""
        found: dict[str, Any] = codec.to_data(self)
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BootConfig:
        """The configuration that `to_json` wrote.

        Raises:
            UsageError: a key is unknown or missing, or a value has the wrong type.
        """
        try:
            return codec.from_data(cls, value)
        except codec.FieldError as error:
            raise UsageError(f"boot configuration: {error}") from None
