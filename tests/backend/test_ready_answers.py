"""Answers that the monitor gives by itself: always what the firmware would have said, and never of a state that is
over. The simulated guest looks into its table as guest/monitor/monitor.S does; the real one is in
tests/guest/test_ready_answers.py.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Entry, Kind, Ready
from qemu_sdei.profiles.firmware_profile import SPEC_PROFILE
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.smccc.arch import SMCCC_ARCH_FEATURES, SMCCC_VERSION
from tests.backend.handed_over import destination, taken
from tests.backend.simulated import SimulatedGuest, records, serve
from tests.backend.test_crash import PACKAGE, Killed, _Kill, tracing

STATUS = int(Function.EVENT_STATUS)
REGISTER = (Function.EVENT_REGISTER, 0, 0x4100_0000, 7, 0, 0)
SHARED = 0x200
CONSTANT: tuple[tuple[int, ...], ...] = (
    (SMCCC_VERSION,),
    (SMCCC_ARCH_FEATURES, SMCCC_VERSION),
    (Psci.PSCI_VERSION,),
    (Psci.PSCI_FEATURES, Psci.CPU_ON),
    (Function.VERSION,),
    (Function.FEATURES, 0),
    (Function.FEATURES, 1),
    (Function.EVENT_GET_INFO, 0, 0),
    (Function.EVENT_GET_INFO, 0, 1),
    (STATUS, 0),
)


def booted(directory: Path, cpus: int = 2, version: int = layout.VERSION) -> tuple[SimulatedGuest, Server]:
    guest = SimulatedGuest(cpus, directory)
    guest.version = version
    server = guest.server()
    for pe in reversed(range(cpus)):
        guest.reset(pe)
        serve(server)
        guest.take(pe)
    for pe in range(1, cpus):
        guest.answer_to(server, 0, Psci.CPU_ON, pe, 0x4000_0000, 0)
        for kicked in guest.take_kicks():
            guest.post(kicked, Kind.KICK)
            serve(server)
            guest.take(kicked)
    return guest, server


def ask(guest: SimulatedGuest, server: Server, *call: int, pe: int = 0) -> tuple[int, bool]:
    return guest.answer_to(server, pe, *call)


@pytest.mark.parametrize("call", CONSTANT)
def test_what_was_asked_twice_is_ready(call: tuple[int, ...], tmp_path: Path) -> None:
    """And is what the firmware has said."""
    guest, server = booted(tmp_path)
    first, second, third = (ask(guest, server, *call) for _ in range(3))
    assert (first[1], second[1], third[1]) == (False, False, True)
    assert first[0] == second[0] == third[0]


def test_all_of_them_at_once(tmp_path: Path) -> None:
    """Answers that want the same place do not mix, whatever a caller has in the registers that do not count."""
    guest, server = booted(tmp_path)
    expected = {call: ask(guest, server, *call)[0] for call in CONSTANT}
    rng = random.Random(1)
    ready = 0
    for _ in range(2000):
        call = rng.choice(CONSTANT)
        found, by_monitor = ask(guest, server, *call, *(rng.getrandbits(64) for _ in range(3 - len(call))))
        assert found == expected[call], call
        ready += by_monitor
    assert ready > 1000


def test_a_call_with_other_bits_in_its_upper_half_is_not_mistaken(tmp_path: Path) -> None:
    """W0, W1 and W2 are what counts (DEN0028 3.1): the backend sees to it."""
    guest, server = booted(tmp_path)
    for _ in range(3):
        ask(guest, server, STATUS, 0)
        ask(guest, server, Function.FEATURES, 0)
    high = 1 << 32
    for x0, x1 in ((STATUS | high, 0x100), (STATUS | 2 * high, 0), (STATUS, high), (0, 0)):
        assert guest.ready(0, x0, x1) is None
    assert ask(guest, server, STATUS, high | 0x100) == (0, False)


def test_a_state_that_is_over_is_not_told(tmp_path: Path) -> None:
    """Of a private event, through all that changes it."""
    guest, server = booted(tmp_path)
    for call, state in (
        (None, 0),
        (REGISTER, 1),
        ((Function.EVENT_ENABLE, 0), 3),
        ((Function.EVENT_DISABLE, 0), 1),
        ((Function.EVENT_ENABLE, 0), 3),
        ((Function.PE_UNMASK,), 3),
        ((Function.EVENT_SIGNAL, 0, 0), 7),
        ((Function.EVENT_UNREGISTER, 0), 4),
        ((Function.EVENT_COMPLETE, 0), 0),
        (REGISTER, 1),
        ((Function.PRIVATE_RESET,), 0),
    ):
        if call is not None:
            ask(guest, server, *call)
        found = [ask(guest, server, STATUS, 0) for _ in range(3)]
        assert {answer for answer, _ in found} == {state}
        assert found[-1] == (state, True)


def test_a_shared_event_that_another_cpu_changes(tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    ask(guest, server, Function.EVENT_REGISTER, SHARED, 0x4100_0000, 7, 0, 0)
    assert [ask(guest, server, STATUS, SHARED, pe=1) for _ in range(3)][-1] == (1, True)
    guest.smc(0, Function.EVENT_ENABLE, SHARED)
    assert guest.ready(1, STATUS, SHARED) == 1, "nobody has been told yet"
    serve(server)
    assert guest.ready(1, STATUS, SHARED) is None
    assert ask(guest, server, STATUS, SHARED, pe=1) == (3, False)


def test_an_injection(tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    for call in (REGISTER, (Function.EVENT_ENABLE, 0), (Function.PE_UNMASK,)):
        ask(guest, server, *call)
    assert [ask(guest, server, STATUS, 0) for _ in range(3)][-1] == (3, True)
    server.trigger(0, 0)
    assert guest.ready(0, STATUS, 0) == 3, "its handler has not been entered"
    assert guest.take_kicks()[0] == 0
    guest.post(0, Kind.KICK)
    serve(server)
    guest.take(0)
    assert guest.ready(0, STATUS, 0) is None
    assert ask(guest, server, STATUS, 0) == (7, False)


def test_a_bound_event_is_never_ready(tmp_path: Path) -> None:
    """What becomes of its interrupt changes what is answered, too."""
    guest, server = booted(tmp_path)
    bound = ask(guest, server, Function.INTERRUPT_BIND, 77)[0]
    assert [ask(guest, server, STATUS, bound)[1] for _ in range(4)] == [False] * 4
    assert [ask(guest, server, Function.EVENT_GET_INFO, bound, 2)[1] for _ in range(4)] == [False] * 4


def test_routing_is_never_ready(tmp_path: Path) -> None:
    """It changes without a transition."""
    guest, server = booted(tmp_path)
    ask(guest, server, Function.EVENT_REGISTER, SHARED, 0x4100_0000, 7, 0, 0)
    assert [ask(guest, server, Function.EVENT_GET_INFO, SHARED, 3)[1] for _ in range(4)] == [False] * 4


def test_a_call_from_another_level_is_not_answered_by_it(tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    guest.window.frames[0][layout.Word.PSTATE] = 0x3C9
    assert [ask(guest, server, Function.VERSION)[1] for _ in range(4)] == [False] * 4


@pytest.mark.parametrize(
    "wish",
    [
        lambda server: server.record_each(True),
        lambda server: server.misbehave(SPEC_PROFILE.with_rules([Rule.of_text("CPU_ON returns=DENIED")])),
        lambda server: setattr(server.hooks, "on_heartbeat", lambda: None),
        lambda server: server.pause(),
    ],
    ids=["a trace is followed", "a profile is set", "a sign of life is waited for", "it is paused"],
)
def test_who_wants_to_see_each_call_sees_it(wish: Callable[[Server], None], tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    for _ in range(2):
        for pe in (0, 1):
            ask(guest, server, Function.VERSION, pe=pe)
    assert guest.ready(0, Function.VERSION) == guest.ready(1, Function.VERSION) is not None
    wish(server)
    server.answer_function()
    assert guest.ready(0, Function.VERSION) is guest.ready(1, Function.VERSION) is None


def test_they_come_back_when_nobody_follows_any_more(tmp_path: Path) -> None:
    guest, server = booted(tmp_path)
    server.record_each(True)
    assert [ask(guest, server, Function.VERSION)[1] for _ in range(4)] == [False] * 4
    server.record_each(False)
    assert [ask(guest, server, Function.VERSION)[1] for _ in range(3)] == [False, False, True]


def test_the_calls_are_counted_and_stand_in_the_ring(tmp_path: Path) -> None:
    """By function and vCPU, as one record; those of the frames have records of their own."""
    guest, server = booted(tmp_path)
    for _ in range(10):
        ask(guest, server, STATUS, 0)
        ask(guest, server, STATUS, 0, pe=1)
        ask(guest, server, Function.VERSION, pe=1)
    status = server.status()
    assert status["pes"][0]["calls"]["SDEI_EVENT_STATUS"] == 10
    assert status["pes"][1]["calls"] == {"SDEI_EVENT_STATUS": 10, "SDEI_VERSION": 10}
    server.record_each(True)
    found = records(server)
    counted = {(each["vcpu"], each["function"]): each["count"] for each in found if each["type"] == "counted"}
    assert counted == {(0, "SDEI_EVENT_STATUS"): 8, (1, "SDEI_EVENT_STATUS"): 8, (1, "SDEI_VERSION"): 10}
    posted = [each for each in found if each["type"] == "call" and each["function"] == "SDEI_EVENT_STATUS"]
    assert len(posted) == 4
    assert server.status()["counts"]["calls"] == status["counts"]["calls"]


def test_a_call_is_counted_once_whatever_becomes_of_the_entry(tmp_path: Path) -> None:
    """Taken back, made again, pushed out, the table closed and opened."""
    guest, server = booted(tmp_path)
    rng = random.Random(3)
    expected = dict.fromkeys(CONSTANT, 0)
    for change in (REGISTER, (Function.EVENT_ENABLE, 0)):
        ask(guest, server, *change)
    for n in range(3000):
        call = rng.choice(CONSTANT[n // 300 % 3 :: 2])
        ask(guest, server, *call)
        expected[call] += 1
        if n % 41 == 0:
            ask(guest, server, *(Function.EVENT_DISABLE, Function.EVENT_ENABLE)[n % 2 :][:1], 0)
        if n % 97 < 2:
            server.record_each(n % 97 == 0)
    by_function: dict[int, int] = {}
    for call, count in expected.items():
        by_function[call[0]] = by_function.get(call[0], 0) + count
    server.guest.ready.collect()
    assert {function: server.guest.calls[function][0] for function in by_function} == by_function


def test_calls_that_push_each_other_out_leave_nothing_behind(tmp_path: Path) -> None:
    """A guest can have that for ever."""
    guest, server = booted(tmp_path)
    ask(guest, server, *REGISTER)
    wanted = layout.ready_entry(STATUS, 0)
    other = next(n for n in itertools.count(2) if layout.ready_entry(int(Function.FEATURES), n) == wanted)
    stood = 0
    for _ in range(50):
        for _ in range(8):
            stood += ask(guest, server, STATUS, 0)[1]
        for _ in range(8):
            ask(guest, server, Function.FEATURES, other)
    assert stood > 10, "it was put there again and again"
    assert sum(map(len, server.guest.ready.events.values())) == 1


def test_a_guest_that_writes_into_its_table_hurts_nobody_else(tmp_path: Path) -> None:
    """All the host takes of it are counts, and no number is too large for them."""
    guest, server = booted(tmp_path)
    for _ in range(3):
        ask(guest, server, Function.VERSION)
        ask(guest, server, STATUS, 0, pe=1)
    rng = random.Random(2)
    for n in range(200):
        table = guest.window.ready[0]
        for word in range(len(table)):
            table[word] = rng.choice((0, 1, rng.getrandbits(64), (1 << 64) - 1, table[word]))
        server.record_each(n % 2 == 0)
        server.status()
        taken(server)
        for _ in range(4):
            guest.smc(0, Function.VERSION)
            serve(server)
            guest.take(0)
        assert ask(guest, server, STATUS, 0, pe=1)[0] == 0
    assert 0 < server.guest.calls[int(Function.VERSION)][0] < 1 << 63
    assert records(server)


def test_a_monitor_that_does_not_look_is_answered_as_ever(tmp_path: Path) -> None:
    guest, server = booted(tmp_path, version=layout.OLDEST)
    assert [ask(guest, server, Function.VERSION)[1] for _ in range(4)] == [False] * 4
    assert server.status()["pes"][0]["calls"]["SDEI_VERSION"] == 4


def test_a_reset_begins_anew(tmp_path: Path) -> None:
    """Whatever the guest before has left in the tables."""
    guest, server = booted(tmp_path)
    ask(guest, server, *REGISTER)
    assert [ask(guest, server, STATUS, 0) for _ in range(3)][-1] == (1, True)
    for pe in (0, 1):
        guest.window.ready[pe][Ready.VALID] = (1 << 64) - 1
    guest.reset(0)
    serve(server)
    guest.take(0)
    assert [table[Ready.VALID] for table in guest.window.ready] == [0, 0]
    assert ask(guest, server, STATUS, 0) == (0, False)


def test_a_backend_that_takes_over_begins_anew(tmp_path: Path) -> None:
    """After a `kill -9`, and at the destination of a migration, whose RAM has the tables of the source."""
    guest, server = booted(tmp_path)
    server.checkpoint()
    ask(guest, server, *REGISTER)
    for _ in range(3):
        ask(guest, server, STATUS, 0)
    assert guest.ready(0, STATUS, 0) == 1
    again = guest.server()
    assert again.recover()
    assert guest.ready(0, STATUS, 0) is None
    assert [ask(guest, again, STATUS, 0) for _ in range(3)] == [(1, False), (1, False), (1, True)]
    again.pause()
    assert guest.ready(0, STATUS, 0) is None, "nothing of it goes along"
    state = taken(again)
    (tmp_path / "there").mkdir()
    there = destination(2, tmp_path / "there")
    there.window.ready[0][Ready.VALID] = (1 << 64) - 1
    state_document.restore(there, state)
    assert there.window.ready[0][Ready.VALID] == 0


def test_one_that_waits_for_its_guest_leaves_its_ram_alone(tmp_path: Path) -> None:
    """QEMU could not put a page in place that somebody else has touched."""
    there = destination(2, tmp_path)
    there.await_guest()
    there.window.ready[1][Ready.VALID] = 5
    assert not there.recover()
    there.descriptors.stop()
    there.run()
    assert there.window.ready[1][Ready.VALID] == 5


def test_killed_at_any_line_it_tells_no_state_that_is_over() -> None:
    """A backend dies while it changes the state of an event. Until its call is answered either state may be told; from
    then on, only the new one.
    """
    for at in itertools.count(0, 3):
        with TemporaryDirectory() as name:
            guest, server = booted(Path(name))
            server.checkpoint()
            ask(guest, server, Function.EVENT_REGISTER, SHARED, 0x4100_0000, 7, 0, 0)
            assert [ask(guest, server, STATUS, SHARED, pe=1) for _ in range(3)][-1] == (1, True)
            guest.smc(0, Function.EVENT_ENABLE, SHARED)
            kill = _Kill(at)
            try:
                with tracing(kill):
                    serve(server)
            except Killed:
                if not guest.waiting(0):
                    assert guest.ready(1, STATUS, SHARED) is None
                assert guest.ready(1, STATUS, SHARED) in (1, None)
                server = guest.server()
                server.recover()
                serve(server)
            guest.take(0)
            assert guest.ready(1, STATUS, SHARED) is None
            assert ask(guest, server, STATUS, SHARED, pe=1) == (3, False)
            if not kill.over:
                break
    assert kill.lines > 30, PACKAGE


def _lookup(table: memoryview, function: int, event: int) -> tuple[int, ...]:
    """The words that the monitor reads for a call with one argument, in its order."""
    at = layout.ready_entry(function, event) * layout.READY_ENTRY_WORDS
    return (Ready.VALID, at + Entry.KEY, at + Entry.ARGUMENT, at + Entry.RESULT)


@pytest.mark.parametrize("host", ["changes", "close"])
def test_litmus_one_cpu_asks_while_another_changes(host: str, tmp_path: Path) -> None:
    """Every order in which the monitor's loads of CPU 1 and the host's stores for a call of CPU 0 can come: where the
    loads begin behind the store of ACK, the old state is not told. The host's stores are those that it makes, recorded.
    """
    guest, server = booted(tmp_path)
    ask(guest, server, Function.EVENT_REGISTER, SHARED, 0x4100_0000, 7, 0, 0)
    for _ in range(2):
        ask(guest, server, STATUS, SHARED, pe=1)
    before = guest.window.ready[1].tolist()
    stores: list[tuple[int, int]] = []  # (word, value) of CPU 1's table; -1: ACK of CPU 0
    if host == "changes":
        guest.smc(0, Function.EVENT_ENABLE, SHARED)
        serve(server)
    else:
        server.record_each(True)
    after = guest.window.ready[1].tolist()
    stores += [(word, new) for word, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert stores, "nothing was taken back"
    stores.append((-1, 0))
    words = _lookup(guest.window.ready[1], STATUS, SHARED)
    for order in itertools.permutations(stores[:-1]):  # whichever of them came first, ACK came last
        steps = [*order, stores[-1]]
        for places in itertools.combinations_with_replacement(range(len(steps) + 1), len(words)):
            table, loads, done = list(before), [], 0
            for load, place in zip(words, places, strict=True):
                for word, value in steps[done:place]:
                    if word >= 0:
                        table[word] = value
                done = max(done, place)
                loads.append(table[load])
            valid, key, argument, result = loads
            answered = valid >> (STATUS & 63) & 1 and key == STATUS | layout.READY_ONE and argument == SHARED
            if places[0] == len(steps):
                assert not answered
            elif answered:
                assert result == 1, "a state, and nothing that was never one"
