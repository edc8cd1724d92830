"""The JSON Schema of the state document: what a backend writes fits it, and what does not fit it a backend refuses.

Where the backend refuses what fits, it is for one of the reasons that the page names.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei import json_schema
from qemu_sdei.backend.control import document_schema, state_document
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.firmware.gic import LAST_SPI
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.config import MAX_RAM
from qemu_sdei.errors import NotDeliveredError, ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.sdei.constants import Function
from tests.backend import test_bound_state, test_crash
from tests.backend.handed_over import destination, machine, taken
from tests.backend.schema import DIALECT, PATH, SCHEMA, at, refusal, subschemas
from tests.backend.simulated import SimulatedGuest
from tests.backend.test_bound import ALARM, TIMER, BoundWorld, P, S
from tests.backend.test_document import CORPUS, DOCUMENT
from tests.sdei.test_state_fuzz import places

PAGE = PATH.with_name("state-document.md").read_text()


def test_it_is_a_schema() -> None:
    """Known keywords only, with values that they may have; every reference leads somewhere, nothing is left over."""
    fastjsonschema.validate(DIALECT, SCHEMA)
    parts = list(subschemas())
    named = {part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part}
    assert named == SCHEMA["definitions"].keys()
    for part in parts:
        assert set(part.get("required", ())) <= part.get("properties", {}).keys()
    assert len(parts) > 200


def test_only_what_is_said_to_be_may_be_missing_or_is_open() -> None:
    optional = {
        name for part in subschemas() for name in part.get("properties", {}) if name not in part.get("required", [name])
    }
    assert optional == {
        "bad_pages",
        "booting",
        "kernel",
        "kernels",
        "misbehaviour",
        "notices",
        "selection",
        "serves_sdei",
        "silent",
        "triggers",
    }
    assert all(re.search(rf"^\| [^|]*`{name}`.*May be missing", PAGE, re.M) for name in optional)
    closed = {"additionalProperties", "maxProperties"}
    open_objects = [part for part in subschemas() if part.get("type") == "object" and not closed & part.keys()]
    assert open_objects == [at("definitions/firmware/properties/services")]


def test_the_page_is_the_form_that_the_backend_checks() -> None:
    """Declared once; `scripts/docgen.py` prints it."""
    assert json.loads(json.dumps(document_schema.SCHEMA)) == SCHEMA


def test_limits_can_be_read() -> None:
    """Numbers that a reader of the page would look for."""
    assert at("definitions/cpu/properties/frame/maxItems") == layout.FRAME_WORDS
    assert at("definitions/machine/properties/ram_size/maximum") == MAX_RAM
    versions = at("definitions/machine/properties/window_version")
    assert (versions["minimum"], versions["maximum"]) == (layout.OLDEST, layout.VERSION)
    assert at("definitions/sdei/properties/bound/items/anyOf/1/items/1/maximum") == LAST_SPI
    assert at("definitions/state/enum") == [1, 3, 4, 5, 7]


# What is written fits


class WrittenDown:
    """What was seen of a guest whose state was taken again and again, each time checked."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.count = 0

    def take(self, server: Server) -> None:
        if server.firmware.exchange.busy:
            return
        state = taken(server)
        assert refusal(state) is None
        self.count += 1
        firmware = state["firmware"]
        pes, gic = firmware["sdei"]["pes"], firmware["gic"]
        for entry in [*firmware["sdei"]["shared"], *(entry for pe in pes for entry in pe["events"])]:
            self.seen |= {f"state {entry['state']}", f"pending {entry['pending']}"}
        self.seen |= {f"power {power}" for power in firmware["psci"]["power"]}
        self.seen |= {f"handlers {len(pe['frames'])}" for pe in pes} | {f"masked {pe['masked']}" for pe in pes}
        self.seen |= {name for name in ("owned", "spis", "settling", "quieting", "jobs") if gic[name]}
        self.seen |= {name for job in gic["jobs"] for name in ("looking", "registering", "waits", "todo") if job[name]}


class Taken(test_crash.World):
    """A guest whose state is taken whenever its backend was about to do something, and when it has done it."""

    written: WrittenDown

    def do(self, what: Callable[[Server], Any]) -> bool:
        self.written.take(self.server)
        what(self.server)
        self.written.take(self.server)
        return True


class TakenWorld(Taken, BoundWorld):
    """The same, with a GIC."""

    def __init__(self, directory: Path, written: WrittenDown) -> None:
        self.written = written
        super().__init__(directory)


def test_all_states_of_a_guest_fit(tmp_path: Path) -> None:
    written = WrittenDown()
    for name in ("bound", "plain", "middle"):
        (tmp_path / name).mkdir()
    test_bound_state.scenario(TakenWorld(tmp_path / "bound", written))
    plain = Taken(tmp_path / "plain", test_crash._Kill(-1))
    plain.written = written
    test_crash.scenario(plain)
    written.take(test_bound_state.in_the_middle(tmp_path / "middle").server)
    assert written.count > 200
    assert written.seen >= {
        *(f"state {state}" for state in (1, 3, 4, 7)),
        *("pending True", "masked True", "handlers 1", "power 0", "power 1", "power 2"),
        *("owned", "spis", "settling", "quieting", "jobs", "looking", "registering", "waits"),
    }


CALLS = st.tuples(
    st.sampled_from([f for f in Function if f not in (Function.EVENT_COMPLETE_AND_RESUME, Function.SHARED_RESET)]),
    st.sampled_from([0, P, S, 256, 259, 512, 514, 804, TIMER, ALARM]),
)
STEPS = st.one_of(CALLS, st.sampled_from(["timer", "alarm", "trigger"]))


@settings(max_examples=4)
@given(st.lists(st.tuples(st.sampled_from([0, 1]), STEPS), min_size=15, max_size=25))
def test_any_state_fits(steps: list[tuple[int, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = TakenWorld(Path(name), WrittenDown())
        world.boot()
        for pe, event in ((0, 0), (0, 259), (1, 0), (1, P), (0, S), (1, 514)):
            world.enable(pe, event)
        for pe, step in steps:
            if step == "trigger":
                with contextlib.suppress(NotDeliveredError):
                    world.server.trigger(0, pe)
                world.kicks()
            elif isinstance(step, str):
                world.interrupt(TIMER if step == "timer" else ALARM, pe)
            elif step[0] == Function.EVENT_REGISTER:
                world.call(pe, step[0], step[1], 0x4300_0000, 7, pe, pe)
            else:
                world.call(pe, step[0], step[1])
            world.kicks()


@pytest.mark.parametrize("nr_cpus", [1, 256, 512])
def test_any_number_of_cpus_fits(nr_cpus: int, tmp_path: Path) -> None:
    assert refusal(taken(destination(nr_cpus, tmp_path))) is None


@pytest.mark.parametrize("more", [{"sdei": False}, {"client_el": 2}])
def test_other_firmwares_fit(more: dict[str, Any], tmp_path: Path) -> None:
    server = SimulatedGuest(2, tmp_path).server()
    server.firmware = Firmware(2, **more)
    state = taken(server)
    assert "sdei" in state["services"] or more == {"sdei": False}
    assert refusal(state) is None


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_stored_documents(file: Path) -> None:
    """The schema is that of one version."""
    state = json.loads(file.read_text())["document"]
    assert (refusal(state) is None) is (state["version"] == state_document.VERSION)


# What does not fit is refused

JUNK: Any = [None, True, False, -1, 0, 1, 2, 5, 8, 1 << 64, 10**400, 1.5, "", "x", [], {}, [[]]]
OTHER_GUEST = (
    r"of another machine|other services|of a machine with other CPUs|with(out)? SDEI|another client EL|another affinity"
    r"|another machine description|must be (a list of|a number for each CPU)|psci: \w+ must be|\d PEs, this machine has"
    r"|an event that this machine does not have|routed to a PE that does not exist|KeyError\('adder'\)"
    r"|waiting: pe must be|(gic state:|notices: one) of a CPU that is not there|numbers of -?[01] to|no interrupt that"
    r"|not what this firmware has"
)
CONTRADICTION = (
    r"a frame that was not seen|accepted must be|there twice|contradict|without (a bound|being registered)"
    r"|cannot preempt|is on for SDEI|above the client EL|runs (twice|on a PE)"
    r"|the operator does nothing|waiting: entry_ns"
    r"|does not follow|has no answer|of another CPU|off for SDEI|is to start at|has not booted|while the machine boots"
    r"|features: the CPUs|wait by their numbers|never triggered|more handlers were|in two exchanges|nobody is to see to"
    r"|is not owned|not owned$|not the operator|which no answer has|no event is registered|is quiet, and|same ticket"
    r"|there is no event|no micro-operation|not aligned|have the same number"
)


def damages(state: Any, path: tuple[Any, ...], junk: list[Any]) -> Iterator[tuple[str, Any]]:
    """Damage one place, each time put right again: what was done, and the junk that is there now."""
    *way, last = path
    node = state
    for key in way:
        node = node[key]
    value = node[last]
    for new in junk:
        node[last] = new
        yield "set", new
        node[last] = value
    if isinstance(node, list):
        del node[last]
        yield "delete", None
        node.insert(last, value)
        node.append(value)
        yield "append", None
        node.pop()
    else:
        items = list(node.items())
        del node[last]
        yield "delete", None
        node.clear()
        node.update(items)
        node[f"{last}2"] = value
        yield "rename", None
        del node[f"{last}2"]


def interesting(state: Any, under: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places but the words of frames and contexts, which are all the same."""
    return [
        path
        for path in places(state)
        if path[: len(under)] == under and not (path[-1] not in (0, 1) and path[-2:-1] in (("frame",), ("context",)))
    ]


checked = json_schema.compiled(document_schema.SCHEMA)


def misfit(state: Any) -> str | None:
    """Why the backend's own check of the form refuses a document; None: it does not."""
    try:
        checked(state)
    except json_schema.MisfitError as error:
        return str(error)
    return None


def compare(state: Any, paths: list[tuple[Any, ...]], server: Server, every: int) -> int:
    """Damage `state` there with every so-manieth junk; the schema's and the backend's answers must be as said above.
    Returns how many damages neither takes.
    """
    both = 0
    for number, path in enumerate(paths):
        for how, junk in damages(state, path, JUNK[number % every :: every]):
            server.guest.machine = machine(2)
            try:
                state_document.prepare(server, state)
                reason = None
            except ProtocolError as error:
                reason = str(error)
            form = refusal(state)
            assert (form is None) is (misfit(state) is None), f"{path} {how} {junk!r:.40}: {form}; {misfit(state)}"
            where = f"{path} {how} {junk!r:.40}: schema: {form}; backend: {reason}"
            if reason is None:
                assert form is None, where
            elif form is None:
                assert re.search(f"{OTHER_GUEST}|{CONTRADICTION}", reason), where
            else:
                both += 1
    return both


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_what_does_not_fit_is_refused(every: int, tmp_path: Path) -> None:
    """And what fits and is refused all the same is of another guest, or contradicts itself."""
    (tmp_path / "middle").mkdir()
    middle = taken(test_bound_state.in_the_middle(tmp_path / "middle").server)
    server = BoundWorld(tmp_path).server
    state = json.loads(json.dumps(DOCUMENT))
    assert compare(state, interesting(state), server, every) > 400
    assert compare(middle, interesting(middle, ("firmware", "gic")), server, every) > 100
    assert state == DOCUMENT


def test_a_whole_number_with_a_point_fits_and_is_refused(tmp_path: Path) -> None:
    """To JSON Schema 1.0 is an integer. The page says so."""
    state = json.loads(json.dumps(DOCUMENT))
    state["firmware"]["epoch"] = float(state["firmware"]["epoch"])
    assert refusal(state) is None
    with pytest.raises(ProtocolError, match="epoch"):
        state_document.prepare(BoundWorld(tmp_path).server, state)
    assert "`1.0`" in PAGE


SDEI = "firmware/sdei"
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("an entry point that is not aligned", {f"{SDEI}/shared/0/entry": 0x4300_0002}),
    ("an entry point between the halves", {f"{SDEI}/shared/0/entry": 1 << 52}),
    ("the same, at the upper one", {f"{SDEI}/shared/0/entry": (0xFFF << 52) - 4}),
    ("pending while it is unregistered", {f"{SDEI}/shared/0/state": 4, f"{SDEI}/shared/0/pending": True}),
    ("off and not masked", {f"{SDEI}/pes/0/on": False, f"{SDEI}/pes/0/frames": [], f"{SDEI}/pes/0/events": []}),
    ("off and with events", {f"{SDEI}/pes/0/on": False, f"{SDEI}/pes/0/frames": [], f"{SDEI}/pes/0/masked": True}),
    ("off and with handlers", {f"{SDEI}/pes/0/on": False, f"{SDEI}/pes/0/events": [], f"{SDEI}/pes/0/masked": True}),
    ("an SPI in a private slot", {f"{SDEI}/bound/0": [P, ALARM]}),
    ("an SPI that there is not", {f"{SDEI}/bound/1": [S, LAST_SPI + 1]}),
    ("a PPI without a CPU", {"firmware/gic/owned/0": [TIMER, -1, 0, 1, 0]}),
    ("an SPI of a CPU", {"firmware/gic/owned/2": [ALARM, 1, 0, 1, 0]}),
    ("a function id that is not a number", {"counters/calls/-": [0, 0]}),
    ("more frames answered than there can be", {"cpus/0/answered": (1 << 47) + 1}),
    ("a stranger's format", {f"{SDEI}/format": "sdei"}),
    ("half the ID registers", {"firmware/id_registers": {"MIDR_EL1": 0}}),
]


@pytest.mark.parametrize(("what", "changes"), FORMS, ids=[what for what, _ in FORMS])
def test_forms(what: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Each is refused by both."""
    state = json.loads(json.dumps(DOCUMENT))
    assert refusal(state) is None
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        node = state
        for key in way:
            node = node[key]
        node[last] = value
    assert refusal(state) is not None, what
    server = BoundWorld(tmp_path).server
    server.guest.machine = machine(2)
    with pytest.raises(ProtocolError):
        state_document.prepare(server, state)
