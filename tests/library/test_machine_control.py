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

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        control = MachineControl(self, self)  # type: ignore[arg-type]

        async def asked() -> dict[str, Any]:
            return await control.commands[command](request, lambda step: None)

        return asyncio.run(asked())


def test_pause_and_resume() -> None:
    machine = Machine()
    assert machine.ask("run-state") == {"status": "running"}
    assert machine.ask("pause") == {"before": "running", "status": "paused"}
    assert machine.ask("run-state") == {"status": "paused"}
    assert machine.ask("continue") == {"before": "paused", "status": "running"}


@pytest.mark.parametrize("do", ["pause", "continue"])
def test_a_guest_that_is_being_moved_is_left_alone(do: str) -> None:
    machine = Machine(moves=True)
    with pytest.raises(UsageError, match="migrated"):
        machine.ask(do)
    assert machine.asked == []
    assert machine.ask("run-state") == {"status": "running"}, "a look disturbs nobody"


@pytest.mark.parametrize("status", ["inmigrate", "guest-panicked", "shutdown", "postmigrate"])
def test_other_states_are_not_changed(status: str) -> None:
    machine = Machine(status)
    with pytest.raises(UsageError, match=status):
        machine.ask("continue")
    assert [command for command, _ in machine.asked] == ["query-status"]


def test_registers_of_a_vcpu() -> None:
    machine = Machine()
    answer = machine.ask("registers", vcpu=1)
    assert answer["text"].startswith(" PC=0000000040200000 ")
    assert machine.asked == [("human-monitor-command", {"command-line": "info registers", "cpu-index": 1})]


@pytest.mark.parametrize("request_", [{}, {"vcpu": 2}, {"vcpu": -1}, {"vcpu": True}, {"vcpu": "1"}])
def test_vcpus_that_are_not_there(request_: dict[str, Any]) -> None:
    machine = Machine()
    with pytest.raises(UsageError, match="this guest has 0 to 1"):
        machine.ask("registers", **request_)
    assert machine.asked == []


def test_a_qemu_that_says_something_else() -> None:
    with pytest.raises(GuestError, match="does not say"):
        Machine(None).ask("run-state")


@pytest.mark.parametrize("answer", [{}, {"status": 1}, {"text": None}, {"text": "CPU#0"}])
def test_an_answer_of_another_form(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(machine_control, "ask", lambda *args, **kwargs: answer)
    with pytest.raises(SdeiError):
        machine_control.run_state(tmp_path)
    with pytest.raises(ProtocolError):
        machine_control.registers(tmp_path, 0)
