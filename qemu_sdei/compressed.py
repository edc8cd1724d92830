"""Compressed files: gzip, xz, lzma and zstd, with a limit on what they become."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final

from qemu_sdei.errors import UsageError

MIB: Final = 1 << 20
_MAX_RATIO: Final = 32
"""Compressed kernels become 2 to 5 times as large, with debugging options 10 times; what a bomb's zeroes become, 1000
times.
"""
_MIN_LIMIT: Final = 64 * MIB
_LZMA_MEMORY: Final = 256 * MIB
"""xz -9 wants 65 MiB; the file names the size of the dictionary, which may be 4 GiB."""
_MAGICS: Final = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def method_of(data: bytes) -> str | None:
    """How `data` is compressed ("gzip", "xz", "zstd"), by its first bytes; None: in no way that is known here."""
    return next((name for magic, name in _MAGICS.items() if data.startswith(magic)), None)


def decompress(method: str, data: bytes, source: str, most: int, what: str = "file") -> bytes:
    """What `data` was before it was compressed.

    Args:
        method: "gzip", "xz", "lzma" or "zstd".
        data: the compressed bytes; what stands behind them is left out.
        source: where they come from, for errors, which call it a compressed `what`.
        most: bytes that it may become, with 32 times as many as it has (or 64 MiB).

    Raises:
        UsageError: it is damaged, becomes too large, or this Python cannot read zstd (3.14 can).
    """
    step, ended = _decompressor(method, source, what)
    limit = min(most, max(_MIN_LIMIT, _MAX_RATIO * len(data)))
    try:
        out = step(data, limit)
    except Exception as error:  # zlib, lzma and zstd have each their own
        raise UsageError(f"{source}: the compressed {what} is damaged: {error}") from None
    if len(out) >= limit:
        raise UsageError(
            f"{source}: the {len(data)} bytes of the compressed {what} become {limit // MIB} MiB or more: damaged?"
        )
    if method != "lzma" and not ended():  # which may have no mark of its end
        raise UsageError(f"{source}: the {method}-compressed {what} is cut short")
    return out


def _decompressor(method: str, source: str, what: str) -> tuple[Callable[[bytes, int], bytes], Callable[[], bool]]:
    """One step of a decompressor, and whether it has seen the end."""
    decompressor: Any
    if method == "gzip":
        import zlib

        decompressor = zlib.decompressobj(wbits=31)
    elif method in ("xz", "lzma"):
        import lzma

        container = lzma.FORMAT_ALONE if method == "lzma" else lzma.FORMAT_XZ
        decompressor = lzma.LZMADecompressor(container, _LZMA_MEMORY)
    else:
        try:  # Python 3.14 has it
            decompressor = importlib.import_module("compression.zstd").ZstdDecompressor()
        except ImportError:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise UsageError(
                f"{source}: a {what} compressed with zstd, which this Python ({version}) cannot read: "
                "unpack it by `zstd -d`"
            ) from None
    return decompressor.decompress, lambda: bool(decompressor.eof)
