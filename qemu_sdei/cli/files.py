"""Files that commands write: never over one that is there without --force, and nothing binary on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qemu_sdei import paths
from qemu_sdei.errors import UsageError

MAX_INPUT: Final = 64 << 20
"""Bytes of a file that is read."""


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `-o` and `--force`; `what` says what -o takes."""
    parser.add_argument("--output", "-o", metavar="FILE", help=what)
    parser.add_argument("--force", action="store_true", help="replace existing files")


def read_file(path: str, what: str) -> bytes:
    """The bytes of the file `path`, or of standard input for `-`. Raises `UsageError`."""
    if path == "-":
        if sys.stdin.isatty():
            raise UsageError(f"{what}: standard input is a terminal: redirect it, or name a file")
        data = sys.stdin.buffer.read(MAX_INPUT + 1)
    else:
        try:
            # Not open(): of a FIFO without a writer it would wait for ever.
            fd = os.open(paths.expand(path), os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise UsageError(f"{what} {path} cannot be read: it is not a regular file (- is standard input)")
                data = file.read(MAX_INPUT + 1)
        except OSError as error:
            raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_INPUT:
        raise UsageError(f"{what} {path} has more than {MAX_INPUT >> 20} MiB")
    return data


def write_output(data: bytes, output: str | None, *, force: bool, binary: bool, what: str) -> None:
    """Write `data` to the file `output`, or to standard output (None or `-`). Raises `UsageError`."""
    if output is None or output == "-":
        if binary and sys.stdout.isatty():
            raise UsageError(f"{what} is binary and not written to a terminal: give -o FILE, or redirect it")
        if not binary and sys.stdout.isatty():
            sys.stdout.write(data.decode(errors="surrogateescape"))  # which a terminal takes by cli/screen.py
            sys.stdout.flush()
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    write_file(paths.expand(output), data, force=force)


def write_file(path: Path, data: bytes, *, force: bool) -> None:
    """Write a file as a whole or not at all. Raises `UsageError`."""
    try:
        # What is no regular file (/dev/null, a FIFO) is not replaced, it takes the bytes.
        if not path.is_symlink() and path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)
            return
        if path.is_dir():
            raise UsageError(f"{path} cannot be written: it is a directory")
        # With --force the old file is there until the new one is whole.
        target = path.with_name(f".{path.name}.{os.urandom(4).hex()}") if force else path
        with target.open("xb") as file:
            try:
                file.write(data)
                file.flush()
                if force:
                    target.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    target.unlink()
                raise
    except FileExistsError:
        raise UsageError(f"{path} is there already: give --force to replace it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def write_files(directory: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Write `files` (name to bytes) into `directory`, made if need be; all names are looked at before any is written.

    Raises:
        UsageError: one of them is there already, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be made: {error.strerror}") from None
    there = [name for name in files if os.path.lexists(directory / name)]
    if there and not force:
        raise UsageError(f"{directory / there[0]} is there already: give --force to replace it")
    for name, data in files.items():
        write_file(directory / name, data, force=force)
