"""The trace ring's file and its slots: the one description that its writer and its readers share.

The file is a mapping in the run directory, so it lives in the page cache and survives the process that writes it:

    header (one page) | meta: a JSON document | slots

A slot holds raw words. What they mean is found out when somebody reads them (`decode.py`), because whoever writes them
keeps a vCPU waiting.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from qemu_sdei.monitor.layout import Word

MAGIC: Final = 0x3145_4341_5254_5351  # "QSTRACE1"
VERSION: Final = 1
SLOTS: Final = 8192
"""Slots of a ring: a power of two. 1.5 MiB."""
MAX_SLOTS: Final = 1 << 20
SLOT_WORDS: Final = 24
SLOT_BYTES: Final = 8 * SLOT_WORDS

HEADER_BYTES: Final = 4096
META_BYTES: Final = 60 << 10
SLOTS_OFFSET: Final = HEADER_BYTES + META_BYTES


class Header(IntEnum):
    """Words of the header."""

    MAGIC = 0
    VERSION = 1
    SLOTS = 2
    COUNT = 3
    """Serial number of the newest record; the first one is 1. Written after the record."""
    META_LENGTH = 4
    """Bytes of the JSON document; 0 while it is being written."""
    SAVED = 5
    """Serial number of the newest record that is in the trace file of `run --trace`."""


class At(IntEnum):
    """Words of a slot."""

    TAG = 0
    """serial number << 20 | vCPU << 8 | `Type`; written last. A reader that finds another serial number was lapped."""
    TIME = 1
    """Host's monotonic clock, nanoseconds; of a FRAME nothing."""
    DATA = 2
    """From here on as the type says."""
    # FRAME, STAMPED: sixteen words of the frame as it was posted ...
    COUNTER = 2 + Word.COUNTER - Word.KIND
    # ... PC, PSTATE, X0, X1 as it was answered ...
    OUTCOME = 18
    ANSWER = 22
    """... and the answer's FLAGS, 16 bits, with the one transition that came of it, if one did: event << 32 |
    cause << 24 | old state << 16, where the cause is counted from 1.
    """


class Type(IntEnum):
    """What a slot holds."""

    FRAME = 1
    """A frame and its answer. The guest's counter in it says when."""
    TRANSITION = 2
    """DATA: event << 32 | cause << 24 | old state << 16."""
    TRIGGER = 3
    """DATA: event; `Outcome`."""
    TEXT = 4
    """DATA: length of a JSON object in bytes, then its first bytes; the rest in slots of type MORE behind it."""
    MORE = 5
    COUNTED = 6
    """DATA: function id; how many calls since the record before; host time of that one."""
    STAMPED = 7
    """A FRAME with TIME: of a call when it was answered, of another frame when the backend saw it."""


class Outcome(IntEnum):
    """What became of a trigger."""

    PENDING = 0
    MERGED = 1


NO_VCPU: Final = 0xFFF
IGNORED: Final = 0xFFFF
"""In place of FLAGS: the frame was not answered."""
STAMP_EVERY: Final = 64
"""Calls of which one is stamped: reading the clock costs as much as a third of a record, and from one to the next the
guest's counter is enough.
"""
POSTED: Final = slice(Word.KIND, Word.KIND + 16)
"""Of a frame: KIND to X5."""
DONE: Final = slice(Word.PC, Word.PC + 4)
"""Of a frame: PC, PSTATE, X0, X1."""
CAUSES: Final = (
    "REGISTER",
    "ENABLE",
    "DISABLE",
    "UNREGISTER",
    "ROUTING_SET",
    "RELEASE",
    "CONTEXT",
    "COMPLETE",
    "TRIGGER",
    "DISPATCH",
    "PE_RESET",
    "RESET",
)
"""Causes of transitions by their number in a slot: `sdei.transitions.Action` and the reset of the machine."""
TEXT_FIRST: Final = SLOT_BYTES - 8 * (At.DATA + 1)
TEXT_MORE: Final = SLOT_BYTES - 8 * At.DATA
MAX_TEXT: Final = 2048
"""Bytes of one TEXT record: a dozen slots."""


def file_size(slots: int) -> int:
    """Bytes of a ring's file."""
    return SLOTS_OFFSET + slots * SLOT_BYTES
