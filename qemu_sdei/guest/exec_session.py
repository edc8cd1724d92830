"""One command in a guest, by the agent of our own initramfs (`guest/agent`): its three streams and its exit status.

QEMU has the other end of the agent's port as a socket of the run directory, and lets one client in at a time. What goes
over it is in `exec_frames.py`. A guest that migrates on this host takes the agent along; the session goes on by the
socket of the next run directory, from where both sides were.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import select
import socket
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from qemu_sdei import locks
from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LostGuestError, ProtocolError, UsageError
from qemu_sdei.guest import exec_frames as frames
from qemu_sdei.guest.exec_frames import Frame, State, Stream, Type

MAIN: Final = 0
"""The port of the command that a guest was started with."""
PORTS: Final = tuple(range(1, files.EXEC_PORTS))
"""Those of other commands."""
_HELLO_AGAIN: Final = 1.0
_CONNECT_AGAIN: Final = 0.1
_PING: Final = 5.0
_GOODBYE: Final = 1.0
_STEP: Final = 0.25
_CHUNK: Final = 1 << 16


class Sink(Protocol):
    """Takes the command's output; may wait, and the command waits then."""

    def __call__(self, stream: Stream, data: bytes) -> None:
        """`data` of OUTPUT or ERRORS."""


class ExecSession:
    """One command. `step` does what there is to do; `status` is there at the end."""

    def __init__(
        self,
        where: Callable[[], Path | None],
        port: int,
        command: str | None,
        sink: Sink,
        *,
        terminal: bool = False,
        size: tuple[int, int] = (0, 0),
    ) -> None:
        """Describe it.

        Args:
            where: the guest's run directory now; None: it has ended, or is at another host.
            port: `MAIN`, or one of `PORTS` that is this process's (`claim`).
            command: a shell script; None: the one that the guest was started with.
            sink: takes the output.
            terminal: it gets a terminal of its own; output and errors are one stream then.
            size: rows and columns of that.

        Raises `UsageError`: the command is too long.
        """
        text = b"" if command is None else command.encode(errors="surrogateescape")
        if len(text) > frames.MOST_COMMAND:
            raise UsageError(f"a command for a running guest has {frames.MOST_COMMAND} bytes at most")
        self.status: int | None = None
        """Its exit status, 0 to 255."""
        self.welcomed = False
        """The agent has answered; also of a connection before this one."""
        self.started = False
        """The command was started."""
        self.heard = time.monotonic()
        """When the agent was last heard of."""
        self.restarts = 0
        """How often the agent began anew: the guest was reset."""
        self._where, self._port, self._text, self._sink = where, port, text, sink
        self._terminal, self._size = terminal, size
        self._session = secrets.token_bytes(frames.SESSION)
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._tried = self._asked = 0.0
        self._out = bytearray()
        self._reader = frames.Reader()
        self._greeted = False
        self._received = {Stream.OUTPUT: 0, Stream.ERRORS: 0}
        self._told = dict(self._received)
        self._input = bytearray()
        """What was sent of standard input and not acknowledged."""
        self._acknowledged = 0
        self._ends = self._end_sent = False

    # Input

    @property
    def room(self) -> int:
        """Bytes of standard input that can be taken now."""
        return 0 if self._ends or not self.started else frames.WINDOW_IN - len(self._input)

    def feed(self, data: bytes) -> None:
        """Standard input, no more than `room`; b"" is its end."""
        if not data:
            self._ends = True
        else:
            position = self._acknowledged + len(self._input)
            self._input += data
            self._send_input(position)
        self._send_end()

    def _send_input(self, position: int) -> None:
        start = position - self._acknowledged
        for at in range(start, len(self._input), frames.MOST_TO_GUEST):
            part = bytes(self._input[at : at + frames.MOST_TO_GUEST])
            self._send(Frame(Type.DATA, Stream.INPUT, self._acknowledged + at, part))

    def _send_end(self) -> None:
        if self._ends and not self._end_sent and self.started and self._greeted:
            self._end_sent = True
            self._send(Frame(Type.END, Stream.INPUT, self._acknowledged + len(self._input)))

    def resize(self, rows: int, columns: int) -> None:
        """The user's terminal has another size."""
        if (rows, columns) != self._size:
            self._size = rows, columns
            if self._greeted:
                self._out += frames.size(rows, columns)

    def signal(self, number: int) -> None:
        """Send the command a signal."""
        if self._greeted:
            self._send(Frame(Type.SIGNAL, position=number))

    # The connection

    def fileno(self) -> int:
        """To poll for; -1: there is no connection now."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def sending(self) -> bool:
        """There is something to send."""
        return bool(self._out)

    def step(self, timeout: float = _STEP, stdin: int | None = None) -> bool:
        """Wait up to `timeout` seconds for something to do, and do it. `stdin`: a descriptor to read, while there is
        room. Returns whether that one can be read.

        Raises:
            LostGuestError: the guest has ended, or was reset, and the command with it. `GuestError`: the command cannot
            be started. `ProtocolError`: the agent is of another version.
        """
        now = time.monotonic()
        if self._socket is None and now - self._tried >= _CONNECT_AGAIN:
            self._tried = now
            self._connect()
        if self._socket is not None and not self._greeted and now - self._asked >= _HELLO_AGAIN:
            self._asked = now
            if not _unread(self._socket):  # else nobody has read the last one yet
                received = self._received
                self._out = bytearray(frames.hello(self._session, received[Stream.OUTPUT], received[Stream.ERRORS]))
        elif self._greeted and now - max(self.heard, self._asked) >= _PING:
            self._asked = now
            self._send(Frame(Type.PING))
        poll = select.poll()
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        if stdin is not None and self.room:
            poll.register(stdin, select.POLLIN)
        wait = timeout if self._socket is not None else min(timeout, _CONNECT_AGAIN)
        ready = dict(poll.poll(1000 * wait))
        if self._socket is not None and (events := ready.get(self._socket.fileno(), 0)):
            if events & select.POLLOUT:
                self._flush()
            if events & ~select.POLLOUT and self._socket is not None:
                self._read()
        return stdin is not None and stdin in ready

    def _connect(self) -> None:
        directory = self._where()
        if directory is None:
            if self.status is None:
                raise LostGuestError("the guest has ended, or is at another host, and its command with it")
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(str(directory / files.exec_socket(self._port)))
        except OSError as error:
            connection.close()
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                raise LostGuestError(f"the guest's port cannot be reached: {error.strerror}") from None
            return
        self._socket = connection
        self._reader.clear()
        self._out.clear()
        self._greeted = False
        self._asked = 0.0

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._greeted = False

    def _send(self, frame: Frame) -> None:
        if self._greeted:
            self._out += frame.encode()

    def _flush(self) -> None:
        assert self._socket is not None
        try:
            # Not too much at once: what lies in a socket when its QEMU goes must be sent once more.
            sent = self._socket.send(self._out[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self._disconnect()
            return
        del self._out[:sent]

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        for frame in self._reader.feed(data):
            self._hear(frame)
        for stream, position in self._received.items():
            if position != self._told[stream]:
                self._told[stream] = position
                self._send(Frame(Type.ACK, stream, position))

    # What the agent says

    def _hear(self, frame: Frame) -> None:
        if frame.type is Type.WELCOME:
            self._welcome(frame)
            return
        if frame.type is Type.READY:
            self._again()
            return
        if not self._greeted:
            return  # of who was here before
        self.heard = time.monotonic()
        if frame.type is Type.DATA and frame.stream in (Stream.OUTPUT, Stream.ERRORS):
            self._data(Stream(frame.stream), frame)
        elif frame.type is Type.ACK and frame.stream == Stream.INPUT:
            done = frame.position - self._acknowledged
            if 0 < done <= len(self._input):
                del self._input[:done]
                self._acknowledged = frame.position
        elif frame.type is Type.EXIT:
            if frames.totals(frame.payload) == (self._received[Stream.OUTPUT], self._received[Stream.ERRORS]):
                self.status = frame.position & 0xFF
                self._send(Frame(Type.DONE))
        elif frame.type is Type.FAIL:
            raise GuestError("the guest's agent cannot start the command: no memory, or no more processes there")

    def _data(self, stream: Stream, frame: Frame) -> None:
        known = self._received[stream]
        if frame.position > known:
            raise ProtocolError("the guest's agent left out some of the command's output")
        fresh = frame.payload[known - frame.position :]
        if fresh:
            # First counted: where the sink breaks off there is nobody to send it to again.
            self._received[stream] += len(fresh)
            self._sink(stream, fresh)

    def _welcome(self, frame: Frame) -> None:
        found = frames.welcome(frame.payload)
        if found is None or found.session != self._session or self._greeted:
            return
        if found.version != frames.VERSION:
            raise ProtocolError(
                f"the agent in the guest is of version {found.version}, this program of {frames.VERSION}: use the one "
                "that the guest was started with"
            )
        self.heard = time.monotonic()
        if found.state is State.GONE or (self.started and found.state is not State.RUNS):
            raise LostGuestError("the guest does not know of the command any more: it was reset, or set back")
        self._greeted = self.welcomed = True
        if found.state is State.RUNS:
            self.started = True
            if not self._acknowledged <= found.input <= self._acknowledged + len(self._input):
                raise LostGuestError("the guest has read more of the command's input than it was sent: it was set back")
            self._end_sent = False
            self._send_input(found.input)
            self._send_end()
            return
        for at in range(0, len(self._text), frames.MOST_TO_GUEST):
            self._send(Frame(Type.DATA, Stream.COMMAND, at, self._text[at : at + frames.MOST_TO_GUEST]))
        rows, columns = self._size
        self._out += frames.start(rows, columns, terminal=self._terminal, command=len(self._text))
        self.started = True
        self._send_end()

    def _again(self) -> None:
        """The agent has begun anew."""
        self.restarts += 1
        self._greeted = False
        self._asked = 0.0
        if self.started and self.status is None:
            raise LostGuestError("the guest was reset during its command, or another kernel has begun")

    # The end

    def close(self) -> None:
        """Hang up; a command that still runs is ended in the guest."""
        if self._socket is None:
            return
        if self._greeted and self.status is None:
            self._out += Frame(Type.CLOSE).encode()
        deadline = time.monotonic() + _GOODBYE
        with contextlib.suppress(OSError):
            while self._out and (left := deadline - time.monotonic()) > 0:
                if not select.select((), (self._socket,), (), left)[1]:
                    break
                sent = self._socket.send(self._out[:_CHUNK])
                del self._out[:sent]
            self._await_taken(deadline)
        self._disconnect()

    def _await_taken(self, deadline: float) -> None:
        """Wait until QEMU has read what was sent: what lies there at the end of a connection is dropped."""
        assert self._socket is not None
        while _unread(self._socket) and time.monotonic() < deadline:
            time.sleep(0.002)


def _unread(connection: socket.socket) -> int:
    """What the other end has not read (unix(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), "little")


def claim(directory: Path, name: str) -> tuple[int, int]:
    """A port of a guest that nobody uses, and a descriptor that keeps it so. Raises `UsageError`: there is none."""
    if not (directory / files.exec_socket(MAIN)).exists():
        raise UsageError(
            f"guest {name!r} takes no commands: our agent is only in our own initramfs. Start it by `qemu-sdei run` "
            "without --initrd, --root and --kdump (in Python: GuestOptions(channel=True)), or type at its console"
        )
    for port in PORTS:
        with contextlib.suppress(OSError):
            lock = locks.try_lock(directory / files.exec_lock(port))
            if lock is not None:
                return port, lock
    raise UsageError(f"guest {name!r} runs {len(PORTS)} commands already: that is how many it takes at a time")


def release(lock: int) -> None:
    """Give a port back."""
    os.close(lock)
