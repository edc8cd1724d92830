"""How the OS hears of an error: the Hardware Error Notification structure (ACPI 6.5 18.3.2.9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import Struct, flags, named, u8, u16, u32


class NotificationType(IntEnum):
    """How an error is made known (ACPI 6.5 table 18.14)."""

    POLLED = 0
    EXTERNAL_INTERRUPT = 1
    LOCAL_INTERRUPT = 2
    SCI = 3
    NMI = 4
    CMCI = 5
    MCE = 6
    GPIO_SIGNAL = 7
    SEA = 8
    SEI = 9
    GSIV = 10
    SDEI = 11


_NOTIFICATION_WORDS: Final = {
    5: "CMCI", 6: "MCE", 3: "SCI", 4: "NMI", 7: "GPIO signal", 8: "Armv8 SEA", 9: "Armv8 SEI",
    10: "external interrupt by GSIV", 11: "Software Delegated Exception (SDEI)",
}  # fmt: skip
_CONFIG_WRITE = flags(
    {0: "type", 1: "poll interval", 2: "polling threshold value", 3: "polling threshold window",
     4: "error threshold value", 5: "error threshold window"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Notification(Struct):
    """The Hardware Error Notification structure: 28 bytes (ACPI 6.5 18.3.2.9)."""

    type: int = u8("Type", words=named(NotificationType, _NOTIFICATION_WORDS))
    """A `NotificationType`."""
    length: int = u8("Length", default=28)
    config_write_enable: int = u16("Configuration Write Enable", words=_CONFIG_WRITE)
    poll_interval: int = u32("Poll Interval")
    """Milliseconds."""
    vector: int = u32("Vector")
    """Number of the interrupt or of the SDEI event."""
    polling_threshold_value: int = u32("Switch To Polling Threshold Value")
    polling_threshold_window: int = u32("Switch To Polling Threshold Window")
    """Milliseconds."""
    error_threshold_value: int = u32("Error Threshold Value")
    error_threshold_window: int = u32("Error Threshold Window")
    """Milliseconds."""

    @classmethod
    def sdei(cls, event: int) -> Self:
        """By SDEI event `event`.

        Raises:
            TableError: the event is 0, which is not the platform's to signal (DEN0054: it is the software event).
        """
        if event == 0:
            raise TableError("event 0 is the software-signalled one: no error source can use it", field="vector")
        return cls(type=NotificationType.SDEI, vector=event)

    @classmethod
    def sea(cls) -> Self:
        """By a synchronous external abort (Armv8 SEA)."""
        return cls(type=NotificationType.SEA)

    @classmethod
    def interrupt(cls, vector: int) -> Self:
        """By an external interrupt: its global system interrupt number. Linux on arm64 cannot take it: see `gsiv`."""
        return cls(type=NotificationType.EXTERNAL_INTERRUPT, vector=vector)

    @classmethod
    def gsiv(cls, vector: int) -> Self:
        """By the interrupt with this GSIV, which a device of the namespace takes (`qemu_sdei.acpi.hed`)."""
        return cls(type=NotificationType.GSIV, vector=vector)

    @classmethod
    def polled(cls, interval: int) -> Self:
        """Not at all: the OS looks each `interval` milliseconds.

        Raises:
            TableError: the interval is 0, and Linux refuses such a source.
        """
        if interval == 0:
            raise TableError("an interval of 0 ms is none", field="poll_interval")
        return cls(type=NotificationType.POLLED, poll_interval=interval)
