"""Bytes that differ between what words say and what stood there, so that nothing of it is lost."""

from __future__ import annotations

from typing import Final

Difference = tuple[int, bytes]
"""An offset, and the bytes that are there."""
_NEAR: Final = 4
"""Differences that are no farther apart are one."""


def differences(made: bytes, wanted: bytes) -> tuple[Difference, ...]:
    """Where `wanted`, of the same length, is not what `made` is."""
    found: list[list[int]] = []
    for at, (a, b) in enumerate(zip(made, wanted, strict=True)):
        if a != b:
            if found and at - found[-1][1] <= _NEAR:
                found[-1][1] = at + 1
            else:
                found.append([at, at + 1])
    return tuple((start, wanted[start:end]) for start, end in found)


def patched(made: bytes, others: tuple[Difference, ...]) -> bytes:
    """`made` with those bytes in their places; what is behind its end is left out."""
    out = bytearray(made)
    for at, data in others:
        part = data[: max(len(out) - at, 0)]
        out[at : at + len(part)] = part
    return bytes(out)
