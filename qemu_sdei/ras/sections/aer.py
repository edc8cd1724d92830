"""PCI Express registers that a PCIe error section carries: Advanced Error Reporting, and the capability (PCIe base
specification 6.0, 7.8.4 and 7.5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qemu_sdei.ras.declare import bit, bits, key, octets, u8, word, x32
from qemu_sdei.ras.fields import Bits, Field, Word, attribute
from qemu_sdei.ras.structure import Table

_UNCORRECTABLE: Final = {
    4: "Data Link Protocol Error",
    5: "Surprise Down Error",
    12: "Poisoned TLP Received",
    13: "Flow Control Protocol Error",
    14: "Completion Timeout",
    15: "Completer Abort",
    16: "Unexpected Completion",
    17: "Receiver Overflow",
    18: "Malformed TLP",
    19: "ECRC Error",
    20: "Unsupported Request Error",
    21: "ACS Violation",
    22: "Uncorrectable Internal Error",
    23: "MC Blocked TLP",
    24: "AtomicOp Egress Blocked",
    25: "TLP Prefix Blocked Error",
    26: "Poisoned TLP Egress Blocked",
    27: "DMWr Request Egress Blocked",
    28: "IDE Check Failed",
    29: "Misrouted IDE TLP",
    30: "PCRC Check Failed",
    31: "TLP Translation Egress Blocked",
}
_CORRECTABLE: Final = {
    0: "Receiver Error",
    6: "Bad TLP",
    7: "Bad DLLP",
    8: "Replay Num Rollover",
    12: "Replay Timer Timeout",
    13: "Advisory Non-Fatal Error",
    14: "Corrected Internal Error",
    15: "Header Log Overflow",
}


def _errors(names: Mapping[int, str], what: str, meaning: Mapping[int, str] | None = None) -> Word:
    """A register with a bit for each error."""
    return word(
        *(
            bit(low, name, names=dict(meaning or {}), json=key(f"{attribute(name)}_{what}", word_only=bool(meaning)))
            for low, name in names.items()
        )
    )


def _register(size: int, title: str, *fields: Bits, **more: Any) -> Field:
    """A register of some bytes; libcper calls those in lower case."""
    named = word(*fields, partial=True) if fields else None
    return Field(title=title, size=size, word=named, hexadecimal=True, json=key(attribute(title)), **more)


def _snake(low: int, high: int, title: str, **more: Any) -> Bits:
    return bits(low, high, title, json=key(attribute(title)), **more)


_SEVERITY: Final = {0: "NonFatal", 1: "Fatal"}

AER: Final = Table(
    "aer",
    "AER Capability",
    (
        _register(
            4,
            "Capability Header",
            _snake(0, 15, "Capability ID", hexadecimal=True),
            _snake(16, 19, "Capability Version"),
            _snake(20, 31, "Next Capability Offset", hexadecimal=True),
            default=0x0001_0001,  # AER, version 1, nothing follows
        ),
        x32(
            "Uncorrectable Error Status", word=_errors(_UNCORRECTABLE, "status"), json=key("uncorrectable_error_status")
        ),
        x32("Uncorrectable Error Mask", word=_errors(_UNCORRECTABLE, "mask"), json=key("uncorrectable_error_mask")),
        x32(
            "Uncorrectable Error Severity",
            word=_errors(_UNCORRECTABLE, "severity", _SEVERITY),
            json=key("uncorrectable_error_severity"),
        ),
        x32("Correctable Error Status", word=_errors(_CORRECTABLE, "status"), json=key("correctable_error_status")),
        x32("Correctable Error Mask", word=_errors(_CORRECTABLE, "mask"), json=key("correctable_error_mask")),
        _register(
            4,
            "Advanced Error Capabilities and Control",
            _snake(0, 4, "First Error Pointer"),
            _snake(5, 5, "ECRC Generation Capable"),
            _snake(6, 6, "ECRC Generation Enable"),
            _snake(7, 7, "ECRC Check Capable"),
            _snake(8, 8, "ECRC Check Enable"),
            _snake(9, 9, "Multiple Header Recording Capable"),
            _snake(10, 10, "Multiple Header Recording Enable"),
            _snake(11, 11, "TLP Prefix Log Present"),
            _snake(12, 12, "Completion Timeout Prefix Header Log Capable"),
            _snake(13, 17, "Header Log Size"),
            _snake(18, 18, "Logged TLP was Flit Mode"),
            _snake(19, 23, "Logged TLP Size"),
        ),
        *(_register(4, f"Header Log {number}") for number in range(4)),
        _register(
            4,
            "Root Error Command",
            _snake(0, 0, "Correctable Error Reporting Enable"),
            _snake(1, 1, "Non-Fatal Error Reporting Enable"),
            _snake(2, 2, "Fatal Error Reporting Enable"),
        ),
        _register(
            4,
            "Root Error Status",
            _snake(0, 0, "ERR_COR Received"),
            _snake(1, 1, "Multiple ERR_COR Received"),
            _snake(2, 2, "ERR_FATAL/NONFATAL Received"),
            _snake(3, 3, "Multiple ERR_FATAL/NONFATAL Received"),
            _snake(4, 4, "First Uncorrectable Fatal"),
            _snake(5, 5, "Non-Fatal Error Messages Received"),
            _snake(6, 6, "Fatal Error Messages Received"),
            _snake(7, 8, "ERR_COR Subclass"),
            _snake(27, 31, "Advanced Error Interrupt Message Number"),
        ),
        _register(
            4,
            "Error Source ID",
            _snake(0, 15, "ERR_COR Source Identification", hexadecimal=True),
            _snake(16, 31, "ERR_FATAL/NONFATAL Source Identification", hexadecimal=True),
        ),
        *(_register(4, f"TLP Prefix Log {number}") for number in range(4)),
        octets(24, "Further Registers", json=key("further_registers")),
    ),
    source="PCIe 6.0 7.8.4",
)

PORT_TYPES: Final = {
    0: "PCI Express Endpoint",
    1: "Legacy PCI Endpoint",
    4: "Root Port",
    5: "Upstream Switch Port",
    6: "Downstream Switch Port",
    7: "PCI Express to PCI/PCI-X Bridge",
    8: "PCI/PCI-X to PCI Express Bridge",
    9: "Root Complex Integrated Endpoint Device",
    10: "Root Complex Event Collector",
}

CAPABILITY: Final = Table(
    "pcie-capability",
    "PCI Express Capability",
    (
        u8("Capability ID", hexadecimal=True, default=0x10),
        u8("Next Capability Pointer", hexadecimal=True),
        _register(
            2,
            "PCIe Capabilities",
            _snake(0, 3, "Capability Version"),
            _snake(4, 7, "Device/Port Type", names=PORT_TYPES),
            _snake(8, 8, "Slot Implemented"),
            _snake(9, 13, "Interrupt Message Number"),
            _snake(15, 15, "Flit Mode Supported"),
        ),
        _register(4, "Device Capabilities"),
        _register(
            2,
            "Device Control",
            _snake(0, 0, "Correctable Error Reporting Enable"),
            _snake(1, 1, "Non-Fatal Error Reporting Enable"),
            _snake(2, 2, "Fatal Error Reporting Enable"),
            _snake(3, 3, "Unsupported Request Reporting Enable"),
            _snake(4, 4, "Relaxed Ordering Enable"),
            _snake(5, 7, "Max Payload Size"),
            _snake(12, 14, "Max Read Request Size"),
            _snake(15, 15, "Bridge Configuration Retry / Function Level Reset"),
        ),
        _register(
            2,
            "Device Status",
            _snake(0, 0, "Correctable Error Detected"),
            _snake(1, 1, "Non-Fatal Error Detected"),
            _snake(2, 2, "Fatal Error Detected"),
            _snake(3, 3, "Unsupported Request Detected"),
            _snake(4, 4, "AUX Power Detected"),
            _snake(5, 5, "Transactions Pending"),
            _snake(6, 6, "Emergency Power Reduction Detected"),
        ),
        _register(4, "Link Capabilities", _snake(0, 3, "Max Link Speed"), _snake(4, 9, "Maximum Link Width")),
        _register(2, "Link Control", _snake(0, 1, "ASPM Control"), _snake(4, 4, "Link Disable")),
        _register(
            2,
            "Link Status",
            _snake(0, 3, "Current Link Speed"),
            _snake(4, 9, "Negotiated Link Width"),
            _snake(11, 11, "Link Training"),
            _snake(12, 12, "Slot Clock Configuration"),
            _snake(13, 13, "Data Link Layer Link Active"),
            _snake(14, 14, "Link Bandwidth Management Status"),
            _snake(15, 15, "Link Autonomous Bandwidth Status"),
        ),
        _register(4, "Slot Capabilities", _snake(19, 31, "Physical Slot Number")),
        _register(2, "Slot Control"),
        _register(
            2,
            "Slot Status",
            _snake(0, 0, "Attention Button Pressed"),
            _snake(1, 1, "Power Fault Detected"),
            _snake(2, 2, "MRL Sensor Changed"),
            _snake(3, 3, "Presence Detect Changed"),
            _snake(4, 4, "Command Completed"),
            _snake(5, 5, "MRL Sensor State"),
            _snake(6, 6, "Presence Detect State"),
            _snake(8, 8, "Data Link Layer State Changed"),
        ),
        _register(2, "Root Control"),
        _register(2, "Root Capabilities"),
        _register(
            4,
            "Root Status",
            _snake(0, 15, "PME Requester ID"),
            _snake(16, 16, "PME Status"),
            _snake(17, 17, "PME Pending"),
        ),
        _register(4, "Device Capabilities 2"),
        _register(2, "Device Control 2"),
        _register(2, "Device Status 2"),
        _register(4, "Link Capabilities 2"),
        _register(2, "Link Control 2"),
        _register(2, "Link Status 2"),
        _register(4, "Slot Capabilities 2"),
        _register(2, "Slot Control 2"),
        _register(2, "Slot Status 2"),
    ),
    source="PCIe 6.0 7.5.3",
)
