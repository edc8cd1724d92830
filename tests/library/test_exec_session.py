"""A command's session against an agent made of a few lines: streams, windows, broken connections, hostile words."""

from __future__ import annotations

import os
import re
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import locks, rundir
from qemu_sdei.errors import GuestError, LostGuestError, ProtocolError, UsageError
from qemu_sdei.guest import exec_frames as frames
from qemu_sdei.guest.exec_frames import Frame, Reader, State, Stream, Type
from qemu_sdei.guest.exec_session import MAIN, PORTS, ExecSession, claim, release

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 20.0


def welcome(session: bytes, state: State = State.IDLE, taken: int = 0, version: int = frames.VERSION) -> bytes:
    return Frame(Type.WELCOME, payload=struct.pack("<16sQII", session, taken, version, state)).encode()


class Agent:
    """The guest's side of one port, one connection after the other."""

    def __init__(self, directory: Path, port: int = 1) -> None:
        self.listener = locks.listening(directory / rundir.exec_socket(port), 4)
        self.listener.settimeout(LIMIT)
        self.reader = Reader()
        self.connection: socket.socket | None = None
        self.frames: list[Frame] = []
        self.session = b""

    def accept(self) -> None:
        self.hang_up()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(LIMIT)
        self.reader.clear()
        self.frames.clear()

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def next(self, kind: Type) -> Frame:
        """The next frame of that kind; what comes before it is left out."""
        assert self.connection is not None
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame.type is kind:
                    return frame
            data = self.connection.recv(1 << 16)
            assert data, f"hung up before {kind.name}"
            self.frames += self.reader.feed(data)

    def send(self, *what: Frame | bytes) -> None:
        assert self.connection is not None
        for each in what:
            self.connection.sendall(each.encode() if isinstance(each, Frame) else each)

    def greet(self, state: State = State.IDLE, taken: int = 0) -> Frame:
        hello = self.next(Type.HELLO)
        self.session = hello.payload[:16]
        self.send(welcome(self.session, state, taken))
        return hello

    def exit(self, status: int, output: int = 0, errors: int = 0) -> None:
        self.send(Frame(Type.EXIT, position=status, payload=struct.pack("<QQ", output, errors)))
        self.next(Type.DONE)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qs-") as path:
        yield Path(path)


class Got:
    def __init__(self) -> None:
        self.streams = {Stream.OUTPUT: b"", Stream.ERRORS: b""}

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.streams[stream] += data


def played(session: ExecSession, script: list[object], stdin: bytes = b"") -> int | None:
    """The status of a session whose agent does `script` in another thread; what fails there fails here."""
    failed: list[BaseException] = []
    (act,) = script

    def work() -> None:
        try:
            act()  # type: ignore[operator]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    left = stdin
    ended = False
    while session.status is None and not failed:
        session.step(0.02)
        if session.room and not ended:
            part, left = left[: session.room], left[session.room :]
            session.feed(part)
            ended = not part
    session.close()  # sends what there is to send
    thread.join(LIMIT)
    if failed:
        raise failed[0]
    return session.status


def test_streams_and_status(directory: Path) -> None:
    agent, got = Agent(directory), Got()
    session = ExecSession(lambda: directory, 1, "x" * 10_000, got, terminal=True, size=(24, 80))

    def act() -> None:
        agent.accept()
        agent.greet()
        parts = [agent.next(Type.DATA) for _ in range(3)]
        assert b"".join(part.payload for part in parts) == b"x" * 10_000
        assert [part.position for part in parts] == [0, 4096, 8192]
        assert agent.next(Type.START).payload == struct.pack("<HHII", 24, 80, 1, 10_000)
        assert agent.next(Type.DATA) == Frame(Type.DATA, Stream.INPUT, 0, b"in\xff")
        assert agent.next(Type.END).position == 3
        agent.send(Frame(Type.DATA, Stream.OUTPUT, 0, b"\0out"), Frame(Type.DATA, Stream.ERRORS, 0, b"err"))
        assert {(f.stream, f.position) for f in (agent.next(Type.ACK), agent.next(Type.ACK))} == {(1, 4), (2, 3)}
        agent.exit(42, 4, 3)

    assert played(session, [act], b"in\xff") == 42
    assert got.streams == {Stream.OUTPUT: b"\0out", Stream.ERRORS: b"err"}
    session.close()


def test_no_more_input_is_sent_than_the_agent_keeps(directory: Path) -> None:
    agent = Agent(directory)
    session = ExecSession(lambda: directory, 1, "cat", Got())
    data = os.urandom(3 * frames.WINDOW_IN + 5)

    def act() -> None:
        agent.accept()
        agent.greet()
        agent.next(Type.START)
        got = b""
        told = 0
        while len(got) < len(data):
            frame = agent.next(Type.DATA)
            assert frame.position == len(got)
            assert len(frame.payload) <= frames.MOST_TO_GUEST
            got += frame.payload
            assert len(got) - told <= frames.WINDOW_IN
            if len(got) - told > frames.WINDOW_IN - frames.MOST_TO_GUEST:
                told = len(got)
                agent.send(Frame(Type.ACK, Stream.INPUT, told))
        assert got == data
        agent.next(Type.END)
        agent.exit(0)

    assert played(session, [act], data) == 0
    session.close()


def test_it_goes_on_by_another_connection(directory: Path) -> None:
    """As after a migration: what one side has not got is sent once more, what it has is not doubled."""
    agent, got = Agent(directory), Got()
    session = ExecSession(lambda: directory, 1, "cat", got)

    def act() -> None:
        agent.accept()
        first = agent.greet()
        agent.next(Type.START)
        assert agent.next(Type.DATA).payload == b"0123456789"
        agent.send(Frame(Type.ACK, Stream.INPUT, 2), Frame(Type.DATA, Stream.OUTPUT, 0, b"abc"))
        agent.next(Type.ACK)
        agent.send(Frame(Type.DATA, Stream.OUTPUT, 3, b"de").encode()[:-7])  # half a frame
        agent.accept()
        hello = agent.greet(State.RUNS, 4)
        assert hello.payload[:16] == first.payload[:16]
        assert struct.unpack_from("<QQ", hello.payload, 16) == (3, 0)
        assert agent.next(Type.DATA) == Frame(Type.DATA, Stream.INPUT, 4, b"456789")
        assert agent.next(Type.END).position == 10
        agent.send(Frame(Type.DATA, Stream.OUTPUT, 2, b"cde"))
        agent.exit(0, 5)

    assert played(session, [act], b"0123456789") == 0
    assert got.streams[Stream.OUTPUT] == b"abcde"
    session.close()


def test_what_somebody_before_was_sent_is_not_its_own(directory: Path) -> None:
    agent, got = Agent(directory), Got()
    session = ExecSession(lambda: directory, 1, "true", got)

    def act() -> None:
        agent.accept()
        agent.send(b"\0" * 100, Frame(Type.DATA, Stream.OUTPUT, 0, b"other's"), b"QSX1rest of a frame")
        agent.send(welcome(bytes(16)), Frame(Type.EXIT, position=3, payload=bytes(16)))
        agent.greet()
        agent.next(Type.START)
        agent.exit(0)

    assert played(session, [act]) == 0
    assert got.streams[Stream.OUTPUT] == b""
    session.close()


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ([Frame(Type.DATA, Stream.OUTPUT, 5, b"x")], ProtocolError, "left out"),
        ([Frame(Type.FAIL)], GuestError, "cannot start"),
        ([Frame(Type.READY)], LostGuestError, "reset"),
    ],
)
def test_what_ends_it(directory: Path, said: list[Frame], error: type[Exception], words: str) -> None:
    agent = Agent(directory)
    session = ExecSession(lambda: directory, 1, "true", Got())

    def act() -> None:
        agent.accept()
        agent.greet()
        agent.next(Type.START)
        agent.send(*said)

    with pytest.raises(error, match=words):
        played(session, [act])
    session.close()


@pytest.mark.parametrize("state", [State.IDLE, State.GONE])
def test_a_guest_that_was_set_back_knows_nothing_of_it(directory: Path, state: State) -> None:
    agent = Agent(directory)
    session = ExecSession(lambda: directory, 1, "true", Got())

    def act() -> None:
        agent.accept()
        agent.greet()
        agent.next(Type.START)
        agent.accept()
        agent.greet(state)

    with pytest.raises(LostGuestError, match="does not know of the command"):
        played(session, [act])
    session.close()


def test_another_version_is_told(directory: Path) -> None:
    agent = Agent(directory)
    session = ExecSession(lambda: directory, 1, "true", Got())

    def act() -> None:
        agent.accept()
        agent.send(welcome(agent.next(Type.HELLO).payload[:16], version=7))

    with pytest.raises(ProtocolError, match="of version 7"):
        played(session, [act])


def test_who_goes_has_the_command_ended(directory: Path) -> None:
    agent = Agent(directory)
    session = ExecSession(lambda: directory, 1, "sleep", Got())
    closed = threading.Event()

    def act() -> None:
        agent.accept()
        agent.greet()
        agent.next(Type.START)
        agent.next(Type.CLOSE)
        closed.set()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    while not session.started:
        session.step(0.02)
    session.close()
    thread.join(LIMIT)
    assert closed.is_set()


def test_a_guest_that_is_gone(directory: Path) -> None:
    session = ExecSession(lambda: None, 1, "true", Got())
    with pytest.raises(LostGuestError, match="has ended"):
        session.step(0)
    with pytest.raises(UsageError, match="65536 bytes at most"):
        ExecSession(lambda: directory, 1, "x" * 65537, Got())


def test_a_port_is_one_client_s(directory: Path) -> None:
    with pytest.raises(UsageError, match="takes no commands: our agent is only in"):
        claim(directory, "box")
    (directory / rundir.exec_socket(MAIN)).touch()
    taken = [claim(directory, "box") for _ in PORTS]
    assert [port for port, _ in taken] == list(PORTS)
    with pytest.raises(UsageError, match="runs 4 commands already"):
        claim(directory, "box")
    release(taken[2][1])
    assert claim(directory, "box")[0] == PORTS[2]


FRAME = st.builds(
    Frame, st.sampled_from(Type), st.integers(0, 3), st.integers(0, 2**64 - 1), st.binary(max_size=300)
)  # fmt: skip


@given(st.lists(st.one_of(FRAME, st.binary(max_size=40), st.just(frames.FILLER))), st.integers(1, 700))
def test_frames_come_out_of_any_pieces(parts: list[Frame | bytes], size: int) -> None:
    """Half a frame takes none of those behind it along where zeroes follow it, as they do."""
    data = b""
    for part in parts:
        data += part.encode() if isinstance(part, Frame) else part[: len(part) // 2 * 2] + frames.FILLER
    reader = Reader()
    found = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
    wanted = [part for part in parts if isinstance(part, Frame)]
    assert [frame for frame in found if frame in wanted][: len(wanted)] == wanted
    assert len(found) == len(wanted)


@given(st.lists(st.binary(max_size=5000), max_size=20))
def test_no_guest_makes_it_hold_more_than_a_frame(pieces: list[bytes]) -> None:
    reader = Reader()
    huge = struct.pack("<IBBHIIQ", frames.MAGIC, 5, 1, 0, 2**32 - 1, 0, 0)
    for piece in (huge, *pieces, frames.Frame(Type.DATA, 1, 0, b"").encode()[:10], *pieces):
        list(reader.feed(piece))
        assert len(reader._data) <= frames.MOST_FROM_GUEST + 64


def test_both_sides_have_the_same_numbers() -> None:
    text = (ROOT / "guest" / "agent" / "protocol.h").read_text()
    defined = {name: int(value.rstrip("u"), 0) for name, value in re.findall(r"#define (\w+) (0x\w+|\d+u?)", text)}
    assert defined == {
        "VERSION": frames.VERSION, "MAGIC": frames.MAGIC, "TRAILER": frames.TRAILER, "MOST_IN": frames.MOST_TO_GUEST,
        "MOST_OUT": frames.MOST_FROM_GUEST, "WINDOW_IN": frames.WINDOW_IN, "WINDOW_OUT": frames.WINDOW_OUT,
        "MOST_COMMAND": frames.MOST_COMMAND, "SESSION": frames.SESSION,
    }  # fmt: skip
    for kind in (Type, Stream, State):
        for member in kind:
            assert re.search(rf"\b{member.name} = {member.value}\b", text), member
