"""What other processes may ask of a guest's machine: whether it runs, pause, resume, registers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, ProtocolError, SdeiError, UsageError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.machine_control import MachineControl
from tests.vm.test_cpu_registers import printed


class Machine:
    """A QEMU that runs or not, and the guest's record of it."""

    def __init__(self, status: object = "running", *, moves: bool = False) -> None:
        self.status = status
        self.moves = moves
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.options = SimpleNamespace(smp=2)
        self.supervisor = self

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        self.asked.append((command, arguments))
        match command:
            case "query-status":
                return {"status": self.status}
            case "stop":
                self.status = "paused"
            case "cont":
                self.status = "running"
            case "human-monitor-command":
                return printed(0x4020_0000, list(range(31)), 0x4030_0000, "600003c5 -ZC- NS EL1h", "\n")
        return {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        if self.moves:
            raise UsageError("the guest is being migrated")
        yield

    def ask(self, **request: Any) -> dict[str, Any]:
        control = MachineControl(self, self)  # type: ignore[arg-type]
        return asyncio.run(control.requested(request, lambda step: None))


def test_pause_and_resume() -> None:
    machine = Machine()
    assert machine.ask(do="look") == {"status": "running"}
    assert machine.ask(do="pause") == {"before": "running", "status": "paused"}
    assert machine.ask(do="look") == {"status": "paused"}
    assert machine.ask(do="resume") == {"before": "paused", "status": "running"}


@pytest.mark.parametrize("do", ["pause", "resume"])
def test_a_guest_that_is_being_moved_is_left_alone(do: str) -> None:
    machine = Machine(moves=True)
    with pytest.raises(UsageError, match="migrated"):
        machine.ask(do=do)
    assert machine.asked == []
    assert machine.ask(do="look") == {"status": "running"}, "a look disturbs nobody"


@pytest.mark.parametrize("status", ["inmigrate", "guest-panicked", "shutdown", "postmigrate"])
def test_other_states_are_not_changed(status: str) -> None:
    machine = Machine(status)
    with pytest.raises(UsageError, match=status):
        machine.ask(do="resume")
    assert [command for command, _ in machine.asked] == ["query-status"]


def test_registers_of_a_vcpu() -> None:
    machine = Machine()
    answer = machine.ask(do="registers", vcpu=1)
    assert answer["text"].startswith(" PC=0000000040200000 ")
    assert machine.asked == [("human-monitor-command", {"command-line": "info registers", "cpu-index": 1})]


@pytest.mark.parametrize("request_", [
    {"do": "registers"}, {"do": "registers", "vcpu": 2}, {"do": "registers", "vcpu": -1},
    {"do": "registers", "vcpu": True}, {"do": "registers", "vcpu": "1"}, {"do": "quit"}, {"do": ["pause"]}, {},
])  # fmt: skip
def test_what_cannot_be_asked(request_: dict[str, Any]) -> None:
    machine = Machine()
    with pytest.raises(UsageError):
        machine.ask(**request_)
    assert machine.asked == []


def test_a_qemu_that_says_something_else() -> None:
    with pytest.raises(GuestError, match="does not say"):
        Machine(None).ask(do="look")


@pytest.mark.parametrize("answer", [{}, {"status": 1}, {"text": None}, {"text": "CPU#0"}])
def test_an_answer_of_another_form(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(machine_control, "ask", lambda *args, **kwargs: answer)
    with pytest.raises(SdeiError):
        machine_control.run_state(tmp_path)
    with pytest.raises(ProtocolError):
        machine_control.registers(tmp_path, 0)
