"""`qemu-sdei ras fuzz`, with a kernel that is made of a few lines in place of a guest's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from qemu_sdei import rundir
from qemu_sdei.cli.signals import Terminated
from qemu_sdei.errors import UsageError
from qemu_sdei.fuzzing import copies
from qemu_sdei.fuzzing import target as targets
from qemu_sdei.fuzzing.verdicts import Observed
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.ras.any_record import Shape
from tests.cli.conftest import Command
from tests.fuzzing import consoles

Ran = Callable[..., tuple[int, str, str]]
SOURCES = [
    {"name": "memory", "ready": True, "reason": None, "block": 4096},
    {"name": "spare", "ready": False, "reason": "event 0x325 is not registered", "block": 4096},
]


class Target:
    """A guest whose kernel believes lengths; see `tests/fuzzing/test_campaign.py`."""

    instances: ClassVar[list[Target]] = []
    ends_at = -1
    good = False

    def __init__(self, state: Path, **options: Any) -> None:
        assert options["source"] != "gone"
        self.state = state
        self.options = options
        self.shape = Shape()
        self.kernel = "Linux 0.0.0-toy"
        self.source = SOURCES[0]
        self.restored = 0
        self.restore_seconds = 0.0
        self.cases = 0
        self.instances.append(self)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def restore(self) -> None:
        self.restored += 1
        self.restore_seconds += 0.5

    def show(self, data: bytes, *, alone: bool = False) -> Observed:
        self.cases += 1
        if self.cases == self.ends_at:
            raise Terminated(2)
        if not self.good and int.from_bytes(data[44:48], "little") > 0x10_0000:
            return Observed(consoles.DIED, alive=False, completed=False)
        return Observed("", taken=True)


@pytest.fixture
def ran(command: Command) -> Ran:
    """Run the command; its exit code, and what it said."""

    def run(*words: str) -> tuple[int, str, str]:
        done = command(*words)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Target]:
    """There is a guest `a`, and what is told of it goes to a `Target`."""
    saved: list[Path] = []

    def find(name: str) -> Any:
        if name != "a":
            raise UsageError(f"there is no guest {name!r}")
        return SimpleNamespace(name="a", control=tmp_path / "control", identity="")

    def save(guest: Any, path: Path) -> None:
        path.mkdir()
        saved.append(path)

    monkeypatch.setattr(rundir, "find", find)
    monkeypatch.setattr(copies, "save_running", save)
    monkeypatch.setattr(targets, "Target", Target)
    monkeypatch.setattr(ControlClient, "ras_sources", lambda self: SOURCES)
    monkeypatch.setattr(Target, "instances", [])
    monkeypatch.chdir(tmp_path)
    return Target


def test_findings_are_told_and_kept(ran: Ran, toy: type[Target], tmp_path: Path) -> None:
    code, out, err = ran("ras", "fuzz", "a", "--seed", "9", "--count", "200", "-q")
    assert code == 1, err
    assert re.search(r"^200 cases: \d+ a minute, \d+ times restored in 0\.5 s each", out, re.MULTILINE)
    assert "seed 9, source 'memory', Linux 0.0.0-toy" in out
    counts = {name: int(count) for name, count in re.findall(r"^(\S+) +(\d+)$", out, re.MULTILINE)}
    assert sum(counts.values()) == 200
    assert counts["logged"] > 100
    assert re.search(r"^finding 1: panic, \d+ times: Unable to handle kernel paging request", out, re.MULTILINE)
    assert "in print_things < print_section" in out
    assert "ras-fuzz-9/finding-1.json" in out
    assert all(len(line) < 300 for line in out.splitlines())
    kept = tmp_path / "ras-fuzz-9"
    assert sorted(path.name for path in kept.iterdir()) == [
        "campaign.json", "finding-1.json", "finding-1.record.json",
    ]  # fmt: skip
    # The line for `ras inject` has the record, and what is wrong with it.
    line = next(line for line in out.splitlines() if "ras inject" in line)
    assert re.search(r"ras inject NAME --record \S+finding-1\.record\.json --malform ", line)

    code, out, err = ran("ras", "fuzz", "a", "--replay", str(kept / "finding-1.json"), "-q")
    assert (code, err) == (1, "")
    assert out == (
        "panic: Unable to handle kernel paging request at virtual address ffff80008123f000; the same as was found\n"
    )
    toy.good = True
    try:
        code, out, err = ran("ras", "fuzz", "a", "--replay", str(kept / "finding-1.json"), "-q", "--json", "-")
    finally:
        toy.good = False
    assert (code, json.loads(out)) == (0, {"verdict": "logged", "key": "", "same": False, "title": ""})


def test_it_goes_on_by_the_same_seed(ran: Ran, toy: type[Target], tmp_path: Path) -> None:
    code, out, _ = ran("ras", "fuzz", "a", "--seed", "9", "--count", "80", "--keep", "kept", "-q")
    assert code == 1
    assert "go on: qemu-sdei ras fuzz --resume" in out
    code, out, err = ran("ras", "fuzz", "--resume", "kept", "--count", "120", "-q", "--json", "-")
    assert (code, err) == (1, "")
    again = json.loads(out)
    assert toy.instances[-1].state == tmp_path / "kept" / "state"
    assert toy.instances[-1].options["trust"] is False
    code, out, _ = ran("ras", "fuzz", "a", "--seed", "9", "--count", "200", "-q", "--json", "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    for each in (again, whole):
        for name in ("seconds", "per_minute", "restored"):
            del each[name]
    assert again == whole
    assert whole["cases"] == whole["next"] == 200


def test_nothing_found(ran: Ran, toy: type[Target], tmp_path: Path) -> None:
    toy.good = True
    try:
        code, out, err = ran("ras", "fuzz", "a", "--count", "5", "-q")
    finally:
        toy.good = False
    assert (code, err) == (0, "")
    assert "nothing was found" in out
    assert [path.name for path in tmp_path.iterdir()] == [], "nothing is kept that nobody asked for"


def test_ctrl_c_ends_with_what_was_found(
    ran: Ran, toy: type[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "ends_at", 150)
    code, out, _ = ran("ras", "fuzz", "a", "--seed", "9", "--keep", "kept", "-q")
    assert code == 130
    assert "cases, ended early: " in out
    assert "finding 1: panic" in out
    assert (tmp_path / "kept" / "finding-1.json").exists()


REFUSED: dict[str, tuple[str, ...]] = {
    "say which guest": ("--count", "1"),
    "there is no guest 'b'": ("b",),
    "--count must be more than 0": ("a", "--count", "0"),
    "--minutes must be more than 0": ("a", "--minutes", "nan"),
    "--seed must be": ("a", "--seed", "-1"),
    "--fatal must be": ("a", "--fatal", "101"),
    "--hang-after must be": ("a", "--hang-after", "0"),
    "the guest has no error source 'disk'; it has memory, spare": ("a", "--source", "disk"),
    "by source 'spare': event 0x325 is not registered": ("a", "--source", "spare"),
    "--resume cannot be combined with": ("a", "--resume", "x"),
    "--trust needs --resume": ("a", "--trust"),
    "campaign.json": ("--resume", "nowhere"),
    "nowhere.json cannot be read": ("a", "--replay", "nowhere.json"),
    "has a run already": ("a", "--keep", "used"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be(ran: Ran, toy: type[Target], tmp_path: Path, words: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "campaign.json").write_text("{}")
    code, out, err = ran("ras", "fuzz", *REFUSED[words])
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not toy.instances
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_seed_that_is_another_one(ran: Ran, toy: type[Target]) -> None:
    ran("ras", "fuzz", "a", "--seed", "9", "--count", "1", "--keep", "kept", "-q")
    code, _, err = ran("ras", "fuzz", "--resume", "kept", "--seed", "10")
    assert code == 2
    assert "has seed 9" in err


def test_a_finding_that_is_larger_than_the_source(ran: Ran, toy: type[Target], monkeypatch: pytest.MonkeyPatch) -> None:
    ran("ras", "fuzz", "a", "--seed", "9", "--count", "200", "-q")
    small: Callable[..., None] = toy.__init__

    def shrunk(self: Target, state: Path, **options: Any) -> None:
        small(self, state, **options)
        self.shape = Shape(size=24)

    monkeypatch.setattr(toy, "__init__", shrunk)
    code, _, err = ran("ras", "fuzz", "a", "--replay", "ras-fuzz-9/finding-1.json", "-q")
    assert code == 2
    assert "the source takes 24" in err
