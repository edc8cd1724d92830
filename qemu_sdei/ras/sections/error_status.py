"""The error status that several sections have (UEFI 2.10 appendix N, "Error Status")."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, bits, key, word

ERROR_TYPES: Final = {
    1: "ERR_INTERNAL",
    16: "ERR_BUS",
    4: "ERR_MEM",
    5: "ERR_TLB",
    6: "ERR_CACHE",
    7: "ERR_FUNCTION",
    8: "ERR_SELFTEST",
    9: "ERR_FLOW",
    17: "ERR_MAP",
    18: "ERR_IMPROPER",
    19: "ERR_UNIMPL",
    20: "ERR_LOL",
    21: "ERR_RESPONSE",
    22: "ERR_PARITY",
    23: "ERR_PROTOCOL",
    24: "ERR_ERROR",
    25: "ERR_TIMEOUT",
    26: "ERR_POISONED",
}
_NOTES: Final = {
    1: "inside of the component",
    16: "on the bus",
    4: "storage error in DRAM",
    5: "storage error in a TLB",
    6: "storage error in a cache",
    7: "in a functional unit",
    8: "the component failed its self test",
    9: "overflow or underflow of an internal queue",
    17: "no such virtual address in IO-TLB or IO-PDIR",
    18: "improper access",
    19: "access to an address that no component has",
    20: "loss of lockstep",
    21: "a response to no request",
    22: "bus parity",
    23: "protocol error",
    24: "PATH_ERROR",
    25: "bus timeout",
    26: "poisoned data were read",
}

ERROR_STATUS: Final = word(
    bits(8, 15, "Error Type", names=ERROR_TYPES, notes=_NOTES, json=key("errorType", note="description")),
    bit(16, "Address", json=key("addressSignal")),
    bit(17, "Control", json=key("controlSignal")),
    bit(18, "Data", json=key("dataSignal")),
    bit(19, "Responder", json=key("detectedByResponder")),
    bit(20, "Requester", json=key("detectedByRequester")),
    bit(21, "First Error"),
    bit(22, "Overflow", json=key("overflowDroppedLogs")),
    title="Error Status",
)
