"""Words of which the schema of the state document is made: numbers of events, interrupts, CPUs, with their limits."""

from __future__ import annotations

from typing import Final

from qemu_sdei.json_schema import Schema, array, integer, only, ref, rows
from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.sdei import constants as sdei
from qemu_sdei.sdei.interrupts import FIRST_SPI

_WORD: Final = (1 << 64) - 1


_COUNT: Final = (1 << 63) - 1


_FIRST_PPI: Final = 16
_LAST_SPI: Final = 1019
_CANONICAL: Final = 1 << 52
"""Addresses of 52 bits, at either end of 64 (DEN0054 5.1.2)."""


def each_cpu(item: Schema, about: str = "") -> Schema:
    """An array with an item for each CPU."""
    return array(item, 1, MAX_CPUS, about)


WORDS: Final = {
    "word": integer(0, _WORD, "64 bits"),
    "count": integer(0, _COUNT, "63 bits"),
    "bit": integer(0, 1),
    "nr_cpus": integer(1, MAX_CPUS),
    "pe": integer(0, MAX_CPUS - 1, "number of a CPU"),
    "pe_or_none": integer(-1, MAX_CPUS - 1, "number of a CPU, or -1"),
    "event": integer(0, sdei.EVENT_NUMBER_MAX, "number of an event, 0 to 0x7fffffff"),
    "ppi": integer(_FIRST_PPI, FIRST_SPI - 1, "INTID of a PPI"),
    "spi": integer(FIRST_SPI, _LAST_SPI, "INTID of an SPI"),
    "spis": array(ref("spi")),
    "address": {
        "description": "entry point of a handler: aligned, not 0, canonical for 52 bits (DEN0054 5.1.2)",
        "type": "integer",
        "multipleOf": 4,
        "anyOf": [
            {"minimum": 4, "maximum": _CANONICAL - 1},
            {"minimum": _WORD + 1 - _CANONICAL, "maximum": _WORD},
        ],
    },
    "claim": rows(
        "[INTID, PE]",
        [ref("ppi"), ref("pe")],
        [ref("spi"), only(-1)],
        about="an interrupt: a PPI of a CPU, or an SPI and -1",
    ),
    "claim_or_none": {"anyOf": [{"type": "array", "maxItems": 0}, ref("claim")]},
}
