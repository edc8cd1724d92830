"""Device trees that want to become more than they are: as large as a tree can be, each in its own way."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from qemu_sdei.acpi.fdt import MAX_SIZE

_ROOT: Final = struct.pack(">2I", 1, 0)
_END_NODE: Final = struct.pack(">I", 2)
_END: Final = struct.pack(">I", 9)
_ROOM: Final = MAX_SIZE - 4096


def tree(block: bytes, strings: bytes, reservations: bytes = b"") -> bytes:
    """A tree with this structure block in its root."""
    block = _ROOT + block + _END_NODE + _END
    at_struct = 40 + len(reservations) + 16
    total = at_struct + len(block) + len(strings)
    header = (0xD00DFEED, total, at_struct, at_struct + len(block), 40, 17, 16, 0, len(strings), len(block))
    return struct.pack(">10I", *header) + reservations + bytes(16) + block + strings


def properties(offsets: Iterable[int], value: bytes = b"") -> bytes:
    """Properties whose names are at these offsets of the strings block."""
    padded = value + bytes(-len(value) % 4)
    return b"".join(struct.pack(">3I", 3, len(value), offset) + padded for offset in offsets)


def node(inner: bytes = b"") -> bytes:
    """A node called n."""
    return struct.pack(">I", 1) + b"n\0\0\0" + inner + _END_NODE


@cache
def whole_strings() -> bytes:
    """Each name begins one character later and reaches to the end of the strings block: half the tree's square."""
    count = _ROOM // 13
    return tree(properties(range(count)), b"a" * count + b"\0")


@cache
def long_names() -> bytes:
    """The same with names that may be."""
    strings = b"".join(b"%05x" % n + b"x" * 230 + b"\0" for n in range(2000))
    offsets = [236 * (n % 2000) + n // 2000 for n in range(100_000)]
    return tree(b"".join(node(properties([offset])) for offset in offsets[: (_ROOM - len(strings)) // 24]), strings)


@cache
def many_nodes() -> bytes:
    """Nodes with nothing in them."""
    return tree(node() * (_ROOM // 12), b"")


@cache
def many_properties() -> bytes:
    """Properties with nothing in them, some in each node."""
    strings = b"".join(b"%04x\0" % n for n in range(64))
    return tree(node(properties(range(0, 320, 5))) * (_ROOM // (64 * 12 + 12)), strings)


@cache
def many_reservations() -> bytes:
    """Memory that must not be used."""
    return tree(b"", b"", struct.pack(">2Q", 1, 1) * (_ROOM // 16))


@cache
def much_memory() -> bytes:
    """A memory node with more ranges than can be copied one at a time."""
    strings = b"device_type\0reg\0#address-cells\0#size-cells\0"
    cells = properties([16], b"\0\0\0\2") + properties([31], b"\0\0\0\2")
    ranges = struct.pack(">2Q", 0x4000_0000, 0x1000) * (_ROOM // 16)
    return tree(cells + node(properties([0], b"memory\0") + properties([12], ranges)), strings)


@cache
def memory_nowhere() -> bytes:
    """Memory nodes that all are to be taken out."""
    strings = b"device_type\0reg\0#address-cells\0#size-cells\0"
    cells = properties([16], b"\0\0\0\2") + properties([31], b"\0\0\0\2")
    one = node(properties([0], b"memory\0") + properties([12], bytes(16)))
    return tree(cells + one * (_ROOM // len(one)), strings)


@cache
def zeroes() -> bytes:
    """A text of zeroes only."""
    return tree(node(properties([0], bytes(_ROOM - 100))), b"device_type\0")


TREES: Final[tuple[Callable[[], bytes], ...]] = (
    *(whole_strings, long_names, many_nodes, many_properties),
    *(many_reservations, much_memory, memory_nowhere, zeroes),
)
