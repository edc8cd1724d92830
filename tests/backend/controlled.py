"""A backend with a control socket and no QEMU, and a client of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from qemu_sdei.backend.control.control_socket import Control
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor.layout import Kind
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import BELL, SimulatedGuest, serve

SHARED, PRIVATE = 0x200, 0x100
HANDLER = 0x4300_0000
TURNS = 10_000


class Backend:
    """A backend whose loop the test turns by hand, and the guest that it serves."""

    def __init__(self, directory: Path) -> None:
        self.guest = SimulatedGuest(2, directory)
        self.server: Server = self.guest.server()
        self.server.descriptors.unwatch(BELL)  # the simulated one stands for no real descriptor
        self.path = directory / "s"
        self.control = Control(self.server, self.path, {"name": "tester", "nr_cpus": 2})

    def turn(self) -> None:
        """Let the loop do all that there is to do now."""
        for _ in range(TURNS):
            if not self.server.descriptors.look(0):
                return
        raise AssertionError("the loop finds work without end")

    def boot(self) -> None:
        for pe in (0, 1):
            self.guest.reset(pe)
        serve(self.server)
        self.guest.take(0)
        self.guest.take(1)

    def call(self, pe: int, function: int, *arguments: int) -> list[int]:
        self.guest.smc(pe, function, *arguments)
        serve(self.server)
        return self.guest.take(pe)

    def enable(self, event: int, pe: int = 0) -> None:
        """Register and enable an event, its handler's only CPU being unmasked."""
        assert self.call(pe, Function.EVENT_REGISTER, event, HANDLER, 0, 0, 0)[3] == 0
        assert self.call(pe, Function.EVENT_ENABLE, event)[3] == 0
        assert self.call(pe, Function.PE_UNMASK)[3] == 0

    def start_cpu_1(self) -> None:
        assert self.call(0, Psci.CPU_ON, 1, 0x4020_0000, 0)[3] == 0
        assert self.kick() == [1]

    def kick(self) -> list[int]:
        """Have the CPUs that were kicked take what there is for them."""
        kicked = self.guest.take_kicks()
        for pe in kicked:
            self.guest.post(pe, Kind.KICK)
            serve(self.server)
            self.guest.take(pe)
        return kicked


class Peer:
    """A client that says exactly what the test wants."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(backend.path))
        self.socket.setblocking(False)
        backend.turn()  # so that the queue of those who wait to be accepted never fills
        self.input = b""
        self.closed = False
        """The backend has hung up."""

    def send(self, data: bytes) -> None:
        """Send, letting the backend read what it will; it may hang up meanwhile."""
        while data and not self.closed:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                self.backend.turn()
            except (BrokenPipeError, ConnectionResetError):
                self.closed = True
        self.backend.turn()

    def lines(self) -> list[dict[str, Any]]:
        """All that the backend has said since the last look."""
        while not self.closed:
            self.backend.turn()
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self.input += data
        *whole, self.input = self.input.split(b"\n")
        return [json.loads(line) for line in whole]

    def ask(self, **message: Any) -> dict[str, Any]:
        self.send(json.dumps(message).encode() + b"\n")
        (answer,) = self.lines()
        return answer

    def result(self, **message: Any) -> dict[str, Any]:
        answer = self.ask(**message)
        assert answer["ok"] is True, answer
        return dict(answer["result"])

    def error(self, **message: Any) -> tuple[str, str]:
        answer = self.ask(**message)
        assert answer["ok"] is False, answer
        return answer["error"]["kind"], answer["error"]["message"]
