"""The kallsyms table as the kernel's build puts it into an Image, for kernels before and since 6.4."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def image(symbols: Sequence[tuple[int, str]], *, since_6_4: bool, seqs: bool = False, base: int = 0) -> bytes:
    """An Image with a table of these symbols (address from the base; letter and name, without capital Z).

    Tokens: each character is one, and the capital Z stands for "event_".
    """
    tokens = [chr(number) for number in range(256)]
    tokens[0] = "\x01\x01"
    tokens[ord("Z")] = "event_"
    tokens[0xFF] = "_and_a_long_word_"
    table, index = b"", []
    for token in tokens:
        index.append(len(table))
        table += token.encode("latin-1") + b"\0"
    names, markers = b"", []
    for number, (_, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        packed = name.replace("_and_a_long_word_", "\xff").replace("event_", "Z").encode("latin-1")
        length = bytes([len(packed)]) if len(packed) < 128 else bytes([len(packed) & 127 | 128, len(packed) >> 7])
        names += length + packed
    offsets = b"".join(struct.pack("<I", address) for address, _ in symbols)
    front = [struct.pack("<Q", len(symbols)), names, b"".join(struct.pack("<I", marker) for marker in markers)]
    if seqs and not since_6_4:
        front.append(bytes(range(1, 4)) * len(symbols))
    end = [table, struct.pack("<256H", *index)]
    where = [offsets, struct.pack("<Q", base)]
    parts = [*front, *end, *where] if since_6_4 else [*where, *front, *end]
    body = b"".join(part + bytes(-len(part) % 8) for part in parts)
    header = bytes(16) + struct.pack("<QQ", 1 << 20, 2) + bytes(24) + b"ARMd" + bytes(4)
    banner = b"Linux version 6.1.0-56-arm64 (builder)\0"
    return header + b"\x5a" * 4096 + banner + bytes(-len(banner) % 8) + body + bytes(4096)
