"""Runs a program that takes long: all it says goes to a log, and the user sees that it gets on."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from qemu_sdei.durations import duration
from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable

SILENCE: Final = 1800.0
"""Seconds without a word after which a program is ended. A file may take minutes on a machine that is busy."""
_TO_END: Final = 20.0
"""Seconds that it has to end when it is asked to."""
_EVERY: Final = 30.0
"""Seconds between two lines of progress where there is no terminal."""
_FULL: Final = "No space left on device"


class Shown:
    """One line on standard error that changes; where there is no terminal, a line now and then."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._between = 0.2 if self._tty else _EVERY
        self._next = 0.0
        self._begun = time.monotonic()

    def step(self, text: str) -> None:
        """Something new begins."""
        self._begun = time.monotonic()
        self._next = self._begun + self._between
        clear()
        print(f"==> {printable(text)}", file=sys.stderr, flush=True)

    def moved(self, text: str) -> None:
        """It gets on."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._between
        line = f"    {printable(text)}, {duration((now - self._begun) * 1e9)}"
        if self._tty:
            clear()
            print(line, end="\r", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def clear() -> None:
    """Take the line that changes off the terminal, for another one."""
    if sys.stderr.isatty():
        print("\033[K", end="", file=sys.stderr)


def run(
    command: Sequence[str],
    failed: str,
    log: Path,
    *,
    directory: Path,
    environment: Mapping[str, str] = {},
    said: Callable[[str], None] = lambda line: None,
    silence: float = SILENCE,
) -> None:
    """Run `command` to its end; when it is interrupted, it is asked to end first.

    Args:
        failed: what the message begins with if it fails.
        log: file to which all that it says is added.
        directory: where it runs.
        environment: what it gets beside PATH, HOME and TMPDIR: MAKEFLAGS, KCFLAGS and the like of the user's would
            change what is built.
        said: gets each line.
        silence: seconds without a line that it may take.

    Raises:
        UsageError: it cannot be started, fails, or says nothing for `silence` seconds.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    telling: list[str] = []
    with log.open("ab", buffering=0) as written:  # so that who looks into it sees where it is
        written.write(f"$ {' '.join(command)}\n".encode())
        try:
            process = subprocess.Popen(
                command, cwd=directory, env={**kept, "LC_ALL": "C", **environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"{failed}: {command[0]} cannot be started: {error.strerror}") from None
        assert process.stdout is not None
        try:
            with process.stdout, selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                rest = b""
                while True:
                    if not selector.select(silence):
                        raise UsageError(
                            f"{failed}: {command[0]} said nothing for {duration(silence * 1e9)}: see {log}"
                        )
                    data = os.read(process.stdout.fileno(), 65536)
                    if not data:
                        break
                    written.write(data)
                    *lines, rest = (rest + data).split(b"\n")
                    for line in (line.decode(errors="replace") for line in lines):
                        said(line)
                        if _FULL in line or " error:" in line or ": *** " in line or line.startswith("tar:"):
                            telling.append(line.strip())
            process.wait(silence)
        except subprocess.TimeoutExpired:
            raise UsageError(f"{failed}: {command[0]} does not end: see {log}") from None
        finally:
            end(process)
    if process.returncode:
        why = next(
            (line for line in telling if _FULL in line), telling[0] if telling else f"exit code {process.returncode}"
        )
        if _FULL in why:
            why = "the disk is full: make room, and try again; it goes on from where it is"
        raise UsageError(f"{failed}: {printable(why)} (see {log})")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it has started, if it runs still: first so that make removes what is half written."""
    if process.poll() is not None:
        return
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TO_END)
            return
