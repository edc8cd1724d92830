"""SDEI state of a vCPU in the form of KVM's pseudo firmware registers, as the series "Support SDEI Virtualization" (v7)
defines them for KVM_GET_ONE_REG and KVM_SET_ONE_REG; for VMMs and tests that speak that ABI.

A value is a list of 64-bit words in memory order. KVM knows events 0 and 1, both private and normal; an event that the
machine does not have reads as zero, and what is written to it is ignored. Where KVM takes each register by itself, here
a set of them can be written at once, and what comes of it must be a state that can be: so an event cannot be enabled
without being registered. One by one in the order of their ids they can be written as well: a handler that is written
before its event is registered waits for that in `Aside`, and a context comes after its running bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.transitions import BIT_ENABLED, BIT_REGISTERED, BIT_RUNNING

_ARM64_FW: Final = 0x6000_0000_0014_0000
_SIZES: Final = {1: 0x30 << 48, 2: 0x40 << 48, 32: 0x80 << 48}
"""Of words: KVM_REG_SIZE_U64, _U128, _U2048."""
_CONTEXT_WORDS: Final = 20
_EVENTS: Final = (0, 1)
_HANDLERS: Final = (0, 1, 2, 3)
_WORD: Final = (1 << 64) - 1

Words = list[int]
Aside = MutableMapping[int, Words]
"""Event -> handler, of a PE: written, and the event was not registered."""


class Register(NamedTuple):
    """One pseudo register."""

    name: str
    number: int
    words: int

    @property
    def id(self) -> int:
        """As in `struct kvm_one_reg`."""
        return _ARM64_FW | _SIZES[self.words] | self.number


REGISTERS: Final = (
    *(Register(f"SDEI_EVENT_HANDLER_{n}", 4 + n, 2) for n in _HANDLERS),
    Register("SDEI_EVENT_REGISTERED", 8, 1),
    Register("SDEI_EVENT_ENABLED", 9, 1),
    Register("SDEI_EVENT_RUNNING", 10, 1),
    Register("SDEI_EVENT_PENDING", 11, 1),
    Register("SDEI_EVENT_CONTEXT", 12, 32),
    Register("SDEI_PE_STATE", 13, 1),
)
_BITS: Final = {8: BIT_REGISTERED, 9: BIT_ENABLED, 10: BIT_RUNNING}
BY_ID: Final = {register.id: register for register in REGISTERS}


def read(sdei: Mapping[str, Any], pe: int, aside: Mapping[int, Words] | None = None) -> dict[int, Words]:
    """All registers of a PE, from the SDEI core's snapshot and what was put aside; by id."""
    state = sdei["pes"][pe]
    events = {entry["event"]: entry for entry in state["events"]}
    values: dict[int, Words] = {}
    for register in REGISTERS:
        number = register.number
        if number <= 7:
            entry = events.get(number - 4) if number - 4 in _EVENTS else None
            waits = (aside or {}).get(number - 4, [0, 0])
            value = list(waits) if entry is None else [entry["entry"], entry["argument"]]
        elif number in _BITS:
            value = [sum(1 << n for n in _EVENTS if n in events and events[n]["state"] & _BITS[number])]
        elif number == 11:
            value = [sum(1 << n for n in _EVENTS if n in events and events[n]["pending"])]
        elif number == 12:
            contexts = [frame["context"] for frame in state["frames"] if frame["event"] in _EVENTS]
            value = [*(contexts[0] if contexts else [0] * _CONTEXT_WORDS), *[0] * (32 - _CONTEXT_WORDS)]
        else:
            value = [int(state["masked"])]
        values[register.id] = value
    return values


def write(sdei: Mapping[str, Any], pe: int, values: Mapping[int, Words], aside: Aside | None = None) -> dict[str, Any]:
    """A snapshot with the registers `values` (by id) of a PE written, all at once; `aside` is changed as well.

    Raises:
        UsageError: no such register, a value of the wrong size, a context while nothing runs, or an event that is to be
        registered and has no handler. Whether the rest can be is for whoever restores the snapshot to say.
    """
    aside = {} if aside is None else aside
    new = read(sdei, pe, aside)
    for number, words in values.items():
        register = BY_ID.get(number)
        if register is None:
            raise UsageError(f"there is no register {number:#x}")
        if len(words) != register.words or not all(type(w) is int and 0 <= w <= _WORD for w in words):
            raise UsageError(f"{register.name} has {register.words} words of 64 bits")
        new[number] = list(words)
    by_number = {BY_ID[number].number: words for number, words in new.items()}
    document: dict[str, Any] = copy.deepcopy(dict(sdei))
    known = {event[0] for event in document["profile"]["events"]}
    state = document["pes"][pe]
    state["masked"] = bool(by_number[13][0] & 1)
    running = []
    for n in _EVENTS:
        if n not in known:
            continue
        was = any(entry["event"] == n for entry in state["events"])
        given = _ARM64_FW | _SIZES[2] | 4 + n in values
        state["events"] = [entry for entry in state["events"] if entry["event"] != n]
        bits = sum(bit for number, bit in _BITS.items() if by_number[number][0] >> n & 1)
        pending = bool(by_number[11][0] >> n & 1)
        entry, argument = by_number[4 + n]
        if bits or pending:
            if not (was or given or n in aside):
                raise UsageError(f"event {n} has no handler yet: write SDEI_EVENT_HANDLER_{n} with it, or before")
            state["events"].append(
                {"event": n, "state": bits, "pending": pending, "entry": entry, "argument": argument}
            )
            aside.pop(n, None)
        elif given:
            aside[n] = [entry, argument]
        if bits & BIT_RUNNING:
            running.append({"event": n, "context": by_number[12][:_CONTEXT_WORDS]})
    if not running and any(by_number[12]) and _ARM64_FW | _SIZES[32] | 12 in values:
        raise UsageError("no event of KVM's runs: write SDEI_EVENT_RUNNING with its context")
    # A critical handler lies on top of a normal one.
    state["frames"] = running + [frame for frame in state["frames"] if frame["event"] not in _EVENTS]
    return document
