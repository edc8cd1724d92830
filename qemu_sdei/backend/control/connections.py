"""The clients of the control socket: who may be one, lines in, lines out. None of them can harm or hold up another.

Only processes of the same user, and root's. A client has a bounded part of our memory; one that does not read, or does
not ask while others want its place, is hung up on. Served from the backend's loop: nothing here blocks.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline, locks
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.printable import printable

MAX_LINE: Final = 1 << 20
_MAX_CLIENTS: Final = 64
_BACKLOG: Final = 16
_MAX_BACKLOG: Final = 4 << 20
"""Bytes that wait for a client that does not read; beyond this it is hung up on."""
_MAX_TOGETHER: Final = 32 << 20
"""The same of all clients."""


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.input = jsonline.Lines(MAX_LINE)
        self.output = bytearray()
        self.events = False
        self.asked = False
        """It has sent a whole request."""


class Connections:
    """Listens at a path, and reads and writes."""

    def __init__(
        self,
        descriptors: Descriptors,
        path: Path,
        requested: Callable[[Client, bytes], None],
        dropped: Callable[[Client], None],
    ) -> None:
        """Listen at `path`; a socket that is there was left by a backend that was killed.

        `requested`: called with each line that a client has sent; `dropped`: called when one is gone.
        """
        self._descriptors = descriptors
        self._path = path
        self._requested = requested
        self._dropped = dropped
        # By it the socket is removed at the end: by then the path may lead to another guest's of the same name.
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._clients: dict[int, Client] = {}
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = locks.listening(path, _BACKLOG)
        self._listener.setblocking(False)
        descriptors.watch(self._listener.fileno(), self._accept)

    def all(self) -> list[Client]:
        """Who is connected now."""
        return list(self._clients.values())

    def send(self, client: Client, message: dict[str, Any]) -> None:
        """Send one message, as far as the client is still there and reads."""
        if client.socket.fileno() < 0:
            return
        client.output += jsonline.encode(message)
        self._flush(client)

    def fail(self, client: Client, request: Any, kind: str, message: str) -> None:
        """Answer a request with an error."""
        self.send(client, {"id": request, **jsonline.refusal(kind, message)})

    def close(self) -> None:
        """Hang up on everybody and remove the socket; does nothing the second time."""
        if self._directory < 0:
            return
        for client in list(self._clients.values()):
            self._drop(client)
        self._descriptors.unwatch(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path.name, dir_fd=self._directory)
        os.close(self._directory)
        self._directory = -1

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if not locks.may_ask(sock):
            self._say(f"a process of user {locks.peer_uid(sock)} was refused at {self._path.name}")
            sock.close()
            return
        if len(self._clients) >= _MAX_CLIENTS and not self._make_room():
            sock.close()
            return
        sock.setblocking(False)
        client = Client(sock)
        self._clients[sock.fileno()] = client
        self._descriptors.watch(sock.fileno(), lambda events, c=client: self._ready(c, events))  # type: ignore[misc]

    def _make_room(self) -> bool:
        """Hang up on the client that has been there longest without having asked anything; False: all have."""
        for client in self._clients.values():
            if not client.asked:
                self._drop(client)
                return True
        return False

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"qemu-sdei backend: {printable(text)}", file=sys.stderr, flush=True)

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if fd in self._clients:
            del self._clients[fd]
            self._descriptors.unwatch(fd)
            client.socket.close()
        self._dropped(client)

    def _ready(self, client: Client, events: int) -> None:
        if events & select.POLLOUT:
            self._flush(client)
        if events & ~select.POLLOUT:
            self._read(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.input.feed(data)
        try:
            while (line := client.input.next()) is not None:
                client.asked = True
                self._requested(client, line)
                if client.socket.fileno() < 0:
                    return
        except jsonline.TooLongError:
            self.fail(client, None, "usage", f"a request has at most {MAX_LINE} bytes")
            self._drop(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.output:
                sent = client.socket.send(client.output)
                del client.output[:sent]
        except BlockingIOError:
            waiting = sum(len(other.output) for other in self._clients.values())
            if len(client.output) > _MAX_BACKLOG or waiting > _MAX_TOGETHER:
                self._drop(client)
                return
        except OSError:
            self._drop(client)
            return
        wanted = select.POLLIN | (select.POLLOUT if client.output else 0)
        self._descriptors.watch(client.socket.fileno(), lambda events, c=client: self._ready(c, events), wanted)  # type: ignore[misc]
