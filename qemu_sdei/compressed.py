"""Compressed files: gzip, bzip2, xz, lzma and zstd, with a limit on what they become.

Python has zstd since 3.14; before that the program `zstd` is asked.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
import threading
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
_SUFFIXES: Final = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".lzma": "lzma", ".zst": "zstd"}
_ZSTD_SECONDS: Final = 120.0
_HAVE_ZSTD: Final = "install the program zstd (Debian: apt-get install zstd), or unpack it by `zstd -d`"


def method_of(data: bytes) -> str | None:
    """How `data` is compressed ("gzip", "xz", "zstd"), by its first bytes; None: in no way that is known here."""
    return next((name for magic, name in _MAGICS.items() if data.startswith(magic)), None)


def method_of_name(name: str) -> str | None:
    """How a file is compressed, by the end of its name such as ".zst"; None: it is not, as far as that says."""
    return next((method for suffix, method in _SUFFIXES.items() if name.endswith(suffix)), None)


def decompress(method: str, data: bytes, source: str, most: int, what: str = "file") -> bytes:
    """What `data` was before it was compressed.

    Args:
        method: "gzip", "bzip2", "xz", "lzma" or "zstd".
        data: the compressed bytes; what stands behind them is left out.
        source: where they come from, for errors, which call it a compressed `what`.
        most: bytes that it may become, with 32 times as many as it has (or 64 MiB).

    Raises:
        UsageError: it is damaged, becomes too large, or nothing here can read zstd.
    """
    if method == "zstd":
        data = data[: _zstd_end(data, source, what)]
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
    elif method == "bzip2":
        import bz2

        decompressor = bz2.BZ2Decompressor()
    else:
        try:  # Python 3.14 has it
            decompressor = importlib.import_module("compression.zstd").ZstdDecompressor()
        except ImportError:
            program = shutil.which("zstd")
            if program is None:
                raise UsageError(f"{source}: a {what} compressed with zstd: {_HAVE_ZSTD}") from None
            return lambda data, limit: _by_program(program, data, limit), lambda: True
    return decompressor.decompress, lambda: bool(decompressor.eof)


def _by_program(program: str, data: bytes, limit: int) -> bytes:
    """What `zstd` makes of one frame, and no more than `limit` bytes of it. Raises `ValueError`: it refuses it."""
    with tempfile.TemporaryFile() as packed, tempfile.TemporaryFile() as errors:
        packed.write(data)
        packed.seek(0)
        # -d takes no more memory than 128 MiB by itself, whatever window the file asks for.
        process = subprocess.Popen([program, "-q", "-d", "-c"], stdin=packed, stdout=subprocess.PIPE, stderr=errors)
        timer = threading.Timer(_ZSTD_SECONDS, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            out = process.stdout.read(limit)
            if len(out) < limit and process.wait():
                errors.seek(0)
                reason = " ".join(errors.read(200).decode("ascii", "replace").split())
                raise ValueError(reason.rpartition("/*stdin*\\")[2].strip(" :") or "zstd was ended")
            return out
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def _zstd_end(data: bytes, source: str, what: str) -> int:
    """Where the first frame of `data` ends (RFC 8878 3.1.1): what stands behind it is nothing that is compressed.

    Raises `UsageError`: it does not end, or is none.
    """
    if len(data) < 6 or not data.startswith(b"\x28\xb5\x2f\xfd"):
        raise UsageError(f"{source}: the compressed {what} is damaged: it is no zstd frame")
    descriptor = data[4]
    single = bool(descriptor & 0x20)
    size_bytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        kind = block >> 1 & 3
        if kind == 3:
            raise UsageError(f"{source}: the compressed {what} is damaged: a block of zstd is of no known kind")
        at += 3 + (1 if kind == 1 else block >> 3)
        if block & 1:
            at += 4 * bool(descriptor & 4)
            if at <= len(data):
                return at
            break
    raise UsageError(f"{source}: the zstd-compressed {what} is cut short")
