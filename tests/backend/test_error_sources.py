"""Hardware errors: how one gets into guest RAM, when it is refused, and what a hostile guest can do about it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.loop.error_sources import ErrorSources
from qemu_sdei.backend.loop.untold_errors import UntoldErrors
from qemu_sdei.boot.area import AcpiArea, ErrorSource
from qemu_sdei.boot.previous_errors import Stage
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.status_schema import SCHEMA
from qemu_sdei.json_schema import compiled
from qemu_sdei.ras import Memory
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.source import Notify, Source, numbered
from qemu_sdei.sdei.constants import Function
from tests.backend.controlled import PRIVATE, SHARED, Backend, Peer
from tests.backend.simulated import RAM_BASE, records

SOURCES = numbered(
    [
        Source(name="memory", event=SHARED),
        Source(name="cpu", event=PRIVATE, type="ghes", block=256),
        Source(name="slow", notify=Notify.POLLED, poll_ms=100),
        Source(name="abort", notify=Notify.SEA),
        Source(name="line", notify=Notify.INTERRUPT, interrupt=100),
        Source(name="off", notify=Notify.POLLED, enabled=False),
    ]
)
AREA = AcpiArea(RAM_BASE)
PLACED = AREA.sources(SOURCES)
MEMORY, CPU, SLOW = PLACED[:3]


def error(address: int = 0x5000_0000, severity: str = "corrected") -> bytes:
    return block([entry(Memory(physical_address=address), severity)]).pack()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Ram:
    """What the guest sees of its error sources, and writes there."""

    def __init__(self, backend: Backend) -> None:
        self._ram = backend.guest.window.ram

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._ram[address - RAM_BASE :][:size])

    def word(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def write(self, address: int, value: int, size: int = 8) -> None:
        self._ram[address - RAM_BASE :][:size] = value.to_bytes(size, "little")

    def take(self, placed: ErrorSource, *, acknowledge: bool = True) -> bytes:
        """Read an error as Linux does."""
        found = self.read(placed.block, placed.block_size)
        self.write(placed.block, 0, 4)
        if acknowledge and placed.read_ack is not None:
            self.write(placed.read_ack, 1)
        return found


class Deaf:
    """A guest that notices neither aborts nor interrupts; those that it does are in test_notifier.py."""

    def why_no_sea(self, pe: int | None) -> str | None:
        return "no abort here"

    def sea(self, pe: int | None, **_: Any) -> None:
        raise NotDeliveredError("no vCPU took it")

    def why_no_interrupt(self, intid: int) -> str | None:
        return "no interrupt here"

    def interrupt(self, intid: int, **_: Any) -> None:
        raise NotDeliveredError("no vCPU took it")

    def waits(self, intid: int | None) -> bool:
        return False

    def refresh(self, intids: Iterable[int], then: Callable[[], object]) -> None:
        then()


def place(errors: ErrorSources, ram: Ram, places: tuple[ErrorSource, ...] = PLACED) -> None:
    """As a boot by ACPI leaves them."""
    errors.placed = places
    errors.notifications = Deaf()
    for placed in places:
        ram.write(placed.address_register, placed.block)
        if placed.read_ack is not None:
            ram.write(placed.read_ack, 1)


@pytest.fixture
def ram(backend: Backend) -> Ram:
    ram = Ram(backend)
    place(backend.server.errors, ram)
    backend.server.errors.stage = Stage(backend.guest.window.ram, RAM_BASE, AREA)
    return ram


def states(peer: Peer) -> dict[str, tuple[str, str | None]]:
    found = peer.result(cmd="ras_sources")["sources"]
    return {each["name"]: (each["state"], each["reason"]) for each in found}


def test_an_error_is_written_and_told_of_and_its_handler_waited_for(backend: Backend, peer: Peer, ram: Ram) -> None:
    backend.enable(SHARED)
    data = error()
    peer.send(_request(source="memory", block=b64(data), wait=True))
    assert peer.lines() == [], "its handler has not run"
    assert states(peer)["memory"] == ("unread", None)
    assert ram.word(MEMORY.read_ack or 0) == 0
    assert backend.kick() == [0]
    assert ram.take(MEMORY) == data.ljust(4096, b"\0")
    backend.call(0, Function.EVENT_COMPLETE, 0)
    (answer,) = peer.lines()
    assert answer["result"].items() >= {"outcome": "completed", "vcpu": 0, "source": "memory", "bytes": 172}.items()
    assert 0 < answer["result"]["entry_ns"] < answer["result"]["complete_ns"]
    assert states(peer)["memory"] == ("free", None)
    (record,) = (each for each in records(backend.server) if each["type"] == "ras")
    told = {"source": "memory", "notify": "sdei", "bytes": 172, "severity": 2, "outcome": "reported"}
    assert record.items() >= told.items()


def _request(**fields: Any) -> bytes:
    import json

    return json.dumps({"id": 9, "cmd": "ras_report", **fields}).encode() + b"\n"


def test_what_nobody_would_notice_is_refused_and_nothing_is_written(backend: Backend, peer: Peer, ram: Ram) -> None:
    before = ram.read(*AREA.status)
    wanted = {
        "memory": "event 0x200 (shared-a) is not registered",
        "cpu": "event 0x100 (private-a) is not registered on PE 0",
        "abort": "no abort here",
        "line": "no interrupt here",
        "off": "the machine description has it disabled",
    }
    assert {name: reason for name, (_, reason) in states(peer).items() if reason} == wanted
    for name, reason in wanted.items():
        found = peer.error(cmd="ras_report", source=name, block=b64(error()))
        assert found == ("state", f"source '{name}': {reason}")
    assert backend.call(0, Function.EVENT_REGISTER, SHARED, 0x4300_0000, 0, 0, 0)[3] == 0
    assert states(peer)["memory"][1] == "event 0x200 (shared-a) is registered but disabled"
    assert backend.call(0, Function.EVENT_ENABLE, SHARED)[3] == 0
    assert states(peer)["memory"][1] == "event 0x200 (shared-a): every PE is masked or off"
    assert peer.error(cmd="ras_report", source="memory", block=b64(error()))[0] == "state"
    assert ram.read(*AREA.status) == before
    assert peer.result(cmd="ras_report", source="memory", block=b64(error()), force=True)["outcome"] == "queued"
    assert backend.call(0, Function.PE_UNMASK)[3] == SHARED, "the handler is entered"
    assert ram.take(MEMORY) == error().ljust(4096, b"\0"), "it came when the vCPU was unmasked"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "else"}, "there is no error source 'else': there are memory, cpu, slow"),
        ({"source": 7}, "source is a text"),
        ({"block": "?"}, "block is not base64"),
        ({"block": None}, "block is a text"),
        ({"block": b64(bytes(19))}, "a status block of 19 bytes: source 'slow' takes 20 to 4096"),
        ({"block": b64(bytes(4097))}, "a status block of 4097 bytes"),
        ({"block": b64(bytes(20))}, "its Block Status says that it has no entry"),
        (
            {"block": b64(b"\x12\0\0\0" + bytes(8) + b"\xff" * 4 + bytes(4))},
            "block is not a generic error status block",
        ),
        ({"vcpu": 2}, "there is no vCPU 2: this guest has 0 to 1"),
        ({"vcpu": -1}, "vcpu is a number from 0"),
        ({"address": 1 << 64}, "address is a number from 0"),
        ({"wait": 1}, "wait is true or false"),
    ],
)
def test_what_cannot_be_is_a_mistake_of_the_clients(peer: Peer, ram: Ram, fields: dict[str, Any], message: str) -> None:
    before = ram.read(*AREA.status)
    asked = {"source": "slow", "block": b64(error())} | fields
    kind, said = peer.error(cmd="ras_report", **asked)
    assert kind == "usage"
    assert message in said
    assert ram.read(*AREA.status) == before


def test_an_error_waits_until_the_one_before_is_read_and_acknowledged(peer: Peer, ram: Ram) -> None:
    first, second = error(0x5000_0000), error(0x6000_0000)
    report = {"cmd": "ras_report", "source": "slow"}
    assert peer.result(**report, block=b64(first)) == {
        "outcome": "queued", "vcpu": None, "source": "slow", "bytes": len(first),
    }  # fmt: skip
    assert "is not read yet" in peer.error(**report, block=b64(second))[1]
    assert ram.take(SLOW, acknowledge=False)[: len(first)] == first
    assert states(peer)["slow"][0] == "unacknowledged"
    assert "is not acknowledged yet" in peer.error(**report, block=b64(second))[1]
    assert SLOW.read_ack is not None
    ram.write(SLOW.read_ack, 1)
    assert peer.result(**report, block=b64(second))["outcome"] == "queued"
    assert peer.result(**report, block=b64(first), force=True)["outcome"] == "queued"
    assert ram.take(SLOW)[: len(first)] == first


def test_bytes_that_are_no_block_are_written_if_that_is_wanted(peer: Peer, ram: Ram) -> None:
    data = b"\x21\0\0\0" + b"\xff" * 60
    assert peer.result(cmd="ras_report", source="slow", block=b64(data), raw=True)["outcome"] == "queued"
    assert ram.take(SLOW) == data.ljust(4096, b"\0"), "and nothing of an error before is behind it"


def test_a_private_event_is_that_of_the_vcpu_that_is_named_or_of_one_that_takes_it(
    backend: Backend, peer: Peer, ram: Ram
) -> None:
    backend.start_cpu_1()
    backend.enable(PRIVATE, 1)
    report = {"cmd": "ras_report", "source": "cpu", "block": b64(error())}
    assert "not registered on PE 0" in peer.error(**report, vcpu=0)[1]
    assert peer.result(**report)["vcpu"] == 1
    assert backend.kick() == [0, 1] or backend.guest.window.frames[1]
    assert ram.take(CPU)[:20] == error()[:20]
    assert states(peer)["cpu"] == ("free", None), "it has no register to acknowledge by"


def test_a_guest_that_writes_over_its_registers_moves_nothing(backend: Backend, peer: Peer, ram: Ram) -> None:
    """Neither the address nor the block of its making says where an error goes."""
    target = RAM_BASE + 0x10_0000 - 0x1000
    for wrong in (target, 0, (1 << 64) - 1, 0x7FFF_FFFF_F000):
        ram.write(SLOW.address_register, wrong)
        assert states(peer)["slow"][0] == "damaged"
        assert "has written over the address" in peer.error(cmd="ras_report", source="slow", block=b64(error()))[1]
    before = ram.read(target, 0x1000)
    assert peer.result(cmd="ras_report", source="slow", block=b64(error()), force=True)["outcome"] == "queued"
    assert ram.read(target, 0x1000) == before
    assert ram.word(SLOW.address_register) == SLOW.block
    start, size = AREA.status
    for at in range(0, size, 4):
        ram.write(start + at, 0xFFFF_FFFF, 4)
    backend.server.errors.take_up()
    status = peer.result(cmd="status")
    assert {each["state"] for each in status["sources"]} == {"damaged"}
    check = compiled(SCHEMA["definitions"]["source"])
    for each in status["sources"]:
        check(each)


def test_an_error_for_the_next_boot_is_kept_and_told_to_nobody(backend: Backend, peer: Peer, ram: Ram) -> None:
    errors = backend.server.errors
    data = error(severity="fatal")
    assert peer.result(cmd="ras_keep", block=b64(data)) == {"bytes": len(data)}
    assert errors.stage is not None
    assert errors.stage.kept(1) == [data]
    assert {errors.state(each) for each in PLACED} == {"free"}
    assert backend.guest.take_kicks() == []
    assert peer.error(cmd="ras_keep", block=b64(b"x" * 20))[0] == "usage"
    while (answer := peer.ask(cmd="ras_keep", block=b64(data)))["ok"]:
        assert len(errors.stage.kept(1)) < 1000
    assert (answer["error"]["kind"], "too many errors wait" in answer["error"]["message"]) == ("usage", True)
    errors.stage = None
    assert "has no BERT" in peer.error(cmd="ras_keep", block=b64(data))[1]


def test_before_the_first_boot_and_while_ram_arrives_nothing_is_touched(tmp_path: Path) -> None:
    backend = Backend(tmp_path)
    errors = backend.server.errors
    errors.placed = PLACED
    assert {(each["state"], each["reason"]) for each in errors.report()} == {("free", "the guest has not booted yet")}
    with pytest.raises(NotDeliveredError, match="has not booted yet"):
        errors.check(SLOW, error(), None, force=True)
    backend.boot()
    place(errors, Ram(backend))
    backend.server.hooks.arriving = True
    Ram(backend).write(SLOW.block, 1, 4)
    assert errors.report()[2]["state"] == "free", "it was not looked at"
    with pytest.raises(NotDeliveredError, match="RAM is still arriving"):
        errors.check(SLOW, error(), None, force=True)
    backend.control.close()


def test_a_guest_without_error_sources_says_so(peer: Peer) -> None:
    assert peer.result(cmd="ras_sources") == {"sources": []}
    assert "started with --ras or --acpi" in peer.error(cmd="ras_report", source="x", block="")[1]


class Refusing(Deaf):
    """Notifications that say that they can, and then cannot."""

    def why_no_sea(self, pe: int | None) -> str | None:
        return None

    def why_no_interrupt(self, intid: int) -> str | None:
        return None


@pytest.mark.parametrize("name", ["abort", "line"])
def test_an_error_that_could_not_be_told_of_after_all_is_taken_back(
    backend: Backend, peer: Peer, ram: Ram, name: str
) -> None:
    errors = backend.server.errors
    errors.notifications = Refusing()
    assert peer.error(cmd="ras_report", source=name, block=b64(error(severity="fatal")))[1] == "no vCPU took it"
    assert states(peer)[name] == ("free", None)
    assert errors.stage is not None
    assert errors.stage.kept(1) == [], "nor does the next boot tell of it"
    assert records(backend.server)[-1]["outcome"] == "refused"


class Stop(BaseException):
    """The backend is killed."""


def test_a_backend_that_dies_while_it_reports_is_replaced_by_one_that_tells(backend: Backend, ram: Ram) -> None:
    """At each store: the next backend finds a source that is free, or an error that it tells of."""
    backend.enable(SHARED)
    outcomes = set()
    for stores in range(1, 8):
        server = backend.server
        errors = server.errors
        left = stores

        def put(address: int, size: int, value: int, of: Any = errors._put) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop
            of(address, size, value)

        def trigger(event: int, pe: int | None, of: Any = server.trigger, last: int = stores) -> Any:
            if last == 5:
                raise Stop  # all is written, and nobody told
            return of(event, pe)

        errors._put = put  # type: ignore[method-assign]
        errors.untold = UntoldErrors(errors, server.guest, server.log, trigger)
        died = False
        try:
            errors.tell(MEMORY, error(), None)
        except Stop:
            died = True
        backend.server = backend.guest.server()
        place_of = backend.server.errors
        place_of.placed = PLACED
        assert backend.server.recover()
        state = place_of.state(MEMORY)
        outcomes.add((died, state))
        if state == "unread":
            backend.kick()
            assert backend.server.status()["pes"][0]["running"] == [SHARED], "it is told of"
            assert ram.take(MEMORY) == error().ljust(4096, b"\0"), "never half of it"
            backend.call(0, Function.EVENT_COMPLETE, 0)
        else:
            assert state == "free"
    assert outcomes == {(True, "free"), (True, "unread"), (False, "unread")}
