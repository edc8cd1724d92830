"""What can be done with a guest's console: wait for text, run commands in our initramfs' shell, follow the output."""

from __future__ import annotations

import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.errors import GuestError, GuestTimeoutError, LostGuestError, SdeiError, UsageError
from qemu_sdei.guest import shell
from qemu_sdei.guest.guest_part import GuestPart
from qemu_sdei.guest.kernel_claims import KernelClaims
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.sdei_client import SdeiClient
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.host.client_module import MODULE_PATH
from qemu_sdei.vm.console import LIMIT
from qemu_sdei.vm.kernel_messages import Panic

if TYPE_CHECKING:
    from qemu_sdei.guest.guest_exec import ExecResult

_SLICE: Final = 0.5
_PARTS: Final = 4096
_GOODBYE: Final = re.compile(r"\] reboot: Restarting system")


class _ResetError(Exception):
    """A reset came while a command was waited for, or another kernel."""


class GuestConsole(GuestPart, ABC):
    """The console side of a `Guest`."""

    def __init__(self, record: GuestRecord) -> None:
        super().__init__(record)
        self._cursor = 0
        """Where on the console `expect` goes on."""
        self._shell_boot = self._shell_position = -1
        """Boot whose shell was seen, and where on the console it was last heard of."""
        self._panic_cursor = 0
        self._claims = KernelClaims(self.console_text, lambda: self.reset_count, self._kernels)
        self._shell_use = threading.RLock()
        """Held while a command is in the shell."""

    @abstractmethod
    def write(self, text: str | bytes) -> None:
        """Type at the guest's console."""

    @abstractmethod
    def _kernels(self) -> int | None:
        """How many kernels have begun since the last reset, as the firmware counts them; None: not known now."""

    @property
    @abstractmethod
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events, the newest ones."""

    @property
    @abstractmethod
    def reset_count(self) -> int:
        """How many there were."""

    def _boot_position(self) -> int:
        """Where the console's text of this boot begins: after a reset, or what a kernel said last that makes way for
        another one without.
        """
        resets = self.resets
        return max(int(resets[-1]["position"]) if resets else 0, self.console_text.left)

    @property
    def _has_shell(self) -> bool:
        """Our shell was heard of in this boot."""
        return self._shell_boot == self.reset_count and self._shell_position >= self.console_text.left

    @property
    def console(self) -> str:
        """Console output so far: the newest 4 Mi characters, with newlines as line ends."""
        return self.console_text.text

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60.0) -> re.Match[str]:
        r"""Wait until `pattern` matches the console output that follows the last match, and return the match.

        Args:
            pattern: regular expression; a str is compiled with re.MULTILINE. It is searched in what has come so far: a
                number that may have more digits needs what follows it in the pattern (`r"x0=(\d+)\s"`).
            timeout: seconds to wait.

        Raises:
            GuestTimeoutError: no match within `timeout`.
            GuestPanicError: the guest panicked first.
            LostGuestError: QEMU ended first.
        """
        self._record.check_started()
        stall = None if self.booted else self.options.boot_timeout
        match, self._cursor = self.console_text.search(pattern, self._cursor, timeout, stall=stall)
        return match

    @property
    def booted(self) -> bool:
        """True: our initramfs' shell was seen since the last reset; for other guests: the console printed anything
        since then.
        """
        if self._has_shell:
            return True
        text, _ = self.console_text.since(self._boot_position())
        if not self._record.plan.own_initramfs:
            return bool(text)
        return any(shell.marker(nonce, "shell") in text for nonce in self._record.nonces)

    def expect_panic(self, timeout: float = 60.0) -> Panic:
        """Wait until the guest's kernel panics, and return its words. A panic since the last call counts too.

        The guest runs on, and this panic ends no later wait: `run` then waits for the shell of the next boot. The panic
        is found in the console output, so a program in the guest can forge it.

        `timeout`: seconds to wait.

        Raises:
            GuestTimeoutError: no panic within `timeout`.
            LostGuestError: QEMU ended without a panic.
        """
        self._record.check_started()
        deadline = time.monotonic() + timeout
        while True:
            self._claims.look()
            if (panic := self.console_text.silent_panic(self._panic_cursor)) is not None:
                break
            left = deadline - time.monotonic()
            try:
                panic = self.console_text.wait_panic(self._panic_cursor, min(max(left, 0), _SLICE))
                break
            except GuestTimeoutError as error:
                if left <= _SLICE:
                    error.message = f"a kernel panic did not come within {timeout:g} s"
                    raise
        self.console_text.taken(panic)
        self._panic_cursor = panic.position + 1
        self._cursor = max(self._cursor, self._panic_cursor)
        return panic

    def wait_shell(self, timeout: float = 300.0) -> None:
        """Wait until the shell of our initramfs is ready. `run` does that itself.

        `timeout`: seconds to wait.

        Raises:
            SdeiError: this guest has no such shell.
            GuestTimeoutError: no shell within `timeout`.
            GuestPanicError: the guest panicked first.
            LostGuestError: QEMU ended first.
        """
        plan = self._record.plan
        if not plan.own_initramfs or self.options.command is not None:
            raise SdeiError("only a guest with our own initramfs and no command has a shell")
        # What is typed while the machine goes down stays in QEMU's UART and jams it (PL011 of QEMU before 8.0 has no
        # reset), so the shell of a kernel that has said goodbye, or has panicked, is none.
        self._claims.look()
        if self._has_shell and not _GOODBYE.search(self.console_text.since(self._shell_position)[0]):
            return
        said = "|".join(shell.marker_pattern(nonce, "shell").pattern for nonce in self._record.nonces)
        pattern = re.compile(rf"(?:{said})(?![\s\S]*{_GOODBYE.pattern})")
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            _, position = self.console_text.search(
                pattern, self._boot_position(), left, what="the guest's shell", stall=self.options.boot_timeout
            )
            self._heard(position)
            if self._has_shell:  # else that kernel has left meanwhile
                break
        self._claims.settle()

    def _heard(self, position: int) -> None:
        """Our shell has spoken at `position`."""
        self._shell_boot, self._shell_position = self.reset_count, position
        self.console_text.alive(position)

    def exec(self, command: str, *, stdin: bytes = b"", timeout: float = 30.0) -> ExecResult:
        """Run `command`, a shell script, in the guest, apart from the console. The guest needs
        `GuestOptions(channel=True)`. If the guest still boots, wait for that first.

        Args:
            command: the script.
            stdin: bytes for its standard input.
            timeout: seconds that the command may take; then it is killed in the guest.

        Raises:
            UsageError: the guest has no agent, or runs as many commands as it can.
            GuestTimeoutError: the command did not end within `timeout`.
            GuestPanicError: the guest panicked before the command ended.
            LostGuestError: QEMU ended before the command did.
        """
        from qemu_sdei.guest import guest_exec

        console = self.console_text
        start = console.end
        what = f"command {command[:60]!r} in the guest"
        return guest_exec.run(
            lambda: self.placement.directory.path, lambda: console.raise_if_over(start, what), command, stdin, timeout
        )

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """Run `command` in the guest's shell, and return its exit status and output. The guest needs our own initramfs,
        and no `command`. If it still boots, wait for that first.

        The command runs in the shell process itself, so `cd` has an effect on the next one. Its standard input is
        /dev/null. Kernel messages of that time are in the output.

        `timeout`: seconds that the command may take, without the boot.

        Raises:
            GuestTimeoutError: the command did not end within `timeout`. It runs on if it has begun; else it will not
                run.
            GuestPanicError: the guest panicked first; with `on_panic="continue"`: this command was lost with its
                kernel.
            LostGuestError: QEMU ended first.
            UsageError: another thread runs a command in this shell.
        """
        if not self._shell_use.acquire(blocking=False):
            raise UsageError(
                "another thread runs a command in this guest's shell, which takes one at a time: wait for it, or use "
                "Guest.exec, which takes several (GuestOptions(channel=True))"
            )
        try:
            return self._run(command, timeout)
        finally:
            self._shell_use.release()

    def _run(self, command: str, timeout: float) -> CommandResult:
        what = f"command {command!r} in the guest"
        while True:
            self.wait_shell()
            if self.console_text.panicked:
                raise self.console_text.panic_error(what)
            nonce = secrets.token_hex(8)
            start = self.console_text.end
            boots = self.reset_count
            first, *rest = (line + "\r" for line in shell.request(command, nonce))
            answer = partial(self.console_text.search, what=what, abort=partial(self._gone_since, boots, start))
            try:
                self.write(first)
                try:
                    answer(shell.ready_pattern(nonce), start, timeout)
                except GuestTimeoutError:
                    self.write("\r" * len(rest))  # an empty command, if the shell comes to it at last
                    raise
                self.write("".join(rest))
                _, end = answer(shell.reply_pattern(nonce), start, timeout)
                break
            except _ResetError:
                # The reset was under way when we typed: nobody has read it.
                if shell.marker_pattern(nonce, "begin").search(self.console_text.since(start)[0]):
                    raise self._gone_error(boots, start, what) from None
        text, _ = self.console_text.since(start)
        self._cursor = max(self._cursor, end)
        if self.reset_count == boots:
            self._heard(end)
            self._claims.dismiss(end)  # it was the command's output
        result = shell.parse_reply(text, nonce)
        if result is None:
            raise self.console_text.timeout_error(f"the output of {what} was lost on the console")
        return result

    def sdei_client(self, events: Iterable[int] = (0,), *, verbose: int = 10, records: int = 256) -> SdeiClient:
        """Load the SDEI client module into a guest with `GuestOptions.client`, then register and enable `events`.

        Args:
            events: event numbers.
            verbose: how many full dumps a second the module prints to the kernel log at most.
            records: how many of its newest records each CPU keeps.

        Raises:
            SdeiError: the guest has no client module.
            SdeiClientError: the module cannot be loaded, or the kernel refused an event.
            GuestTimeoutError, GuestPanicError, LostGuestError: as `run`.
        """
        # Where it was saved and goes on, nobody here knows any more what its initramfs had.
        if self._record.plan.client is None and self.run(f"[ -e {MODULE_PATH} ]").status != 0:
            raise SdeiError("this guest has no client module: start it with GuestOptions(client=True), or --client")
        client = SdeiClient(self.run)
        client.load(events, verbose=verbose, records=records)
        return client

    def _gone_since(self, boots: int, position: int) -> Exception | None:
        gone = self.reset_count != boots or self.console_text.replaced_since(position)
        return _ResetError() if gone else None

    def _gone_error(self, boots: int, position: int, what: str) -> GuestError:
        if self.console_text.panicked_since(position):
            return self.console_text.panic_error(what)
        if self.reset_count != boots:
            return LostGuestError(f"the guest was reset during {what}")
        return LostGuestError(f"the guest's kernel has started another one during {what}")

    def wait_command(
        self,
        output: Callable[[str], None] | None = None,
        timeout: float | None = None,
        *,
        boot_log: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Wait until the command of `GuestOptions.command` has ended.

        With `on_panic="continue"` the next kernel after a panic may run the command again; the result is of the run
        that ends.

        Args:
            output: called with each piece of the command's output as it comes.
            timeout: seconds to wait; None: no limit.
            boot_log: called with each piece of the console output from before the command.

        Returns:
            Exit status, and the newest 4 Mi characters of the output.

        Raises:
            GuestTimeoutError: the boot stalled, or `timeout` passed.
            GuestPanicError: the guest panicked; with `on_panic="continue"`: nothing came within `boot_timeout` after
                it.
            LostGuestError: QEMU ended first.
            SdeiError: the guest was started without a command.
        """
        if self.options.command is None:
            raise SdeiError("this guest was started without a command")
        self._record.check_started()
        console = self.console_text
        began = time.monotonic()
        stream = shell.OutputStream(self._record.nonce)
        parts: list[str] = []
        begun = -1
        size = 0
        what = "the command to start"

        def take(text: str) -> None:
            nonlocal size
            piece = stream.feed(text)
            if stream.log and boot_log is not None:
                boot_log(stream.log)
            if piece:
                parts.append(piece)
                size += len(piece)
                if size > 2 * LIMIT or len(parts) > _PARTS:
                    parts[:] = ["".join(parts)[-LIMIT:]]
                    size = len(parts[0])
                if output is not None:
                    output(piece)

        for text, position in self._follow():
            if not console.panic_ends:
                self._claims.look()
            if text:
                if console.begun != begun:
                    # From there on it is another kernel's boot.
                    begun = console.begun
                    cut = max(begun - (position - len(text)), 0)
                    take(text[:cut])
                    stream.boots_again()
                    text = text[cut:]
                take(text)
                what = "the command to end" if stream.begun else "the command to start"
                if stream.status is not None:
                    return CommandResult(stream.status, "".join(parts)[-LIMIT:])
                continue
            console.raise_if_over(0, what)
            if timeout is not None and time.monotonic() - began >= timeout:
                raise console.timeout_error(f"{what} was waited for {timeout:g} s")
            if not stream.begun or console.panicked:
                try:
                    console.raise_if_silent(self.options.boot_timeout, what)
                except GuestTimeoutError:
                    if console.panicked:
                        raise console.panic_error(what) from None
                    raise
        console.raise_if_over(0, what)
        raise LostGuestError(f"the guest's console closed while waiting for {what}")

    def follow(self, position: int = 0) -> Iterator[str]:
        """Yield the console output from `position` (in characters) as it comes, until the guest has ended.

        It yields "" at least once a second, so that the caller can do other work.
        """
        for text, _ in self._follow(position):
            yield text

    def _follow(self, position: int = 0) -> Iterator[tuple[str, int]]:
        """As `follow`, with the position after each piece."""
        console = self.console_text
        while True:
            text, position = console.since(position)
            yield text, position
            with console.changed:
                if console.end == position:
                    if console.closed:
                        return
                    console.changed.wait(1.0)
