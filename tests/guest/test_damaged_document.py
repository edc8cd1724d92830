"""A state document that is damaged on its way: refused with a reason before any vCPU runs there; the source goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration import arrival
from qemu_sdei.migration.source import Side
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

CONTEXT = [0x4020_0000, 0x3C5, *[0] * 18]
LIMIT = 20.0


def event(number: int, state: int) -> dict[str, Any]:
    return {"event": number, "state": state, "pending": False, "entry": 0x4020_0000, "argument": 0}


def runs(document: Any, *numbers: int) -> None:
    """Have handlers of these events run on CPU 0, outermost first."""
    pe = document["firmware"]["sdei"]["pes"][0]
    pe["events"] = [event(number, 0b111) for number in numbers]
    pe["frames"] = [{"event": number, "context": CONTEXT} for number in numbers]


def two_of_a_class(document: Any) -> None:
    runs(document, 0, 0x100)


def normal_over_critical(document: Any) -> None:
    runs(document, 0x103, 0)


def enabled_and_not_registered(document: Any) -> None:
    document["firmware"]["sdei"]["pes"][0]["events"] = [event(0, 0b010)]


def context_without_handler(document: Any) -> None:
    runs(document, 0)
    document["firmware"]["sdei"]["pes"][0]["events"] = []


def handler_without_context(document: Any) -> None:
    runs(document, 0)
    document["firmware"]["sdei"]["pes"][0]["frames"] = []


def routed_to_nobody(document: Any) -> None:
    document["firmware"]["sdei"]["shared"] = [event(0x200, 0b001) | {"target": 2}]


def affinity_of_nobody(document: Any) -> None:
    document["firmware"]["sdei"]["pes"][1]["affinity"] = 7


def context_above_the_guest(document: Any) -> None:
    runs(document, 0)
    document["firmware"]["sdei"]["pes"][0]["frames"][0]["context"] = [0, 0x3CD, *[0] * 18]


def newer(document: Any) -> None:
    document["version"] += 1


def incomplete(document: Any) -> None:
    del document["firmware"]["psci"]


DAMAGE: list[tuple[Callable[[Any], None], str]] = [
    (two_of_a_class, "a handler on top of one that it cannot preempt"),
    (normal_over_critical, "a handler on top of one that it cannot preempt"),
    (enabled_and_not_registered, "events: 0: state: must be 1 or 3 or 4 or 5 or 7"),
    (context_without_handler, "runs without being registered"),
    (handler_without_context, "its state and the saved contexts contradict"),
    (routed_to_nobody, "routed to a PE that does not exist"),
    (affinity_of_nobody, "another affinity"),
    (context_above_the_guest, "above the client EL"),
    (newer, "written by a newer program"),
    (incomplete, "psci"),
]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("route", ["shared", "live"])
def test_the_source_goes_on(route: str, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged: list[Callable[[bytes], bytes]] = []
    whole = arrival.check

    async def check(side: Side) -> None:
        state = side.path / rundir.STATE
        state.write_bytes(damaged[0](state.read_bytes()))
        await whole(side)

    def on_its_way(damage: Callable[[Any], None]) -> Callable[[bytes], bytes]:
        def change(data: bytes) -> bytes:
            document = json.loads(data)
            damage(document)
            return json.dumps(document).encode()

        return change

    cases = [(on_its_way(damage), reason) for damage, reason in DAMAGE]
    cases.append((lambda data: data[: len(data) // 2], "no JSON, or truncated"))
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", name="a")
    with Guest(options) as guest, monkeypatch.context() as patch:
        guest.expect("idle: ready")
        patch.setattr(arrival, "check", check)
        with EventLoad(guest, (0,), 2) as load:
            for change, reason in cases if route == "shared" else cases[:2]:
                damaged[:] = [change]
                with pytest.raises(GuestError, match=f"runs on as 'a': state document: .*{reason}"):
                    guest.migrate("b", route=route)
                assert not (runtime / "qemu-sdei" / "b").exists()
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        patch.undo()
        assert guest.migrate("b", route=route).destination == "b"
        for vcpu in (0, 1):
            assert guest.inject(0, vcpu, wait=True, timeout=LIMIT).outcome == "completed"
    check_nothing_left(runtime)
