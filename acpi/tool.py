"""Running other people's programs on tables: limits, clean-up, and errors that say what to install.

The wrappers (`iasl`, `fwts`) are the only modules of this package that start processes and write files, all of them
in a directory of their own that is gone when the call returns.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.acpi.errors import AcpiError

MAX_INPUT: Final = 32 << 20
"""Bytes that are given to a program; tables of real machines have well below 2 MiB together."""
MAX_OUTPUT: Final = 64 << 20
"""Bytes of what a program says, and of each result file that is read back."""
_LOOK: Final = 0.1
"""Seconds between two looks at how much it has written."""


class ToolError(AcpiError):
    """The program is not there, gave up, or took too long; the message says which and what to do."""


class MissingToolError(ToolError):
    """The program is not installed."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a program said, standard output and standard error together, and its exit status."""

    status: int
    text: str


def find(name: str, package: str, path: str | Path | None = None) -> Path:
    """Where the program `name` is; `path` overrides the search along PATH.

    Raises:
        MissingToolError: it is not there; the message names the Debian `package` (or what else to install).
    """
    found = shutil.which(str(path or name))
    if found is None:
        where = f"at {path}" if path is not None else "on PATH"
        raise MissingToolError(f"{name} is not {where}: install {package}")
    return Path(found)


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    """A directory for one run of the program `name`, removed afterwards."""
    try:
        directory = tempfile.TemporaryDirectory(prefix=f"{name}-")
    except OSError as error:
        raise ToolError(f"no temporary directory for {name}: {error.strerror or error}") from None
    with directory as path:
        yield Path(path)


def run(
    program: Path,
    words: Sequence[str],
    *,
    cwd: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Output:
    """Run `program` in `cwd` with standard input closed, for at most `timeout` seconds, children included.

    Raises:
        ToolError: it cannot be started, was killed by a signal, did not end in time, or does not stop talking.
    """
    name = program.name
    # Into a file and not a pipe: a program that says more than anybody reads must neither block nor fill our memory.
    with tempfile.TemporaryFile(dir=cwd) as said:
        try:
            process = subprocess.Popen(
                [str(program), *words],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"{program} cannot be run: {error.strerror or error}") from None
        try:
            status = _wait(process, said.fileno(), timeout, name)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        text = said.read(MAX_OUTPUT).decode("utf-8", "replace")
    if status < 0:
        raise ToolError(f"{name} died of {signal.Signals(-status).name} on this input")
    return Output(status, text)


def _wait(process: subprocess.Popen[bytes], output: int, timeout: float, name: str) -> int:
    """The exit status; the program must not fill the disk meanwhile."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(min(_LOOK, left))
        if os.fstat(output).st_size > MAX_OUTPUT:
            raise ToolError(f"{name} said more than {MAX_OUTPUT >> 20} MiB about this input: it was stopped")
    raise ToolError(f"{name} did not end within {timeout:g} s: it was stopped")


def write_input(path: Path, data: bytes) -> None:
    """Write what a program is to read.

    Raises:
        ToolError: it is too large, or cannot be written.
    """
    if len(data) > MAX_INPUT:
        raise ToolError(f"{len(data)} bytes are too many: at most {MAX_INPUT >> 20} MiB are handed to a program")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ToolError(f"the input of a program cannot be written: {error.strerror or error}") from None


def read_result(path: Path) -> bytes | None:
    """What a program wrote to `path`; None if it wrote nothing.

    Raises:
        ToolError: the file is too large or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_OUTPUT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolError(f"what a program wrote cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_OUTPUT:
        raise ToolError(f"a program wrote more than {MAX_OUTPUT >> 20} MiB")
    return data
