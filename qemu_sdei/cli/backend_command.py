"""`qemu-sdei backend`: serve a QEMU that somebody else runs (see `qemu-sdei qemu-args`)."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import paths
from qemu_sdei.cli import output
from qemu_sdei.cli.output import add_verbosity
from qemu_sdei.errors import ProtocolError, SdeiError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.vm.early_deaths import EarlyDeaths

_FOREVER: Final = 10.0**9
"""Seconds that the backend waits for QEMU: the user ends it."""
_EARLY: Final = 1.0
"""A backend that dies within so many seconds of its start has served nothing to speak of."""
_LOOK: Final = 0.2
_SAID: Final = 64 << 10
"""Bytes of what a backend said last."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "backend",
        description="Serve the firmware of a QEMU that was started with the options of `qemu-sdei qemu-args`. When "
        "that QEMU ends, wait for the next one. Ctrl-C ends the backend.",
    )
    parser.add_argument("--dir", required=True, metavar="DIR", help="directory that qemu-args wrote")
    parser.add_argument("--once", action="store_true", help="end when QEMU ends")
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import guest_identity, rundir
    from qemu_sdei.config import GuestConfig
    from qemu_sdei.host import memory
    from qemu_sdei.vm.early_deaths import EarlyDeaths

    directory = paths.absolute(args.dir)
    try:
        config = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes())
    except OSError as error:
        raise UsageError(
            f"{directory / rundir.CONFIG} cannot be read ({error.strerror}): "
            "give the directory that `qemu-sdei qemu-args --dir` wrote"
        ) from None
    except ProtocolError as error:
        raise UsageError(f"{directory / rundir.CONFIG}: {error}; write it again with `qemu-sdei qemu-args`") from None
    if config.ram_path is None:
        raise UsageError(f"{directory / rundir.CONFIG} names no RAM file; write it again with `qemu-sdei qemu-args`")
    ram = Path(config.ram_path)

    def say(text: str) -> None:
        if not args.quiet:
            output.say(f"qemu-sdei: {text}", error=True)

    with locked(directory / rundir.LOCK):
        memory.create_named(ram, config.ram_size)
        if not (directory / rundir.JOURNAL).exists():  # else the QEMU that was served before goes on
            _identify(directory)
        try:
            with ram.open("rb") as file:
                _serve(directory, EarlyDeaths(file.fileno(), config.nr_cpus), args.once, say)
        finally:
            (directory / rundir.CONTROL).unlink(missing_ok=True)
            (directory / rundir.BACKEND_LOCK).unlink(missing_ok=True)
            if has_qemu(directory):
                say(f"QEMU still runs: start this command again to go on; {ram} stays")
            else:
                ram.unlink(missing_ok=True)
                _forget(directory)
                (directory / guest_identity.FILE).unlink(missing_ok=True)
    return 0


def _identify(directory: Path) -> None:
    """The next QEMU is another guest: who was connected to the one before is not to take it for that."""
    from qemu_sdei import guest_identity

    try:
        guest_identity.write(directory)
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be written: {error.strerror}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` of a directory of `qemu-args`. Raises `UsageError`: another process does."""
    try:
        opened = path.open("a+")
    except OSError as error:
        raise UsageError(f"directory {path.parent} cannot be written: {error.strerror}") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UsageError(
                f"{path.parent} is served by process {file.read(20).strip() or '?'} already: end it first"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _serve(directory: Path, deaths: EarlyDeaths, once: bool, say: Any) -> None:
    from qemu_sdei.backend.loop import memory_limit
    from qemu_sdei.vm.process import describe_exit

    command = [sys.executable, "-m", "qemu_sdei.backend", str(directory), "--doorbell-timeout", str(_FOREVER)]
    if setpriv := shutil.which("setpriv"):
        # It must not stay when this process is killed.
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    say(f"waiting for QEMU at {directory}; Ctrl-C ends this")
    while True:
        began = time.monotonic()
        deaths.started()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        try:
            errors = _watch(child, directory, say)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        said = errors.decode(errors="replace").strip()
        if child.returncode == 0:
            deaths.died(answered=True)
            # What is in it was that QEMU's; the next one starts from its reset.
            _forget(directory)
            _identify(directory)
            say("QEMU ended")
            if once:
                return
            say("waiting for the next one")
        elif child.returncode == UsageError.exit_code and said:
            raise UsageError(said.splitlines()[-1].removeprefix("qemu-sdei backend: "))
        elif child.returncode == memory_limit.EXIT:
            raise SdeiError(said.splitlines()[-1] if said else "the backend took too much memory")
        else:
            deaths.died(answered=time.monotonic() - began >= _EARLY)
            say(
                f"the backend {describe_exit(child.returncode)}"
                + (f": {said}" if said else "")
                + "; it is started again"
            )
            if deaths.over:
                raise SdeiError(f"the backend died {deaths.count} times in a row; its last words: {said or 'none'}")
            time.sleep(deaths.delay)


def _watch(child: subprocess.Popen[bytes], directory: Path, say: Any) -> bytes:
    """Wait for the end of the backend and return what it said last; tell when it begins to serve."""
    import select

    from qemu_sdei import rundir

    control = directory / rundir.CONTROL
    control.unlink(missing_ok=True)
    serving = False
    said = b""
    assert child.stderr is not None
    with child.stderr as stderr:
        while True:
            if select.select([stderr], [], [], None if serving else _LOOK)[0]:
                if not (data := os.read(stderr.fileno(), _SAID)):
                    child.wait()
                    return said
                said = (said + data)[-_SAID:]  # a user's service may say something at each call
            # The control socket is made when QEMU has answered.
            if not serving and control.exists():
                serving = True
                say(f"serving QEMU; see `qemu-sdei status {directory}`")


def has_qemu(directory: Path) -> bool:
    """Whether a QEMU listens at the doorbell in `directory`."""
    import socket

    from qemu_sdei import rundir

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(directory / rundir.DOORBELL))
        except OSError:
            return False
    return True


def _forget(directory: Path) -> None:
    """What a backend kept of a QEMU that has ended."""
    from qemu_sdei import rundir

    for name in (rundir.JOURNAL, rundir.TRACE):
        (directory / name).unlink(missing_ok=True)
