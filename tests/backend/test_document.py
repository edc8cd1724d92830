"""The state document: complete (a guest that is handed over at any point does not notice), stable (stored documents of
each version load), and refused when damaged. Its page in the docs names all that is in it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.backend.control import document_schema, state_document
from qemu_sdei.backend.firmware.notices import Kind, Notice
from qemu_sdei.errors import ProtocolError
from qemu_sdei.json_schema import compiled
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.sdei.machine_description import MachineDescription
from tests.backend.handed_over import described, destination, machine, migrate, taken
from tests.backend.simulated import serve
from tests.backend.test_bound import ALARM, TIMER, BoundWorld, P, S
from tests.backend.test_bound_state import lines_of, scenario
from tests.examples import examples
from tests.sdei.test_state_fuzz import JUNK, damage_at, places

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = sorted((Path(__file__).parent / "documents").glob("*.json"))


class MovingWorld(BoundWorld):
    """A guest that is handed over again and again: before its call is answered, before it takes the answer, after."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random, self.directory, self.moves = random.Random(seed), directory, 0
        super().__init__(directory)

    def _move(self) -> None:
        if self.random.random() < 0.2:
            self.moves += 1
            migrate(self, self.directory / str(self.moves))

    def step(self, pe: int) -> list[int]:
        self._move()
        serve(self.server)
        self._move()
        answer = self.guest.take(pe)
        self.gic.execute(self.guest.window.frames[pe], pe)
        self._move()
        return answer


@pytest.mark.parametrize("seed", range(6))
def test_a_guest_does_not_notice(tmp_path: Path, seed: int) -> None:
    """Calls, answers and interrupt lines are those of one that stayed."""
    (tmp_path / "stayed").mkdir()
    stayed = BoundWorld(tmp_path / "stayed")
    scenario(stayed)
    moved = MovingWorld(tmp_path, seed)
    scenario(moved)
    assert moved.moves > 10
    assert moved.seen == stayed.seen
    assert lines_of(moved) == lines_of(stayed)
    assert moved.server.status()["counts"]["delivered"] == stayed.server.status()["counts"]["delivered"]
    assert (
        moved.server.guest.calls[int(Function.EVENT_REGISTER)]
        == stayed.server.guest.calls[int(Function.EVENT_REGISTER)]
    )


def test_recovered_after_a_kill_at_the_destination(tmp_path: Path) -> None:
    """The journal there begins with what arrived."""
    world = BoundWorld(tmp_path)
    world.boot()
    world.enable(0, P)
    migrate(world, tmp_path / "there")
    before = taken(world.server)
    world.server = world._start()
    after = taken(world.server)
    for state in (before, after):
        for cpu in state["cpus"]:
            del cpu["kick"]
    assert after == before


def busy() -> dict[str, Any]:
    """A document with something of everything; CPU 1's call is not answered."""
    with tempfile.TemporaryDirectory() as name:
        world = BoundWorld(Path(name))
        world.boot()
        for pe in (0, 1):
            world.enable(pe, P)
        world.enable(0, S)
        world.interrupt(TIMER, 0)
        world.interrupt(ALARM, 1)
        world.guest.smc(1, Function.EVENT_STATUS, S)
        waiter = world.server.injections.add(P, 0, None, print)
        waiter.entry = waiter.start
        world.server.firmware.notices.ask(Notice(3, Kind.ABORT, 0, 0x7000, 1))
        return taken(world.server)


DOCUMENT = busy()
PLACES = places(DOCUMENT)


def load(state: Any) -> dict[str, Any]:
    """Restore a document into a new backend that serves on; return it as that one has it then."""
    with tempfile.TemporaryDirectory() as name:
        world = BoundWorld(Path(name))
        world.server.guest.machine = machine(2)
        state_document.restore(world.server, state)
        arrived = taken(world.server)
        serve(world.server)
        world.server.status()
        taken(world.server)
        return arrived


def without_kicks(state: dict[str, Any]) -> dict[str, Any]:
    """A restore kicks every CPU once, and time goes on."""
    state = copy.deepcopy(state)
    for cpu in state["cpus"]:
        del cpu["kick"]
    for waiter in state["waiting"]:
        del waiter["waited_ns"]
    return state


def test_identity() -> None:
    assert without_kicks(load(DOCUMENT)) == without_kicks(DOCUMENT)


def test_what_is_in_the_example() -> None:
    """The tests here are about something: handlers, owned interrupts, a call without an answer."""
    assert [len(pe["frames"]) for pe in DOCUMENT["firmware"]["sdei"]["pes"]] == [1, 1]
    assert len(DOCUMENT["firmware"]["gic"]["owned"]) == 3
    waiting = [cpu["seq"] != cpu["answered"] for cpu in DOCUMENT["cpus"]]
    assert waiting == [False, True]


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_stored_documents_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version wrote is understood, and means the same."""
    stored = json.loads(file.read_text())
    profile = described(stored["document"])
    monkeypatch.setattr(MachineDescription, "default", lambda: profile)
    again = load(stored["document"])
    sdei, psci = again["firmware"]["sdei"], again["firmware"]["psci"]
    summary = {
        "running": [[frame["event"] for frame in pe["frames"]] for pe in sdei["pes"]],
        "pending": sorted(
            e["event"] for pe in [*sdei["pes"], {"events": sdei["shared"]}] for e in pe["events"] if e["pending"]
        ),
        "masked": [pe["masked"] for pe in sdei["pes"]],
        "power": psci["power"],
        "owned": [line[:2] for line in again["firmware"]["gic"]["owned"]],
        "waiting": [cpu["seq"] != cpu["answered"] for cpu in again["cpus"]],
    }
    assert summary == stored["means"]


def test_each_version_is_stored() -> None:
    documents = [json.loads(file.read_text())["document"] for file in CORPUS]
    first = min(state_document.UPGRADES, default=state_document.VERSION)
    assert {document["version"] for document in documents} == set(range(first, state_document.VERSION + 1))
    assert {document["machine"]["window_version"] for document in documents} >= set(
        range(layout.OLDEST, layout.VERSION + 1)
    )


def test_an_older_document_is_brought_up_to_date_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are made up: there are no older documents yet that anybody has."""
    now = state_document.VERSION
    state = {**{key: value for key, value in DOCUMENT.items() if key != "waiting"}, "version": now, "old": 5}
    monkeypatch.setattr(state_document, "VERSION", now + 2)
    monkeypatch.setattr(
        state_document,
        "UPGRADES",
        {
            now: lambda document: {key: value for key, value in document.items() if key != "old"},
            now + 1: lambda document: document | {"waiting": []},
        },
    )
    schema = document_schema.SCHEMA
    versions = {**schema["properties"], "version": {"type": "integer", "const": now + 2}}
    form = compiled({**schema, "properties": versions})
    monkeypatch.setattr(state_document, "form", lambda: form)
    assert without_kicks(load(state)) == without_kicks({**DOCUMENT, "waiting": [], "version": now + 2})
    monkeypatch.setattr(state_document, "UPGRADES", {now + 1: lambda document: document})
    with pytest.raises(ProtocolError, match=f"of version {now}, which only earlier versions of this program read"):
        load(state)


def change(path: str, value: Any) -> Any:
    """The example with one value of it changed; a path like "cpus/0/seq"."""
    state = copy.deepcopy(DOCUMENT)
    *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    node: Any = state
    for key in way:
        node = node[key]
    node[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("format", "savevm", "this is none"),
        ("version", state_document.VERSION + 1, "newer program"),
        pytest.param("version", 10**5000, "newer program", id="more digits than can be printed"),
        ("version", "1", "no version"),
        ("machine/nr_cpus", 3, "another machine: nr_cpus is 3 there and 2 here"),
        ("machine/ram_size", 1 << 30, "another machine: ram_size"),
        ("machine/cpu", "max", "another machine: cpu is 'max' there"),
        ("services", ["psci"], "other services"),
        ("cpus", [], "cpus: must have 1 to 512 entries"),
        ("cpus", [DOCUMENT["cpus"][0]], "cpus: must be a list of 2"),
        ("cpus/0/frame", [0] * 5, "cpus: 0: frame: must have 128 entries"),
        ("cpus/0/answered", 0, "an answer to a frame that was not seen"),
        ("counters/calls/x", [1, 2], "counters: calls: x: nothing is known of it"),
        ("firmware/version", 99, "firmware: version: must be 2"),
        ("firmware/triggers/0/2", 7, "SDEI counts"),
        ("firmware/new", 1, "firmware: new: nothing is known of it"),
        ("firmware/epoch", 1e400, "epoch"),
        ("firmware/psci/power", [0, 1], "CPU 1 is on for SDEI, and OFF for PSCI"),
        ("firmware/psci/power/1", 7, "psci: power"),
        ("firmware/psci/entry", [None, [1 << 64, 0]], "psci: entry"),
        ("firmware/sdei/pes/1/affinity", 7, "affinity"),
        ("firmware/sdei/pes/0/frames", [], "contradict"),
        ("firmware/sdei/pes/0/events", [], "runs without being registered"),
        ("firmware/sdei/pes/0/frames/0/context", [0] * 3, "context: must have 20 entries"),
        ("firmware/sdei/pes/0/events/0/state", 1, "not a state|contradict"),
        ("firmware/sdei/bound", [], "interrupt"),
        ("firmware/gic/owned", [[27, 9, 0, 0]], "gic: owned: 0: must have 5 entries"),
        ("later", 1, "state document: later: nothing is known of it"),
        (
            "machine",
            {"cpu": "a"},
            "machine: nr_cpus, ram_base, ram_size, virtualization, window, window_version: missing",
        ),
        ("machine", [], "machine: must be an object"),
        ("waiting", {}, "waiting: must be a list"),
        ("waiting/0/ticket", "x" * 33, "waiting: 0: ticket: must have 1 to 32 characters"),
        ("waiting/0/pe", 2, "waiting: pe must be a number from 0 to 0x1"),
        ("waiting/0/entry_ns", 1 << 63, "waiting: 0: entry_ns"),
        ("waiting/0/event", None, "waiting: 0: event"),
    ],
)
def test_damage_is_refused(path: str, value: Any, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        load(change(path, value))


def test_two_handlers_of_one_class_are_refused() -> None:
    state = copy.deepcopy(DOCUMENT)
    frames = state["firmware"]["sdei"]["pes"][0]["frames"]
    frames.append(copy.deepcopy(state["firmware"]["sdei"]["pes"][1]["frames"][0]))
    with pytest.raises(ProtocolError, match=r"cannot preempt|runs twice"):
        load(state)


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["delete", "copy", "set"]), JUNK), min_size=1, max_size=3
    )
)
def test_random_damage(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    """It is refused with a reason; or what was changed means something else that can be, and the backend serves on."""
    state = copy.deepcopy(DOCUMENT)
    for path, how, junk in changes:
        damage_at(state, path, how, junk)
    with contextlib.suppress(ProtocolError):
        load(state)


def test_guest_ram_is_untouched_by_a_document_that_is_refused(tmp_path: Path) -> None:
    server = destination(2, tmp_path)
    state = change("firmware/sdei/pes/0/frames", [])
    state["services"] = [service.title for service in server.firmware.registry]
    state["firmware"]["services"] = {}
    with pytest.raises(ProtocolError):
        state_document.restore(server, state)
    assert not any(server.window.ram)


WITH_A_PROFILE = ROOT / "tests/backend/documents/v2-with-a-firmware-profile.json"
BUSY_WITH_THE_GIC = ROOT / "tests/backend/documents/v2-in-the-middle-of-taking-an-interrupt-over.json"


def test_the_page_is_all_of_it() -> None:
    """docs/reference/state-document.md names each key that is no id, function or service; and its tables no other."""
    page = (ROOT / "docs/reference/state-document.md").read_text().split("## What is refused")[0]
    state = copy.deepcopy(DOCUMENT)
    job = json.loads(BUSY_WITH_THE_GIC.read_text())["document"]["firmware"]["gic"]["jobs"][0]
    state["firmware"]["gic"]["jobs"] = [job]
    profile = json.loads(WITH_A_PROFILE.read_text())["document"]["firmware"]["misbehaviour"]
    state["firmware"]["misbehaviour"] = profile | {"kernel": [0, 0]}
    state["bad_pages"] = []
    state["firmware"]["id_registers"] = state["firmware"]["services"] = state["counters"]["calls"] = {}
    keys = {key for path in places(state) for key in path if isinstance(key, str)}
    assert len(keys) > 70
    assert not {key for key in keys if not re.search(rf"`[\w\[\].]*\b{key}(\[\])?`", page)}
    rows = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    paths = re.findall(r"`([a-z][a-z0-9_\[\].]*)`", rows)
    named = {name for path in paths for name in re.split(r"[\[\].]+", path) if name}
    assert named <= keys


def test_what_waits_is_answered_at_the_destination(tmp_path: Path) -> None:
    world = BoundWorld(tmp_path)
    world.boot()
    world.guest.smc(0, Function.PE_MASK)
    migrate(world, tmp_path / "there")
    assert world.guest.waiting(0)
    serve(world.server)
    assert world.guest.take(0)[3] == 1
    assert world.guest.window.frames[0][Word.DONE] == world.guest.window.seq[0]
