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
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.sdei_client import SdeiClient
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.host.client_module import MODULE_PATH
from qemu_sdei.vm.console import LIMIT
from qemu_sdei.vm.kernel_messages import Panic

if TYPE_CHECKING:
    from qemu_sdei.guest.guest_exec import ExecResult

_SLICE: Final = 0.5
_LOOK: Final = 0.3
"""Seconds between two looks at what the firmware counts."""
_PARTS: Final = 4096
_GOODBYE: Final = re.compile(r"\] reboot: Restarting system")


class _ResetError(Exception):
    """A reset came while a command was waited for, or another kernel."""


class GuestConsole(GuestPart, ABC):
    """The console side of a `Guest`."""

    def __init__(self, record: GuestRecord) -> None:
        super().__init__(record)
        self._cursor = 0
        """Number of the boot whose shell was told not to echo."""
        self._shell_boot = -1
        self._shell_position = -1
        """Boot whose shell was seen, and where on the console it was last heard of."""
        self._panic_cursor = 0
        self._kernel = (0, 1)
        """Which kernel was last known to run: resets before it, and its number since."""
        self._dismissed = -1
        self._looked = 0.0
        """Newest claimed boot on the console that is settled, and when the firmware was asked of one."""
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
        """The console's text so far (the newest 4 Mi characters), newlines as line ends."""
        return self.console_text.text

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60.0) -> re.Match[str]:
        """Wait until `pattern` (re.MULTILINE) shows on the console after what earlier calls found; return the match.

        Raises:
            GuestTimeoutError: not within `timeout` seconds.
            GuestPanicError, LostGuestError: it will not come any more.
        """
        self._record.check_started()
        stall = None if self.booted else self.options.boot_timeout
        match, self._cursor = self.console_text.search(pattern, self._cursor, timeout, stall=stall)
        return match

    @property
    def booted(self) -> bool:
        """Our initramfs' shell was seen since the last reset; for other guests: they said anything at all."""
        if self._has_shell:
            return True
        text, _ = self.console_text.since(self._boot_position())
        if not self._record.plan.own_initramfs:
            return bool(text)
        return any(shell.marker(nonce, "shell") in text for nonce in (self._record.nonce, *self._record.earlier))

    def expect_panic(self, timeout: float = 60.0) -> Panic:
        """Wait until the guest's kernel panics, unless it has since the last call, and return what it said. The guest
        goes on, and this panic ends no wait any more: `run` waits for the next boot's shell.

        What is told is the console's word: a program in the guest can print the same.

        Raises:
            GuestTimeoutError: not within `timeout` seconds. `LostGuestError`: the guest has ended without.
        """
        self._record.check_started()
        deadline = time.monotonic() + timeout
        while True:
            self._look_into_claims()
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

    def _look_into_claims(self) -> None:
        """A kernel's first words on the console, and nobody was heard to leave: an old log, or a kernel that another
        one has started in silence. The firmware knows, as soon as that one has called it.
        """
        claim, now = self.console_text.claimed, time.monotonic()
        if claim <= self._dismissed or now - self._looked < _LOOK:
            return
        self._looked = now
        boots, kernels = self.reset_count, self._kernels()
        before = self._kernel[1] if self._kernel[0] == boots else 1
        if kernels is not None and kernels > before and boots == self.reset_count:
            self._kernel, self._dismissed = (boots, kernels), claim
            self.console_text.replaced(claim)

    def wait_shell(self, timeout: float = 300.0) -> None:
        """Wait until our initramfs' shell is there (it need not be called before `run`).

        Raises `SdeiError` if this guest has none, and as `expect`.
        """
        plan = self._record.plan
        if not plan.own_initramfs or self.options.command is not None:
            raise SdeiError("only a guest with our own initramfs and no command has a shell")
        # What is typed while the machine goes down stays in QEMU's UART and jams it (PL011 of QEMU before 8.0 has no
        # reset), so the shell of a kernel that has said goodbye, or has panicked, is none.
        self._look_into_claims()
        if self._has_shell and not _GOODBYE.search(self.console_text.since(self._shell_position)[0]):
            return
        said = "|".join(
            shell.marker_pattern(nonce, "shell").pattern for nonce in (self._record.nonce, *self._record.earlier)
        )
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
        self._kernel = (self.reset_count, self._kernels() or 1)
        self._dismissed = self.console_text.claimed

    def _heard(self, position: int) -> None:
        """Our shell has spoken at `position`."""
        self._shell_boot, self._shell_position = self.reset_count, position
        self.console_text.alive(position)

    def exec(self, command: str, *, stdin: bytes = b"", timeout: float = 30.0) -> ExecResult:
        """Run `command`, a script for a shell of the guest, beside its console, and return what it left: bytes, as they
        are. For guests with `GuestOptions(channel=True)`; it waits for one that boots. Standard input is `stdin`.

        Raises:
            UsageError: it has no agent, or runs as many commands as it can. `GuestTimeoutError`: it did not end within
                `timeout` seconds, and is ended there. `GuestPanicError`, `LostGuestError`: it will not end any more.
        """
        from qemu_sdei.guest import guest_exec

        console = self.console_text
        start = console.end
        what = f"command {command[:60]!r} in the guest"
        return guest_exec.run(
            lambda: self.placement.directory.path, lambda: console.raise_if_over(start, what), command, stdin, timeout
        )

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """Run `command` in the guest's shell (of our own initramfs) and return its status and output.

        It runs in the shell itself, with /dev/null as standard input. Kernel messages that come meanwhile are in the
        output.

        Raises:
            GuestTimeoutError: it did not end within `timeout` seconds (booting not counted); it is then still running,
                unless the shell did not come to it in that time: then it will not run.
            GuestPanicError, LostGuestError: as `expect`; also with `on_panic="continue"` where this command is lost
                with its kernel.
            UsageError: another thread has a command in that shell just now.
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
            if self.console_text.claimed < end:
                self._dismissed = self.console_text.claimed  # it was the command's output
        result = shell.parse_reply(text, nonce)
        if result is None:
            raise self.console_text.timeout_error(f"the output of {what} was lost on the console")
        return result

    def sdei_client(self, events: Iterable[int] = (0,), *, verbose: int = 10, records: int = 256) -> SdeiClient:
        """Load the SDEI client module into this guest (started with `client`), and register and enable `events`.

        `verbose`: full dumps in the kernel log a second at most; `records`: how many of the newest each CPU keeps.

        Raises `SdeiError` if the guest has no module, `SdeiClientError` when it does not load, and as `run`.
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
        """Wait until the `command` of the options ended.

        `output` receives what it prints as it comes, `boot_log` what the console shows before it starts. The result
        has the last 4 Mi characters.

        With `on_panic="continue"` a kernel that comes after a panic is followed too, and may run the command again: the
        status is that of the one that ends.

        Raises:
            GuestTimeoutError: the boot stalled, or `timeout` seconds (None: no limit) passed.
            GuestPanicError, LostGuestError: as `expect`; a panic after which nothing comes for `boot_timeout`.
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
                self._look_into_claims()
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

    def end_input(self, line_ended: bool) -> None:
        """Tell the guest's terminal that no more is typed; a last line that was not ended is.

        Our own shell is told to exit, which powers the guest off; others get Ctrl-D. (That character is lost where it
        meets a terminal whose mode changes, as a shell's does from line to line.)
        """
        line = "" if line_ended else "\r"
        self.write(line + ("exit\r" if self._record.plan.own_initramfs else "\x04"))

    def follow(self, position: int = 0) -> Iterator[str]:
        """Yield the console's text from `position` on as it comes, until the guest has ended.

        Also yields "" at least once a second, so that the caller can look at other things.
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
