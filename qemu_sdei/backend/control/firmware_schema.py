"""The form of what the firmware knows, in the state document: services, events, CPUs, interrupts, misbehaviour."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from qemu_sdei.backend.control.schema_words import each_cpu
from qemu_sdei.backend.firmware import gic, notices
from qemu_sdei.backend.firmware.core import affinity
from qemu_sdei.backend.firmware.external_abort import Wish
from qemu_sdei.backend.firmware.firmware import STATE_VERSION
from qemu_sdei.json_schema import Schema, array, boolean, integer, only, record, ref, row, rows, text
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.profiles.firmware_profile import MAX_RULES
from qemu_sdei.profiles.rule import MAX_TEXT, MAX_WHY
from qemu_sdei.sdei import constants as sdei
from qemu_sdei.sdei import state as sdei_state
from qemu_sdei.sdei.context import CONTEXT_WORDS
from qemu_sdei.sdei.interrupts import FIRST_SPI
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.sdei.transitions import STATES, UNREGISTERED
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc import selection

_NOTICE: Final = 0xFFFF_FFFF
_WISH: Final = integer(0, int(~Wish(0)), "1: it has an address, 2: of an instruction, 4: it may hit the kernel")

_FIRMWARE: Final = {
    "firmware": record(
        {
            "version": only(STATE_VERSION),
            "nr_cpus": ref("nr_cpus"),
            "client_el": ref("client_el"),
            "epoch": ref("count", "resets of the machine"),
            "kernels": ref("count", "kernels that have begun since"),
            "booting": boolean("the machine was reset, and its boot is not over"),
            "serves_sdei": boolean("false: --no-sdei"),
            "id_registers": {
                "description": "of CPU 0's RESET frame; none before it",
                "anyOf": [{"type": "object", "maxProperties": 0}, ref("id_registers")],
            },
            "selection": record(
                {each.word: ref("word") for each in selection.REGISTERS},
                "bitmap registers: the services that the guest finds; not there: those of a program that had SDEI only",
            ),
            "psci": ref("psci"),
            "sdei": ref("sdei"),
            "triggers": array(
                row(
                    "[event, PE or -1, accepted, merged, dropped, delivered]",
                    *(ref("event"), ref("pe_or_none")),
                    *(ref("count") for _ in range(4)),
                ),
                about="what became of each event's triggers",
            ),
            "gic": ref("gic"),
            "notices": array(
                rows(
                    "[number, kind, PE or -1, value, wish]",
                    [integer(1, _NOTICE), only(int(notices.Kind.ABORT)), ref("pe_or_none"), ref("word"), _WISH],
                    [integer(1, _NOTICE), only(int(notices.Kind.INTERRUPT)), ref("pe_or_none"), ref("spi"), only(0)],
                    [integer(1, _NOTICE), only(int(notices.Kind.LOOK)), ref("pe_or_none"), ref("spi"), only(0)],
                    about="kind 1: an abort, with its address; 2: an interrupt, 3: a look at one, with its INTID",
                ),
                high=notices.MAX,
                about="aborts and interrupts that wait for a CPU to make them",
            ),
            "services": {
                "description": "state of services by name: theirs, and any JSON value",
                "type": "object",
            },
            "misbehaviour": ref("misbehaviour"),
        },
        optional=("kernels", "booting", "serves_sdei", "selection", "triggers", "notices", "misbehaviour"),
    ),
    "client_el": integer(1, 2, "exception level of SDEI's client"),
    "id_registers": record(
        {name: ref("word", "Hz" if name == "CNTFRQ_EL0" else "") for name in layout.RESET_REGISTERS}
    ),
    "psci": record(
        {
            "power": each_cpu(integer(0, max(Power)), "0 on, 1 off, 2 pending (AFFINITY_INFO, DEN0022 5.1.8)"),
            "entry": each_cpu(
                {**array(ref("word"), 2, 2, title="[entry point, context id] or null"), "type": ["array", "null"]},
                "where a pending one is to start",
            ),
        },
        "of each CPU",
    ),
}


_PRIVATE: Final = {
    "event": ref("event"),
    "state": ref("state"),
    "pending": boolean(),
    "entry": ref("address"),
    "argument": ref("word"),
}


_UNREGISTERED_IS_NOT_PENDING: Final[Schema] = {
    "if": {"properties": {"state": {"const": 4}}},
    "then": {"properties": {"pending": {"const": False}}},
}


_OFF_IS_EMPTY: Final[Schema] = {
    "if": {"properties": {"on": {"const": False}}},
    "then": {"properties": {"masked": {"const": True}, "frames": {"maxItems": 0}, "events": {"maxItems": 0}}},
}


_PRIVATE_SLOT: Final = integer(sdei.PRIVATE_SLOTS, sdei.PRIVATE_SLOTS + sdei.MAX_PRIVATE_SLOTS - 1)
_SHARED_SLOT: Final = integer(sdei.SHARED_SLOTS, sdei.SHARED_SLOTS + sdei.MAX_SHARED_SLOTS - 1)

_SDEI: Final = {
    "sdei": record(
        {
            "format": {"const": sdei_state.FORMAT},
            "version": only(sdei_state.VERSION),
            "client_el": ref("client_el"),
            "features": record(
                {field.name: boolean() for field in fields(CpuFeatures)}, "what of PSTATE these CPUs have"
            ),
            "profile": ref("profile"),
            "bound": array(
                rows(
                    "[event, INTID or 0]",
                    [_PRIVATE_SLOT, ref("ppi")],
                    [_SHARED_SLOT, integer(FIRST_SPI, gic.LAST_SPI)],
                    [_PRIVATE_SLOT, only(0)],
                    [_SHARED_SLOT, only(0)],
                ),
                high=sdei.MAX_PRIVATE_SLOTS + sdei.MAX_SHARED_SLOTS,
                about="numbers that INTERRUPT_BIND has returned, and the interrupt bound to each now, or 0 "
                "(DEN0054 5.1.14)",
            ),
            "pes": each_cpu(ref("sdei_pe")),
            "shared": array(ref("shared_event")),
        }
    ),
    "profile": record(
        {
            "version": row(
                "[major, minor]",
                integer(0, 0x7FFF),
                integer(0, 0xFFFF),
                about="of SDEI_VERSION (DEN0054 5.1.1)",
            ),
            "vendor": integer(0, 0xFFFF_FFFF, "low 32 bits of SDEI_VERSION"),
            "slots": row(
                "[private, shared]",
                integer(0, sdei.MAX_PRIVATE_SLOTS),
                integer(0, sdei.MAX_SHARED_SLOTS),
                about="how many interrupts can be bound",
            ),
            "strict_signal": boolean(),
            "events": array(
                row(
                    "[number, type, priority, signalable]",
                    *(ref("event"), ref("bit"), ref("bit"), boolean()),
                    about="type 1: shared; priority 1: critical (EVENT_GET_INFO, DEN0054 5.1.10)",
                ),
                low=1,
            ),
        },
        "what the guest can see of the machine description (machine-description.md); must be the same on both sides",
    ),
    "sdei_pe": record(
        {
            "affinity": integer(0, affinity(MAX_CPUS - 1), "Aff2:Aff1:Aff0 of MPIDR_EL1"),
            "on": boolean(),
            "masked": boolean("by PE_MASK"),
            "frames": ref("handlers"),
            "events": array(ref("private_event")),
        },
        "a CPU",
        **_OFF_IS_EMPTY,
    ),
    "handlers": array(
        record(
            {
                "event": ref("event"),
                "context": array(
                    ref("word"),
                    *(CONTEXT_WORDS, CONTEXT_WORDS),
                    "what it interrupted: PC, PSTATE, X0 to X17 (DEN0054 5.2.1)",
                ),
            }
        ),
        high=sdei.MAX_NESTING,
        about="running handlers, outermost first: at most a critical one on a normal one",
    ),
    "state": {
        "description": "of EVENT_STATUS (sdei-states.md): 1 registered, 3 enabled, 4 running and unregister pending, "
        "5 running, 7 running and enabled",
        "type": "integer",
        "enum": sorted(set(STATES) - {UNREGISTERED}),
    },
    "private_event": record(_PRIVATE, "an event that is registered, or runs still", **_UNREGISTERED_IS_NOT_PENDING),
    "shared_event": record(
        {
            **_PRIVATE,
            "target": {"description": "null: any (DEN0054 5.1.11)", "anyOf": [{"type": "null"}, ref("pe")]},
        },
        "as a private one, and where it is routed to",
        **_UNREGISTERED_IS_NOT_PENDING,
    ),
}


_GIC: Final = {
    "gic": record(
        {
            "owned": array(
                rows(
                    "[INTID, PE or -1, priority, enabled, quiet]",
                    [ref("ppi"), ref("pe"), ref("priority"), ref("bit"), ref("bit")],
                    [ref("spi"), only(-1), ref("priority"), ref("bit"), ref("bit")],
                    about="priority and enabled are the guest's, to be given back; quiet: it fired, and its handler "
                    "has not completed",
                ),
                about="interrupts that are secure Group 0 now",
            ),
            "spis": ref("spis", "to be seen to"),
            "settling": ref("spis", "being seen to: their events wait"),
            "operator": ref("pe_or_none", "who sees to SPIs"),
            "quieting": array(
                row("[PE, INTID]", ref("pe"), ref("spi")), about="SPIs that were taken and are about to be ended"
            ),
            "jobs": array(ref("job"), high=MAX_CPUS),
        },
        "interrupts of bound events",
    ),
    "priority": integer(0, 0xFF, "of GICD_IPRIORITYR"),
    "job": record(
        {
            "pe": ref("pe"),
            "flags": integer(0, 0xFFFF, "of its answer"),
            "ops": array(
                array(ref("word"), 3, 3, title="[code, argument, value]"), high=layout.MAX_OPS, about="of its answer"
            ),
            "todo": array(ref("claim"), about="PPIs to be seen to"),
            "is_call": boolean(),
            "waits": ref("spis", "SPIs that must have been seen to first"),
            "registering": ref("claim_or_none", "the interrupt of an EVENT_REGISTER"),
            "refused": boolean(),
            "looking": ref("claim_or_none", "an interrupt that is half taken over"),
        },
        "an exchange that does micro-operations before it is complete",
    ),
}


_VCPUS: Final = array(ref("pe"), high=MAX_CPUS)
_PROFILE_TEXT: Final = text(maxLength=2000)

_MISBEHAVIOUR: Final = {
    "misbehaviour": record(
        {
            "profile": record(
                {
                    **dict.fromkeys(("name", "summary", "reproduces", "not_reproduced"), _PROFILE_TEXT),
                    "rules": array(
                        record({"rule": text(maxLength=MAX_TEXT), "why": text(maxLength=MAX_WHY)}), high=MAX_RULES
                    ),
                },
                "a firmware profile (firmware-profiles.md)",
            ),
            "counts": array(
                row(
                    "[rule from 0, PE or -1, times]",
                    *(integer(0, MAX_RULES - 1), ref("pe_or_none"), ref("count")),
                    about="at which all that a rule asks but nth has held; PE: of one that counts each vCPU by itself",
                ),
                high=MAX_RULES * (MAX_CPUS + 1),
            ),
            "marks": array(row("[mark, PE]", text(), ref("pe")), high=2 * MAX_RULES * MAX_CPUS),
            "kernel": row(
                "[which of the kernels that rules name functions of, from 0, bytes from where its file has it]",
                integer(0, 16 * MAX_RULES),
                integer(-(1 << 63), 1 << 64),
                about="where the guest's kernel is; not there: not known",
            ),
            "deaf": {**_VCPUS, "description": "take no interrupt and no event"},
            "held": {**_VCPUS, "description": "take no interrupt until their handlers complete"},
            "stuck": {**_VCPUS, "description": "stay in EL3"},
            "kept": array(
                row(
                    "[PE, state]",
                    ref("pe"),
                    record(
                        {"masked": boolean(), "frames": ref("handlers"), "events": array(ref("private_event"))},
                    ),
                ),
                high=MAX_CPUS,
                about="what a CPU finds when it comes up",
            ),
            "kept_shared": array(ref("shared_event"), about="shared events that outlive a reset of the machine"),
        },
        "what the firmware does wrong on purpose; not there: nothing",
        optional=("kernel",),
    ),
}


FIRMWARE: Final = {**_FIRMWARE, **_SDEI, **_GIC, **_MISBEHAVIOUR}
"""Definitions by name, for `document_schema.SCHEMA`."""
