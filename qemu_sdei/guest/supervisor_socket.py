"""The owner socket: what other processes of the user may ask of the process that runs a guest.

Its backend cannot do these: they concern QEMU and the backend alike. The owner goes on owning the guest, so the
terminal or script that started it keeps it. One JSON object a line: a request, then lines `{"progress": {...}}`, then
`{"ok": true, "result": {...}}` or `{"ok": false, "error": {"kind": ..., "message": ...}}`. When the client hangs up
before the end, or only says that nothing more will come of it (SHUT_WR), the request is cancelled; who listens on is
told what became of it. A request says by `identity` which guest it means, where its client knows: another guest may
have the name by now. A request with `"messages": true` also gets lines `{"message": {...}}` (`message_log.Entry`): what
this process and QEMU, backends and other hosts say to each other meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from qemu_sdei import guest_identity, jsonline, locks
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.message_log import CONTROL, Entry, heard_by

MAX_LINE: Final = 1 << 16
_BACKLOG: Final = 16
_MAX_CLIENTS: Final = 32
_MAX_UNREAD: Final = 1 << 20
"""Bytes that wait for a client that does not read."""
_FIRST_WORD: Final = 10.0
"""Seconds in which a client must have said what it wants."""
_CLIENT: Final = "client"
_LOG: Final = logging.getLogger("qemu_sdei.owner")
_LOG.addHandler(logging.NullHandler())  # for programs that want it; on the terminal is the guest's console

Progress = Callable[[dict[str, Any]], None]
Command = Callable[[dict[str, Any], Progress], Awaitable[dict[str, Any]]]


class SupervisorSocket:
    """Serves one guest's owner socket, in its event loop."""

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._identity = ""
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self, path: Path) -> None:
        """Listen at `path` (0600, in a directory of the user's); a second call moves there.

        Does nothing if the directory is gone: so is the guest, which may have ended at its first instruction.
        """
        try:
            path.unlink(missing_ok=True)  # that of an owner that was killed
            listener = locks.listening(path, _BACKLOG)
        except FileNotFoundError:
            return
        self._stop_listening()
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE)
        self._path = path
        self._identity = guest_identity.read(path.parent)

    @property
    def _name(self) -> str:
        return "" if self._path is None else self._path.parent.name

    def _stop_listening(self) -> None:
        if self._server is not None and self._path is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def close(self) -> None:
        """Stop listening, and hang up on everybody."""
        self._stop_listening()
        self._server = None
        clients = [task for task in self._clients if task is not asyncio.current_task()]
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = writer.get_extra_info("socket")
        if not locks.may_ask(connection):
            _LOG.warning("a process of user %d was refused at %s", locks.peer_uid(connection), self._path)
            writer.close()
            return
        if len(self._clients) >= _MAX_CLIENTS:
            _send(writer, _refusal(f"more than {_MAX_CLIENTS} clients"))
            writer.close()
            return
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # it hung up, or we end
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            _send(writer, message)

        try:
            async with asyncio.timeout(_FIRST_WORD):
                request = await jsonline.read(reader, MAX_LINE)
        except TimeoutError:
            send(_refusal(f"nothing was asked within {_FIRST_WORD:g} s"))
            return
        except jsonline.TooLongError:
            send(_refusal(f"a request has at most {MAX_LINE} bytes"))
            return
        except ProtocolError:
            request = None
        command = None if request is None else self._commands.get(str(request.get("cmd")))
        if request is None or command is None:
            names = ", ".join(sorted(self._commands))
            send(_refusal(f"no such request; there are {names}"))
            return
        meant = request.get("identity")
        if meant and self._identity and meant != self._identity:
            send(jsonline.refusal("failed", str(guest_identity.another(self._name))))
            return
        CONTROL.received(_CLIENT, request)
        with heard_by(_Messages(writer)) if request.get("messages") is True else contextlib.nullcontext():
            answer = await self._carried_out(command, request, reader, send)
        if answer is not None:
            CONTROL.sent(_CLIENT, answer)
            send(answer)
            await writer.drain()

    async def _carried_out(
        self,
        command: Command,
        request: dict[str, Any],
        reader: asyncio.StreamReader,
        send: Progress,
    ) -> dict[str, Any] | None:
        """Do what is wanted, until the client hangs up. Returns the answer; None: the guest ends."""
        work = asyncio.ensure_future(command(request, lambda step: send({"progress": step})))
        gone = asyncio.ensure_future(reader.read(1))  # nothing more is to come: this ends when the client does
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            given_up = not work.done()
            if given_up:
                work.cancel()
                await asyncio.wait({work})
            if work.cancelled():
                if not given_up:
                    return None  # the guest ends, and all that it is asked for
                return jsonline.refusal("cancelled", f"given up; guest {self._name!r} goes on")
            return jsonline.success(work.result())
        except SdeiError as error:
            return jsonline.SUPERVISOR.refusal(error)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


class _Messages:
    """Sends on the messages that this process exchanges, from whichever of its threads."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __call__(self, entry: Entry) -> None:
        message = {"message": asdict(entry)}
        if threading.get_ident() == self._thread:
            _send(self._writer, message)
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(_send, self._writer, message)


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Send, unless the client lets too much lie: what it is told of progress it can do without."""
    if not writer.is_closing() and writer.transport.get_write_buffer_size() <= _MAX_UNREAD:
        writer.write(jsonline.encode(message))


def _refusal(why: str) -> dict[str, Any]:
    return jsonline.refusal("usage", why)
