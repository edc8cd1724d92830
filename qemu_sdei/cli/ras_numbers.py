"""Numbers of 64 bits on the command line of `qemu-sdei ras`."""

from __future__ import annotations

from qemu_sdei.errors import UsageError


def number(text: str, option: str) -> int:
    """The number that `text`, the value of `option`, is. Raises `UsageError`: it is none, or has more than 64 bits."""
    try:
        value = int(text[:80], 0)
    except ValueError:
        raise UsageError(f"{option} {text[:60]!r} is not a number") from None
    if not 0 <= value < 1 << 64:
        raise UsageError(f"{option} {text[:60]!r} is not a number of 64 bits")
    return value
