"""State documents that fit their form and contradict themselves: refused in one line, or the guest runs on.

A guest that runs on: what each CPU waits for in the monitor comes, its calls are answered, handlers complete, events
that are registered are delivered, and the machine boots again.
"""

from __future__ import annotations

import copy
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.backend.control import state_document
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import Function
from tests.backend import test_bound_state
from tests.backend.handed_over import fresh_window, machine, taken
from tests.backend.schema import SCHEMA, refusal
from tests.backend.simulated import serve
from tests.backend.test_bound import ALARM, TIMER, BoundWorld, P, S
from tests.backend.test_document import DOCUMENT
from tests.examples import examples
from tests.sdei.test_state_fuzz import places


def middle() -> Any:
    """Of a guest whose CPUs are in the middle of exchanges with the GIC."""
    with tempfile.TemporaryDirectory() as name:
        return taken(test_bound_state.in_the_middle(Path(name)).server)


MIDDLE = middle()
TURNS = 200
OFF = {"on": False, "masked": True, "frames": [], "events": []}
SDEI = "firmware/sdei"
GIC = "firmware/gic"
ACK, KIND, FLAGS, OPS = int(Word.ACK), int(Word.KIND), int(Word.FLAGS), int(Word.OPS)


def changed(state: Any, changes: dict[str, Any]) -> Any:
    """A copy with values changed, each by a path like "cpus/0/seq"; to a value, or by a function of the old one."""
    state = copy.deepcopy(state)
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        node: Any = state
        for key in way:
            node = node[key]
        node[last] = value(node[last]) if callable(value) else value
    return state


def more(number: int) -> Any:
    return lambda value: value + number


RULES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("answered above seq", DOCUMENT, {"cpus/0/answered": more(5), f"cpus/0/frame/{ACK}": more(5)}, "does not follow"),
    ("answered far below seq", DOCUMENT, {"cpus/0/seq": more(5)}, "does not follow"),
    ("seq of before", DOCUMENT, {"cpus/0/seq": more(-1)}, "does not follow"),
    ("an answer that was not written", DOCUMENT, {f"cpus/0/frame/{ACK}": more(-1)}, "has no answer"),
    ("an answer to what was not seen", DOCUMENT, {f"cpus/0/frame/{ACK}": more(1)}, "not seen"),
    ("off for SDEI only", DOCUMENT, {f"{SDEI}/pes/1": lambda pe: pe | OFF},
     "ON for PSCI|runs|contradict"),
    ("a CPU that starts nowhere", DOCUMENT, {"firmware/psci/power/1": 2}, "is on for SDEI|entry point"),
    ("an entry point of one that is on", DOCUMENT, {"firmware/psci/entry/1": [0x4100_0000, 0]}, "entry point"),
    ("never booted", DOCUMENT, {"firmware/epoch": 0}, "id_registers contradict"),
    ("never booted, nor seen", DOCUMENT, {"firmware/epoch": 0, "firmware/id_registers": {}}, "has not booted"),
    ("boots while it runs", DOCUMENT, {"firmware/booting": True}, "while the machine boots"),
    ("other CPU features", DOCUMENT, {f"{SDEI}/features/pan": True}, "features"),
    ("counts that leave one", DOCUMENT, {"firmware/triggers/0/2": more(1)}, "wait by their numbers|accepted must be"),
    ("more handlers than were entered", DOCUMENT, {"counters/delivered": 0}, "more handlers"),
    ("an interrupt that is not bound any more", DOCUMENT, {f"{SDEI}/bound": lambda b: [[p, n + 1] for p, n in b]},
     "owned"),
    ("an interrupt of another CPU's", DOCUMENT, {f"{GIC}/owned/0/0": TIMER + 1}, "owned"),
    ("registered and not owned", DOCUMENT, {f"{GIC}/owned": lambda owned: owned[1:]}, "not owned"),
    ("owned twice", DOCUMENT, {f"{GIC}/owned": lambda owned: [owned[0], *owned]}, "there twice"),
    ("nobody will see to it", DOCUMENT, {f"{GIC}/settling": [ALARM]}, "nobody is to see to"),
    ("taken and not owned", DOCUMENT, {f"{GIC}/quieting": [[0, ALARM + 1]]}, "not owned"),
    ("taken, by its frame not", DOCUMENT, {f"{GIC}/quieting": [[0, ALARM]]}, "micro-operations"),
    ("micro-operations that nobody asked for", DOCUMENT, {f"cpus/0/frame/{FLAGS}": 0x101}, "micro-operations"),
    ("CPUs in each other's places", DOCUMENT, {"cpus": lambda cpus: cpus[::-1]}, "of another CPU"),
    ("two waiters with one ticket", DOCUMENT, {"waiting": lambda w: [*w, *w]}, "same ticket"),
    ("waits for an event that there is not", DOCUMENT, {"waiting/0/event": 0x7777}, "no event 0x7777"),
    ("a job of which the frame knows nothing", MIDDLE, {f"cpus/0/frame/{FLAGS}": 0}, "micro-operations"),
    ("has come up, and does micro-operations", DOCUMENT,
     {f"cpus/0/frame/{FLAGS}": 0x101, f"cpus/0/frame/{OPS}": 0xC403}, "micro-operations"),
    ("no job to the micro-operations", MIDDLE, {f"{GIC}/jobs": [], f"{GIC}/operator": -1}, "micro-operations"),
    ("two jobs of a CPU", MIDDLE, {f"{GIC}/jobs": lambda jobs: [*jobs, jobs[0]]}, "two exchanges"),
    ("an operator without work", MIDDLE, {f"{GIC}/spis": []}, "nobody is to see to|not owned|is owned"),
    ("flags that no answer has", MIDDLE, {f"{GIC}/jobs/0/flags": 0xFF00}, "no answer has"),
    ("an operation that there is not", MIDDLE, {f"{GIC}/jobs/0/ops": [[99, 0, 0]]}, "no micro-operation"),
    ("an operation off its alignment", MIDDLE, {f"{GIC}/jobs/0/ops": [[0x401, 2, 0]]}, "not aligned"),
    ("another CPU's interrupt", MIDDLE, {f"{GIC}/jobs/0/todo": [[TIMER, 1], [TIMER, 0]]}, "another CPU"),
]  # fmt: skip


def refused(state: Any, directory: Path) -> str | None:
    """What a new backend says to it; None: it takes it."""
    server = BoundWorld(directory).server
    server.guest.machine = machine(2)
    try:
        state_document.restore(server, state)
    except ProtocolError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("what", "state", "changes", "reason"), RULES, ids=[rule[0] for rule in RULES])
def test_contradictions_are_refused(
    what: str, state: Any, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    damaged = changed(state, changes)
    assert refused(state, tmp_path) is None
    assert refusal(damaged) is None or "flags" in what or "operation" in what, "the schema sees it already"
    (tmp_path / "other").mkdir()
    message = refused(damaged, tmp_path / "other")
    assert message is not None

    assert re.search(reason, message), message
    assert "\n" not in message
    assert len(message) < 300


# Whatever is changed


class Destination(BoundWorld):
    """A guest at a new backend. Its monitor counts as it did at the source, whatever the document says."""

    def __init__(self, directory: Path, source: Any, state: Any) -> None:
        super().__init__(directory)
        self.guest.window = fresh_window(2)
        self.guest.journal_path = directory / "there"
        self.server = self._start()
        self.server.guest.machine = machine(2)
        state_document.restore(self.server, state)
        self.own = [cpu["seq"] for cpu in source["cpus"]]
        self.done = [cpu["frame"][Word.DONE] for cpu in source["cpus"]]
        for intid, pe, priority, enabled, quiet in source["firmware"]["gic"]["owned"]:
            line = self.gic.lines[intid, pe]
            line.group0, line.enabled, line.priority = True, not quiet, 0x40
            del priority, enabled

    def post(self, pe: int, kind: int) -> None:
        self.guest.window.seq[pe] = self.own[pe]
        self.guest.post(pe, kind)
        self.own[pe] += 1

    def waits(self, pe: int) -> bool:
        """The CPU stands in the monitor, and its answer does not come."""
        serve(self.server)
        return bool(self.guest.window.frames[pe][Word.ACK] != self.own[pe])

    def take(self, pe: int) -> bool:
        """Take the answer, as the monitor does, and post what it asks for; False: the CPU was in no exchange."""
        assert not self.waits(pe), f"CPU {pe} waits for its answer for ever"
        if self.done[pe] == self.own[pe]:
            return False
        frame = self.guest.window.frames[pe]
        frame[Word.DONE] = self.done[pe] = self.own[pe]
        self.gic.execute(frame, pe)
        if frame[Word.FLAGS] & AnswerFlag.REPOST:
            self.post(pe, Kind.OPS)
        return True

    def finish(self, pe: int) -> None:
        """The exchange that the CPU is in; the other one works meanwhile, as it may be waited for."""
        for _ in range(TURNS):
            if not self.take(pe):
                return
            self.take(1 - pe)
        raise AssertionError(f"CPU {pe}: its exchange has no end")

    def ask(self, pe: int, function: int, *arguments: int) -> int:
        frame = self.guest.window.frames[pe]
        frame[Word.X0] = frame[Word.FUNCTION] = function
        frame[Word.PSTATE] = 0x3C5
        for n, value in enumerate(arguments, 1):
            frame[Word.X0 + n] = value
        self.post(pe, Kind.SMC)
        self.finish(pe)
        return int(frame[Word.X0])


def runs_on(world: Destination) -> None:
    """See the module's docstring."""
    for pe in range(2):
        world.finish(pe)
    on = [pe for pe in range(2) if world.server.firmware.psci.power[pe] == 0]
    for pe in on:
        for _ in range(3):  # handlers end
            world.ask(pe, Function.EVENT_COMPLETE, 0)
        assert not world.server.firmware.dispatcher.running(pe)
        world.ask(pe, Function.PE_UNMASK)
        world.ask(pe, Function.EVENT_STATUS, P)
        for _ in range(3):
            world.ask(pe, Function.EVENT_COMPLETE, 0)
    for pe in on:
        world.ask(pe, Function.EVENT_UNREGISTER, P)
        world.ask(pe, Function.EVENT_COMPLETE, 0)
    world.server.status()
    world.server.checkpoint()
    epoch = world.server.firmware.machine.epoch
    for pe in (1, 0):
        world.guest.window.seq[pe] = world.own[pe]
        world.guest.reset(pe)
        world.own[pe] += 1
        serve(world.server)
        world.own[pe] = world.guest.window.seq[pe]
    assert world.server.firmware.machine.epoch == epoch + 1


def test_the_examples_run_on(tmp_path: Path) -> None:
    for n, state in enumerate((DOCUMENT, MIDDLE)):
        (tmp_path / str(n)).mkdir()
        runs_on(Destination(tmp_path / str(n), state, state))


def take_or_refuse(source: Any, damaged: Any) -> bool:
    """Whether it was taken; then the guest runs on."""
    with tempfile.TemporaryDirectory() as name:
        world: Destination | None
        message = ""
        try:
            world = Destination(Path(name), source, damaged)
        except ProtocolError as error:
            message = str(error)
            world = None
        if world is None:
            assert "\n" not in message
            assert len(message) < 400
            return False
        runs_on(world)
        return True


def schema_of(path: tuple[Any, ...]) -> Any:
    """What the schema says of a place."""
    node = SCHEMA

    def followed(part: Any) -> Any:
        while "$ref" in part:
            part = SCHEMA["definitions"][part["$ref"].rpartition("/")[2]]
        return part

    for key in path:
        node = followed(node)
        if isinstance(key, int):
            items = node.get("items", {})
            node = items[key] if isinstance(items, list) and key < len(items) else items
            if isinstance(node, list):
                node = {}
        else:
            node = node.get("properties", {}).get(key, {})
    return followed(node)


def values(path: tuple[Any, ...], value: Any) -> Iterator[Any]:
    """What could stand there instead: the ends of its range, its neighbours, and beyond."""
    part = schema_of(path)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        low, high = part.get("minimum", 0), part.get("maximum", (1 << 64) - 1)
        yield from dict.fromkeys(
            n for n in (low - 1, low, value - 1, value + 1, value ^ 1, high, high + 1) if n != value
        )
    elif value is None:
        yield from (0, [0, 0], 1 << 64)
    elif isinstance(value, list):
        yield []
        yield value + value[-1:]
        yield value[1:]
        yield value[::-1]
        yield None
    elif isinstance(value, str):
        yield ""
    else:
        yield {}


WORDS = {int(word) for word in (Word.ACK, Word.FLAGS, Word.KIND, Word.VECTOR, Word.DONE, Word.FUNCTION)}


def posted(state: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Whether a CPU has posted its next frame only SEQ tells: a document that lies about it is not found out."""
    if path[:1] != ("cpus",) or path[-1] != "seq":
        return False
    answered = state["cpus"][path[1]]["answered"]
    return value in (answered, answered + 1)


def of_meaning(state: Any) -> list[tuple[Any, ...]]:
    """All places but the registers in frames and contexts, of which any value is as good, and counts of calls."""
    found = []
    for path in places(state):
        if path[-2:-1] == ("frame",) and path[-1] not in WORDS:
            continue
        if path[-2:-1] == ("context",) and path[-1] > 2:
            continue
        if path[:2] == ("counters", "calls") or path[:2] == ("firmware", "id_registers") or path[:1] == ("machine",):
            continue
        found.append(path)
    return found


def put(state: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        state = state[key]
    state[path[-1]] = value


def get(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        state = state[key]
    return state


def single(state: Any) -> list[tuple[tuple[Any, ...], Any]]:
    every = [(path, value) for path in of_meaning(state) for value in values(path, get(state, path))]
    return [(path, value) for path, value in every if not posted(state, path, value)]


def test_each_field_by_itself(request: pytest.FixtureRequest) -> None:
    """A sample of all; all of them with `--all`."""
    sample = random.Random(11)
    refusals = 0
    for state in (DOCUMENT, MIDDLE):
        every = single(state)
        assert len(every) > 500
        for path, value in sample.sample(every, 80):
            damaged = copy.deepcopy(state)
            put(damaged, path, value)
            try:
                refusals += not take_or_refuse(state, damaged)
            except Exception as error:
                error.add_note(f"{path} = {value!r:.60}")
                raise
    assert refusals > 80


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("state", [DOCUMENT, MIDDLE], ids=["busy", "middle"])
def test_every_field_by_itself(state: Any) -> None:
    wrong = []
    for path, value in single(state):
        damaged = copy.deepcopy(state)
        put(damaged, path, value)
        try:
            take_or_refuse(state, damaged)
        except Exception as error:
            wrong.append(f"{path} = {value!r:.60}: {error!r:.200}")
    assert not wrong, "\n".join(wrong)


@settings(max_examples=examples(60))
@given(st.sampled_from([DOCUMENT, MIDDLE]), st.data())
def test_values_in_each_others_places(state: Any, data: st.DataObject) -> None:
    """Two of the same type are swapped."""
    paths = of_meaning(state)
    one = data.draw(st.sampled_from(paths))
    kind = type(get(state, one))
    other = data.draw(st.sampled_from([path for path in paths if type(get(state, path)) is kind]))
    if one == other[: len(one)] or other == one[: len(other)]:
        return
    if posted(state, one, get(state, other)) or posted(state, other, get(state, one)):
        return
    damaged = copy.deepcopy(state)
    put(damaged, one, copy.deepcopy(get(state, other)))
    put(damaged, other, copy.deepcopy(get(state, one)))
    take_or_refuse(state, damaged)


# What a guest has forged is put right before it is written down


def test_a_guest_cannot_forge_micro_operations_that_nobody_asked_for(tmp_path: Path) -> None:
    world = BoundWorld(tmp_path)
    world.boot()
    world.guest.window.frames[1][Word.FLAGS] = 0x100 | AnswerFlag.REPOST
    source = taken(world.server)
    (tmp_path / "to").mkdir()
    runs_on(Destination(tmp_path / "to", source, source))


@pytest.mark.parametrize("flags", [0, 0x100 | AnswerFlag.WFI])
def test_a_guest_cannot_forge_away_micro_operations(flags: int, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    world = test_bound_state.in_the_middle(tmp_path)
    for pe in world.server.firmware.ownership.jobs:
        world.guest.window.frames[pe][Word.FLAGS] = flags
    assert refused(taken(world.server), tmp_path / "to") is None


@pytest.mark.parametrize("word", ["seq back", "seq ahead", "ack back", "ack ahead"])
def test_a_guest_cannot_forge_itself_out_of_a_migration(word: str, tmp_path: Path) -> None:
    world = BoundWorld(tmp_path)
    world.boot()
    window, by = world.guest.window, 3 if "ahead" in word else -3
    if word.startswith("seq"):
        window.seq[1] += by
    else:
        window.frames[1][Word.ACK] += by
    serve(world.server)
    source = taken(world.server)
    assert source["cpus"][1]["seq"] == source["cpus"][1]["answered"] == source["cpus"][1]["frame"][ACK]
    (tmp_path / "to").mkdir()
    runs_on(Destination(tmp_path / "to", source, source))


def test_who_waits_for_what_cannot_come_is_told(tmp_path: Path) -> None:
    """The event was taken back by KVM's registers, say."""
    state = changed(DOCUMENT, {"waiting/0/entry_ns": None, "waiting/0/event": S})
    world = Destination(tmp_path, DOCUMENT, state)
    answers: list[Any] = []
    assert world.server.injections.claim(state["waiting"][0]["ticket"], "me", answers.append)
    assert "not pending any more" in answers[0]["error"]["message"]
