"""What can be done with a guest's console: wait for text, run commands in our initramfs' shell, follow the output."""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from qemu_sdei.errors import GuestTimeoutError, LostGuestError, SdeiError
from qemu_sdei.machine import shell
from qemu_sdei.machine.console import Console
from qemu_sdei.machine.options import GuestOptions
from qemu_sdei.machine.plan import Plan
from qemu_sdei.machine.sdei_client import SdeiClient
from qemu_sdei.machine.shell import CommandResult

_GOODBYE: Final = re.compile(r"\] reboot: Restarting system")


class _ResetError(Exception):
    """A reset came while a command was waited for."""


class GuestConsole(ABC):
    """The console side of a `Guest`."""

    def __init__(self, options: GuestOptions) -> None:
        self.options = options
        self.console_text = Console()
        self._nonce = secrets.token_hex(8)
        self._plan: Plan | None = None
        self._cursor = 0
        """Number of the boot whose shell was told not to echo."""
        self._shell_boot = -1
        self._shell_position = 0
        """Boot whose shell was seen, and where on the console."""

    @abstractmethod
    def write(self, text: str | bytes) -> None:
        """Type at the guest's console."""

    @property
    @abstractmethod
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events so far."""

    def _started(self) -> Plan:
        if self._plan is None:
            raise SdeiError("the guest is not started: use it in a `with`, or call start()")
        return self._plan

    def _boot_position(self) -> int:
        """Where the console's text of this boot begins."""
        resets = self.resets
        return int(resets[-1]["position"]) if resets else 0

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
        self._started()
        stall = None if self.booted else self.options.stall_timeout
        match, self._cursor = self.console_text.search(pattern, self._cursor, timeout, stall=stall)
        return match

    @property
    def booted(self) -> bool:
        """Our initramfs' shell was seen since the last reset; for other guests: they said anything at all."""
        if self._shell_boot == len(self.resets):
            return True
        text, _ = self.console_text.since(self._boot_position())
        if not self._started().own_initramfs:
            return bool(text)
        return shell.marker(self._nonce, "shell") in text

    def wait_shell(self, timeout: float = 300.0) -> None:
        """Wait until our initramfs' shell is there (it need not be called before `run`).

        Raises `SdeiError` if this guest has none, and as `expect`.
        """
        plan = self._started()
        if not plan.own_initramfs or self.options.command is not None:
            raise SdeiError("only a guest with our own initramfs and no command has a shell")
        boots = len(self.resets)
        # What is typed while the machine goes down stays in QEMU's UART and jams it (PL011 of QEMU before 8.0 has no
        # reset), so the shell of a kernel that has said goodbye is none.
        if self._shell_boot == boots and not _GOODBYE.search(self.console_text.since(self._shell_position)[0]):
            return
        pattern = re.compile(shell.marker_pattern(self._nonce, "shell").pattern + rf"(?![\s\S]*{_GOODBYE.pattern})")
        _, self._shell_position = self.console_text.search(
            pattern, self._boot_position(), timeout, what="the guest's shell", stall=self.options.stall_timeout
        )
        self._shell_boot = len(self.resets)

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """Run `command` in the guest's shell (of our own initramfs) and return its status and output.

        It runs in the shell itself, with /dev/null as standard input. Kernel messages that come meanwhile are in the
        output.

        Raises:
            GuestTimeoutError: it did not end within `timeout` seconds (booting not counted); it is then still running,
                unless the shell did not come to it in that time: then it will not run.
            GuestPanicError, LostGuestError: as `expect`.
        """
        what = f"command {command!r} in the guest"
        while True:
            self.wait_shell()
            if self.console_text.panicked:
                raise self.console_text.panic_error(what)
            nonce = secrets.token_hex(8)
            start = self.console_text.end
            boots = len(self.resets)
            first, *rest = (line + "\r" for line in shell.request(command, nonce))
            answer = partial(self.console_text.search, what=what, abort=partial(self._reset_since, boots))
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
                    raise LostGuestError(f"the guest was reset during {what}") from None
        text, _ = self.console_text.since(start)
        self._cursor = max(self._cursor, end)
        result = shell.parse_reply(text, nonce)
        if result is None:
            raise self.console_text.timeout_error(f"the output of {what} was lost on the console")
        return result

    def sdei_client(self, events: Iterable[int] = (0,), *, verbose: int = 10, records: int = 256) -> SdeiClient:
        """Load the SDEI client module into this guest (started with `client`), and register and enable `events`.

        `verbose`: full dumps in the kernel log a second at most; `records`: how many of the newest each CPU keeps.

        Raises `SdeiError` if the guest has no module, `SdeiClientError` when it does not load, and as `run`.
        """
        if self._started().client is None:
            raise SdeiError("this guest has no client module: start it with GuestOptions(client=True), or --client")
        client = SdeiClient(self.run)
        client.load(events, verbose=verbose, records=records)
        return client

    def _reset_since(self, boots: int) -> Exception | None:
        return _ResetError() if len(self.resets) != boots else None

    def wait_command(
        self,
        output: Callable[[str], None] | None = None,
        timeout: float | None = None,
        *,
        boot_log: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Wait until the `command` of the options ended.

        `output` receives what it prints as it comes, `boot_log` what the console shows before it starts.

        Raises:
            GuestTimeoutError: the boot stalled, or `timeout` seconds (None: no limit) passed.
            GuestPanicError, LostGuestError: as `expect`.
        """
        if self.options.command is None:
            raise SdeiError("this guest was started without a command")
        self._started()
        began = time.monotonic()
        stream = shell.OutputStream(self._nonce)
        parts: list[str] = []
        what = "the command to start"
        for text in self.follow():
            if text:
                piece = stream.feed(text)
                if stream.log and boot_log is not None:
                    boot_log(stream.log)
                if stream.begun:
                    what = "the command to end"
                if piece:
                    parts.append(piece)
                    if output is not None:
                        output(piece)
                if stream.status is not None:
                    return CommandResult(stream.status, "".join(parts))
                continue
            self.console_text.raise_if_over(0, what)
            if timeout is not None and time.monotonic() - began >= timeout:
                raise self.console_text.timeout_error(f"{what} was waited for {timeout:g} s")
            if not stream.begun:
                self.console_text.raise_if_silent(self.options.stall_timeout, what)
        self.console_text.raise_if_over(0, what)
        raise LostGuestError(f"the guest's console closed while waiting for {what}")

    def end_input(self, line_ended: bool) -> None:
        """Tell the guest's terminal that no more is typed; a last line that was not ended is.

        Our own shell is told to exit, which powers the guest off; others get Ctrl-D. (That character is lost where it
        meets a terminal whose mode changes, as a shell's does from line to line.)
        """
        line = "" if line_ended else "\r"
        self.write(line + ("exit\r" if self._started().own_initramfs else "\x04"))

    def follow(self, position: int = 0) -> Iterator[str]:
        """Yield the console's text from `position` on as it comes, until the guest has ended.

        Also yields "" at least once a second, so that the caller can look at other things.
        """
        console = self.console_text
        while True:
            text, position = console.since(position)
            yield text
            with console.changed:
                if console.end == position:
                    if console.closed:
                        return
                    console.changed.wait(1.0)
