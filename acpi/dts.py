"""Device-tree source: what people read and put into their firmware's tree (Devicetree Specification 0.4, chapter 6).

A property in a blob is bytes without a type, so the type is guessed as `dtc -O dts` guesses it; what is written
compiles to the same bytes, whatever the guess.

Raises `DtError` for a node or property whose name source cannot have.
"""

from __future__ import annotations

import re
from typing import Final

from qemu_sdei.acpi.errors import DtError
from qemu_sdei.acpi.fdt import Node, Tree

_NAME: Final = re.compile(r"[0-9A-Za-z,._+*#?@-]+")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def source(tree: Tree) -> str:
    """The whole tree as a DTS file."""
    out = ["/dts-v1/;", ""]
    out += [f"/memreserve/ {address:#x} {size:#x};" for address, size in tree.reservations]
    out += node_lines(tree.root, "/", 0)
    return "\n".join(out) + "\n"


def overlay(root: Node) -> str:
    """The nodes and properties below `root` as a DTSO file: an overlay for the root of any tree.

    `dtc -@ -I dts -O dtb` compiles it, `fdtoverlay` and firmware apply it.
    """
    out = ["/dts-v1/;", "/plugin/;", ""]
    out += node_lines(root, "&{/}", 0)
    return "\n".join(out) + "\n"


def overlay_tree(root: Node) -> Tree:
    """The same overlay as a tree to `flatten`: a DTBO."""
    fragment = Node("fragment@0", {"target-path": b"/\0"}, [Node("__overlay__", root.properties, root.children)])
    return Tree(Node("", {}, [fragment]))


def node_lines(node: Node, name: str, depth: int) -> list[str]:
    """`node`, called `name`, as lines of source, `depth` tabs deep."""
    tabs = "\t" * depth
    out = [f"{tabs}{name} {{"]
    for word in (*node.properties, *(child.name for child in node.children)):
        if _NAME.fullmatch(word) is None:
            raise DtError(f"the name {word!r} cannot be written as device-tree source")
    for key, value in node.properties.items():
        text = value_source(value)
        out.append(f"{tabs}\t{key} = {text};" if text else f"{tabs}\t{key};")
    for child in node.children:
        if len(out) > 1:
            out.append("")
        out += node_lines(child, child.name, depth + 1)
    out.append(f"{tabs}}};")
    return out


def value_source(value: bytes) -> str:
    """A property's value as source; "" for one without bytes."""
    if not value:
        return ""
    if _is_text(value):
        return ", ".join(f'"{_escape(part)}"' for part in value[:-1].decode("ascii").split("\0"))
    if len(value) % 4 == 0:
        cells = (int.from_bytes(value[at : at + 4], "big") for at in range(0, len(value), 4))
        return f"<{' '.join(f'{cell:#x}' for cell in cells)}>"
    return f"[{value.hex(' ')}]"


def _is_text(value: bytes) -> bool:
    """Strings: each of at least one character, all printable, each ended by a NUL."""
    if value[-1] != 0 or value[0] == 0 or b"\0\0" in value:
        return False
    return all(byte == 0 or 0x20 <= byte < 0x7F or byte in b"\t\n\r" for byte in value)


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
