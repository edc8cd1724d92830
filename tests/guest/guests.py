"""What the tests that boot guests share: worlds of their own, and looking for what was left."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from qemu_sdei.errors import GuestTimeoutError, SdeiError
from qemu_sdei.rundir import BACKEND_LOG, QEMU_LOG

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.vm.qemu_exit import PowerOff

from qemu_sdei.host.environment import find_qemu
from qemu_sdei.migration.options import LAST_POSTCOPY, Step

LIMIT = 30.0
"""Seconds that something which happens at once may take on a machine that is busy."""


_KERNEL_LINE = re.compile(r"^\[ *\d+\.\d{6}\] .*\n", re.MULTILINE)
PYTEST_PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "pytest.md"
NO_CALLS_OF_ITS_OWN = ("std=sdei",)
"""Services of a Linux that calls only when a test has it do so: it asks TRNG at any moment, on any CPU. Whoever writes
into the frame of a CPU that waits for an answer has that CPU hang.
"""


@functools.cache
def postcopy_works() -> bool:
    """Whether the QEMU on PATH is one that does not lose pages by postcopy. It is started to find out."""
    return shutil.which("qemu-system-aarch64") is None or find_qemu().version[:2] <= LAST_POSTCOPY


def page_example() -> str:
    """The test file of twenty lines at the top of the page about pytest."""
    first = re.search(r"```python\n(.*?)```", PYTEST_PAGE.read_text(), re.DOTALL)
    assert first is not None
    return first[1]


@contextmanager
def runtime_directory() -> Iterator[Path]:
    """A runtime directory of the test's own; pytest's are too long for a socket's path.

    What a test that fails has left running in it ends with it.
    """
    path = Path(tempfile.mkdtemp(prefix="qs-"))
    try:
        yield path
    finally:
        end_everything(path)
        shutil.rmtree(path, ignore_errors=True)


def end_everything(runtime: Path) -> None:
    """Kill all processes that use the runtime directory: QEMU, backends, and the commands that the test started."""
    wanted = b"XDG_RUNTIME_DIR=" + os.fsencode(runtime)
    deadline = time.monotonic() + LIMIT
    while found := [*processes(runtime), *_find("environ", lambda text: wanted in text.split(b"\0"))]:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:  # those that are ours would stay as zombies
            with contextlib.suppress(OSError):
                os.waitpid(pid, os.WNOHANG)
        assert time.monotonic() < deadline, f"processes {found} of {runtime} do not end"
        time.sleep(0.02)


def storm_ended(guest: Guest) -> PowerOff:
    """How a guest ended that makes its calls and powers off; how long that takes is the host's affair.

    Raises:
        GuestTimeoutError: it has made no call for LIMIT seconds, and is not off.
    """
    made = -1
    while True:
        try:
            return guest.wait_off(LIMIT)
        except GuestTimeoutError:
            before, made = made, calls_made(guest)
            if made == before:
                raise


def calls_made(guest: Guest) -> int:
    """Calls that a guest has made; 0: its backend cannot be asked, because it is killed, or the guest is off."""
    try:
        return int(guest.status()["counts"]["calls"])
    except SdeiError:
        return 0


class Command(subprocess.Popen[bytes]):
    """A process of a test; in a `with`, a test that fails does not wait for its end."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)  # type: ignore[arg-type]


def command(
    runtime: Path, *words: str, stdout: int | IO[bytes] = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> Command:
    """Start `qemu-sdei` with the given words."""
    return Command(
        [sys.executable, "-m", "qemu_sdei", *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )


def at(phase: str, act: Callable[[], object]) -> Callable[[Step], None]:
    """A report that does something the first time that a phase is reached."""
    done: list[bool] = []

    def report(step: Step) -> None:
        if step.phase == phase and not done:
            done.append(True)
            act()

    return report


def processes(runtime: Path) -> list[int]:
    """Processes whose command line names the runtime directory: QEMU and backends of its guests."""
    return _find("cmdline", lambda text: os.fsencode(runtime) in text)


def _find(file: str, wanted: Callable[[bytes], bool]) -> list[int]:
    """Processes other than this one of which a file in procfs has what is wanted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / file).read_bytes()
            except OSError:
                continue
            if wanted(text):
                found.append(int(entry.name))
    return found


def until(what: str, condition: object, limit: float = LIMIT) -> None:
    """Wait until `condition()` is true; fail with `what` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(0.02)


def plain(output: str) -> str:
    """What a command printed, without kernel messages: on a busy host Linux complains of its timers at any moment."""
    return _KERNEL_LINE.sub("", output)


def unused_page(number: int) -> int:
    """Physical address of a page that no process of a booted Linux guest has, each in a block of its own.

    A kernel that takes a free page out of use splits its block and gives away the rest of it first: the pages beside
    it are the next process's.
    """
    return 0x4A00_0000 + number * (4 << 20)


def left(runtime: Path) -> list[str]:
    """Files below the runtime directory, but for the lock of the base directory."""
    return sorted(
        str(path.relative_to(runtime)) for path in runtime.rglob("*") if path.name not in ("qemu-sdei", ".lock")
    )


def check_nothing_left(runtime: Path) -> None:
    """Fail unless all processes and files of guests in `runtime` are gone, or go at once."""
    until("QEMU and backend end", lambda: not processes(runtime))
    until(f"the run directory goes away (still there: {left(runtime)})", lambda: not left(runtime))


@contextmanager
def explained(guest: Guest) -> Iterator[None]:
    """What fails in it tells how the guest was then: what happens once in a thousand times is not seen again soon."""
    try:
        yield
    except BaseException as error:
        looks: dict[str, Callable[[], object]] = {
            "QEMU": lambda: guest.qmp("query-status"),
            "its migration": lambda: guest.qmp("query-migrate"),
            "status": guest.status,
            "resets": lambda: guest.resets,
            "trace": lambda: "".join(f"\n    {record}" for record in guest.trace(60)),
            "console": lambda: "".join(f"\n    {line}" for line in guest.console_text.last_lines(60)),
            "logs": lambda: "".join(f"\n    {path.name}: {path.read_text()[-2000:]}" for path in _logs(guest)),
        }
        for what, look in looks.items():
            try:
                error.add_note(f"{guest.name}, {what}: {look()}")
            except Exception as why:
                error.add_note(f"{guest.name}, {what}: {type(why).__name__}: {why}")
        raise


def _logs(guest: Guest) -> list[Path]:
    return [guest.placement.directory / name for name in (BACKEND_LOG, QEMU_LOG)] if guest.here else []
