"""Flattened device trees: bytes to a tree of nodes and back (Devicetree Specification 0.4, chapter 5).

The bytes may come out of guest RAM, so anything is expected of them: whatever is wrong ends as a `DtError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.acpi.errors import DtError

MAX_SIZE: Final = 0x20_0000
"""Bytes; Linux maps no more than 2 MiB for the tree (Documentation/arch/arm64/booting.rst, "Setup the device tree")."""

_MAGIC: Final = 0xD00DFEED
_HEADER: Final = struct.Struct(">10I")
_WORD: Final = struct.Struct(">I")
_PAIR: Final = struct.Struct(">2I")
_RESERVATION: Final = struct.Struct(">2Q")
_VERSION: Final = 17
_COMPATIBLE_VERSION: Final = 16
_MAX_DEPTH: Final = 64
MAX_NAME: Final = 255
"""Characters. The specification has 31 (2.2.1, 2.2.4.1); trees of real boards have more."""
MAX_NODES: Final = 1 << 15
MAX_PROPERTIES: Final = 1 << 16
"""Of a whole tree. QEMU's for 512 CPUs has 700 nodes, the largest boards' have some thousands, with ten times as many
properties. What a tree of 2 MiB becomes in memory is bounded by these; a hostile one could have 170,000.
"""
MAX_NAMES: Final = 1 << 20
"""Bytes of all property names together. Names may share their ends in the strings block, so that these bytes, in a
hostile tree, can be many times as many as it has.
"""
MAX_RESERVATIONS: Final = 1024
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9


@dataclass(slots=True)
class Node:
    """One node: properties as raw bytes, in their order, and the nodes below it."""

    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """The first node below this one that is called `name`."""
        return next((node for node in self.children if node.name == name), None)

    def ensure(self, name: str) -> Node:
        """The node `name` below this one, made if it is not there."""
        node = self.child(name)
        if node is None:
            node = Node(name)
            self.children.append(node)
        return node

    def text(self, name: str, default: str = "") -> str:
        """A string property; of several strings the first."""
        value = self.properties.get(name)
        return default if value is None else value.partition(b"\0")[0].decode("ascii", "replace")

    def texts(self, name: str) -> list[str]:
        """All strings of a property; none if it is not there."""
        value = self.properties.get(name, b"").removesuffix(b"\0")
        return [part.decode("ascii", "replace") for part in value.split(b"\0")] if value else []

    def set_text(self, name: str, *values: str) -> None:
        """Set a property to one or several strings."""
        self.properties[name] = b"".join(value.encode("ascii") + b"\0" for value in values)


@dataclass(slots=True)
class Tree:
    """A whole device tree."""

    root: Node
    reservations: list[tuple[int, int]] = field(default_factory=list)
    """Memory that must not be used: (address, size) in bytes."""
    boot_cpu: int = 0


def total_size(header: bytes | bytearray | memoryview) -> int:
    """Size in bytes of the tree that starts with `header` (at least its first 40 bytes).

    Raises:
        DtError: there is no device tree here, or its header cannot be.
    """
    if len(header) < _HEADER.size:
        raise DtError(f"a device tree has at least {_HEADER.size} bytes, here are {len(header)}")
    magic, size = _PAIR.unpack_from(header)
    if magic != _MAGIC:
        raise DtError(f"no device tree: it would start with {_MAGIC:#x}, not {magic:#x}")
    if not _HEADER.size <= size <= MAX_SIZE:
        raise DtError(f"the device tree's header names a size of {size:#x} bytes; at most {MAX_SIZE:#x} can be")
    return int(size)


def parse(data: bytes | bytearray | memoryview) -> Tree:
    """The tree in `data`; bytes after its end are ignored.

    Raises:
        DtError: it is damaged.
    """
    size = total_size(data)
    if size > len(data):
        raise DtError(f"the device tree is cut short: {len(data):#x} of {size:#x} bytes")
    data = bytes(data[:size])
    _, _, at_struct, at_strings, at_reserved, version, compatible, boot_cpu, strings_size, struct_size = (
        _HEADER.unpack_from(data)
    )
    if version < _VERSION or compatible > _VERSION:
        raise DtError(
            f"a device tree of version {version} (compatible with {compatible}); only {_VERSION} is understood"
        )
    if at_struct % 4 or at_reserved % 8 or at_struct + struct_size > size or at_strings + strings_size > size:
        raise DtError("the device tree is damaged: a block lies outside of it")
    strings = data[at_strings : at_strings + strings_size]
    reservations = _reservations(data, at_reserved)
    return Tree(_nodes(data[at_struct : at_struct + struct_size], strings), reservations, boot_cpu)


def _reservations(data: bytes, at: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while at + _RESERVATION.size <= len(data):
        address, size = _RESERVATION.unpack_from(data, at)
        if address == size == 0:
            return found
        found.append((address, size))
        at += _RESERVATION.size
        if len(found) > MAX_RESERVATIONS:
            raise DtError(f"the device tree has more than {MAX_RESERVATIONS} memory reservations")
    raise DtError("the device tree is damaged: its memory reservations have no end")


def _nodes(block: bytes, strings: bytes) -> Node:
    names: dict[int, str] = {}
    names_size = nodes = properties = 0
    top = Node("")
    stack = [top]  # `top` is above the root: what is left on it at the end is the root
    at = 0
    try:
        while True:
            (token,) = _WORD.unpack_from(block, at)
            at += 4
            if token == _PROP:
                length, offset = _PAIR.unpack_from(block, at)
                at += 8
                if at + length > len(block):
                    raise DtError("the device tree is damaged: a property is longer than the tree")
                if (name := names.get(offset)) is None:
                    name = names[offset] = _name(strings, offset)
                    names_size += len(name)
                properties += 1
                if names_size > MAX_NAMES or properties > MAX_PROPERTIES:
                    raise DtError(
                        f"the device tree has more than {MAX_PROPERTIES} properties, or names of more than "
                        f"{MAX_NAMES >> 20} MiB"
                    )
                if len(stack) == 1 or name in stack[-1].properties:
                    raise DtError(f"the device tree is damaged: property {name[:40]!r} where it cannot be")
                stack[-1].properties[name] = block[at : at + length]
                at += (length + 3) & -4
            elif token == _BEGIN_NODE:
                nodes += 1
                if nodes > MAX_NODES:
                    raise DtError(f"the device tree has more than {MAX_NODES} nodes")
                node = Node(_name(block, at))
                at += (len(node.name) + 4) & -4
                if len(stack) > _MAX_DEPTH or (len(stack) == 1 and top.children):
                    raise DtError("the device tree is damaged: nodes too deep, or two roots")
                stack[-1].children.append(node)
                stack.append(node)
            elif token == _END_NODE and len(stack) > 1:
                stack.pop()
            elif token == _END and len(stack) == 1 and top.children:
                return top.children[0]
            elif token != _NOP:
                raise DtError(f"the device tree is damaged: token {token:#x} where it cannot be")
    except struct.error:
        raise DtError("the device tree is damaged: it ends in the middle") from None


def _name(block: bytes, at: int) -> str:
    end = block.find(b"\0", at, at + MAX_NAME + 1)
    if end < 0:
        raise DtError(f"the device tree is damaged: a name has no end, or more than {MAX_NAME} characters")
    name = block[at:end]
    if not name.isascii():
        raise DtError("the device tree is damaged: a name is no text")
    return name.decode("ascii")


def flatten(tree: Tree) -> bytes:
    """The bytes of `tree`.

    Raises:
        DtError: they are more than 2 MiB.
    """
    strings = bytearray()
    offsets: dict[str, int] = {}
    out: list[bytes] = []
    _flatten_node(tree.root, out, offsets, strings)
    out.append(_WORD.pack(_END))
    block = b"".join(out)
    reserved = b"".join(_RESERVATION.pack(*item) for item in [*tree.reservations, (0, 0)])
    at_reserved = _HEADER.size
    at_struct = at_reserved + len(reserved)
    at_strings = at_struct + len(block)
    size = (at_strings + len(strings) + 7) & -8
    if size > MAX_SIZE:
        raise DtError(f"the device tree has {size:#x} bytes; at most {MAX_SIZE:#x} can be")
    header = _HEADER.pack(
        _MAGIC, size, at_struct, at_strings, at_reserved, _VERSION, _COMPATIBLE_VERSION, tree.boot_cpu,
        len(strings), len(block),
    )  # fmt: skip
    return (header + reserved + block + strings).ljust(size, b"\0")


def _flatten_node(node: Node, out: list[bytes], offsets: dict[str, int], strings: bytearray) -> None:
    name = node.name.encode("ascii") + b"\0"
    out.append(_WORD.pack(_BEGIN_NODE) + name + bytes(-len(name) % 4))
    for key, value in node.properties.items():
        if (offset := offsets.get(key)) is None:
            offset = offsets[key] = len(strings)
            strings += key.encode("ascii") + b"\0"
        out.append(_WORD.pack(_PROP) + _PAIR.pack(len(value), offset) + value + bytes(-len(value) % 4))
    for child in node.children:
        _flatten_node(child, out, offsets, strings)
    out.append(_WORD.pack(_END_NODE))
