"""A way to another host by ssh: its `qemu-sdei receive` is started there, and a socket here leads to its socket.

ssh is the user's own, with the user's configuration, keys and known hosts. One connection is made, in the foreground,
so that it can ask for a password at a terminal; what follows is multiplexed over it:

    ssh -o ControlMaster=yes -o ControlPersist=60 ... HOST true
    ssh -S CONTROL HOST qemu-sdei receive --detach ...       prints where it waits, as JSON
    ssh -S CONTROL -O forward -L here.sock:there.sock HOST
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline, rundir
from qemu_sdei.config import check_name
from qemu_sdei.errors import GuestError, ProtocolError, UsageError
from qemu_sdei.migration.remote_address import Address
from qemu_sdei.migration.remote_link import clean

SCHEME: Final = "ssh://"
REMOTE_COMMAND: Final = "qemu-sdei"
_LOGIN: Final = 120.0
_ANSWER: Final = 60.0
_END: Final = 5.0
_MAX_OUTPUT: Final = 1 << 16
_OPTIONS: Final = (
    # What the user's configuration may have for this host, and is not for us.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no"),
    # A connection that is dead is noticed in 15 seconds.
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    # Not left behind, should this process be killed.
    *("-o", "ControlPersist=60"),
    "-T",
    "-x",
    "-a",
)


def parse_ssh(text: str) -> tuple[list[str], str, str | None]:
    """Of `ssh://[USER@]HOST[:PORT][/NAME]`: ssh's own words for the host, what a person calls it, the name.

    Raises:
        UsageError: it is not of that form.
    """
    found = re.fullmatch(r"ssh://((?:[\w.+-]+@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+))(?::(\d{1,5}))?(?:/([^/]*))?/?", text)
    if found is None or found[1].startswith("-") or "@-" in found[1]:
        raise UsageError(f"--to {text!r} is not understood: write ssh://[USER@]HOST[:PORT][/NAME]")
    name = check_name(found[3]) if found[3] else None
    target = found[1].replace("[", "").replace("]", "")
    return [*(["-p", found[2]] if found[2] else []), "--", target], target, name


class Tunnel:
    """The way to one host; in a `with`, which gives the address to migrate to."""

    def __init__(self, to: str, name: str, *, remote_command: str = REMOTE_COMMAND) -> None:
        """`name`: of the guest there, if `to` has none. Raises `UsageError`."""
        self._host, self._label, wanted = parse_ssh(to)
        self._name = wanted or check_name(name)
        self._remote = shlex.split(remote_command)
        self._directory: Path | None = None
        self._session: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Address:
        """Connect. Raises `UsageError`: ssh cannot be used so; `GuestError`: it does not get there."""
        if shutil.which("ssh") is None:
            raise UsageError("there is no ssh here: install openssh-client, or use tls://")
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        self._directory = Path(tempfile.mkdtemp(prefix="qs-", dir=runtime if Path(runtime or "-").is_dir() else None))
        try:
            # ssh makes its control socket under a longer name first.
            rundir.check_socket_path(self._directory / "control.0123456789abcdef", "set XDG_RUNTIME_DIR")
            return self._open(self._directory)
        except BaseException:
            self._close()
            raise

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self, directory: Path) -> Address:
        control = ["-o", f"ControlPath={directory / 'control'}"]
        terminal = sys.stdin.isatty() and sys.stderr.isatty()
        quiet = [] if terminal else ["-o", "BatchMode=yes"]
        self._run("log in", ["ssh", "-o", "ControlMaster=yes", *control, *quiet, *_OPTIONS, *self._host, "true"])
        words = [*self._remote, "receive", "--detach", "--name", self._name]
        there = self._begin(["ssh", "-o", "ControlMaster=no", *control, *_OPTIONS, *self._host, shlex.join(words)])
        socket = there.get("socket")
        if not isinstance(socket, str) or re.fullmatch(r"/[\w./+@=-]+", socket) is None:
            raise GuestError(f"{self._label} does not say where it waits for the guest")
        local = directory / "there"
        # -F none: forwardings of the user's configuration are not for this connection.
        forward = ["ssh", "-F", "none", *control, "-O", "forward", "-L", f"{local}:{socket}", *self._host]
        self._run("forward a socket", forward)
        return Address("unix", str(local), label=self._label)

    def _run(self, what: str, command: list[str]) -> None:
        """Run ssh to its end, or until it has gone to the background."""
        assert self._directory is not None
        log = self._directory / "log"
        with log.open("wb") as output:
            try:
                ended = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_LOGIN, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                raise GuestError(f"ssh to {self._label} did not {what} within {_LOGIN:g} s") from None
        if ended:
            said = clean(log.read_text(errors="replace").strip().rpartition("\n")[2])
            raise GuestError(f"ssh to {self._label} could not {what} ({said or f'status {ended}'})")

    def _begin(self, command: list[str]) -> dict[str, Any]:
        """Start the receiver there; return its first word."""
        # A session of its own: Ctrl-C is for us, who then end it in order.
        session = self._session = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert session.stdout is not None
        assert session.stderr is not None
        deadline = time.monotonic() + _ANSWER
        lines, size = jsonline.Lines(2 * _MAX_OUTPUT), 0
        while size < _MAX_OUTPUT:
            if not select.select([session.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise GuestError(f"{self._label} did not say within {_ANSWER:g} s that it waits for the guest")
            part = os.read(session.stdout.fileno(), 4096)
            if not part:
                break
            size += len(part)
            lines.feed(part)
            while (line := lines.next()) is not None:
                # A shell may greet its user first.
                with contextlib.suppress(ProtocolError):
                    message = jsonline.decode(line)
                    if message.get("state") == "waiting":
                        for stream in (session.stdout, session.stderr):
                            threading.Thread(target=_drain, args=(stream,), daemon=True).start()
                        return message
        session.kill()
        errors = clean(session.stderr.read(_MAX_OUTPUT).decode(errors="replace").strip().rpartition("\n")[2])
        raise GuestError(
            f"{self._label} did not start to wait for the guest ({errors or 'it does not say why'}); is qemu-sdei on "
            "PATH there? Else name it by --remote-command"
        )

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            assert session.stdin is not None
            session.stdin.close()
            session.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                session.wait(_END)
            session.kill()
            session.wait(_END)
        directory, self._directory = self._directory, None
        if directory is not None:
            control = directory / "control"
            if control.exists():
                end = ["ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", *self._host]
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(end, stdin=subprocess.DEVNULL, capture_output=True, timeout=_END, check=False)
            shutil.rmtree(directory, ignore_errors=True)


def _drain(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read1(4096):
            pass
