"""The machine description: the default, and every way to get one wrong."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from qemu_sdei import sdei
from qemu_sdei.errors import UsageError
from qemu_sdei.sdei import Dispatcher, EventDescription, EventType, MachineDescription, Priority

ZERO = '[[event]]\nnumber = 0\nname = "zero"\nsignalable = true\n'


def load(tmp_path: Path, text: str | bytes) -> MachineDescription:
    """A profile from `text`."""
    path = tmp_path / "machine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return MachineDescription.load(path)


def test_default() -> None:
    """What is there without being asked for."""
    profile = MachineDescription.default()
    kinds = {(event.type, event.priority) for event in profile.events}
    assert len(kinds) == 4, "private and shared, normal and critical"
    assert [event.number for event in profile.events if event.signalable] == [0]
    assert (profile.version, profile.vendor, profile.slots) == ((1, 1), 0x4B564D, (4, 8))
    ghes = profile.find("ghes")
    assert ghes is not None
    assert (ghes.number, ghes.type) == (804, EventType.SHARED)
    assert profile.find("nonesuch") is None


def test_services(tmp_path: Path) -> None:
    """Those that a guest finds, as `run --services` has them."""
    assert load(tmp_path, ZERO).selection == ()
    found = load(tmp_path, '[services]\nstd = ["trng", "sdei"]\nvendor-hyp = []\n' + ZERO).selection
    assert found == ("std=trng,sdei", "vendor-hyp=")


def test_load(tmp_path: Path) -> None:
    """Everything that can be written."""
    profile = load(
        tmp_path,
        '[sdei]\nversion = "1.0"\nvendor = 0\nsignal = "invalid"\n[slots]\nprivate = 2\nshared = 0\n'
        + ZERO
        + '[[event]]\nnumber = 0x40000001\nname = "ras"\ntype = "shared"\npriority = "critical"\nsignalable = false\n',
    )
    assert (profile.version, profile.vendor, profile.strict_signal) == ((1, 0), 0, True)
    assert profile.slots == (2, 0)
    assert profile.agdi_interrupt is None
    assert profile.events == (
        EventDescription(0, "zero", signalable=True),
        EventDescription(0x4000_0001, "ras", EventType.SHARED, Priority.CRITICAL),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "event 0 is missing"),
        (ZERO + "[agdi]\ninterrupt = 31\n", r"\[agdi\] interrupt: 0x1f is not an SPI: they are 32 to 1019"),
        (ZERO + "[agdi]\ninterrupt = true\n", r"\[agdi\] interrupt must be a whole number"),
        (ZERO + "[agdi]\nevent = 1\n", r"\[agdi\]: unknown key 'event'"),
        ('[[event]]\nnumber = 1\nname = "one"\n', "event 0 is missing"),
        ('[[event]]\nnumber = 0\nname = "z"\ntype = "shared"\n', r"event 0 \(z\) must be private"),
        ('[[event]]\nnumber = 0\nname = "z"\n', r"event 0 \(z\) must be signalable"),
        (ZERO + '[[event]]\nnumber = 0\nname = "again"\n', r"event 0x0 \(again\): the number is taken by 'zero'"),
        (ZERO + '[[event]]\nnumber = 7\nname = "zero"\n', "event 0x7: the name 'zero' is taken by event 0x0"),
        (ZERO + '[[event]]\nnumber = 0x80000000\nname = "big"\n', "0x80000000 is outside"),
        (ZERO + '[[event]]\nnumber = -1\nname = "minus"\n', "-0x1 is outside"),
        (ZERO + f'[[event]]\nnumber = 0x1{"0" * 200}\nname = "huge"\n', "too long to print"),
        (ZERO + f'[[event]]\nnumber = 1{"0" * 5000}\nname = "huge"\n', "not valid TOML"),
        (ZERO + '[[event]]\nnumber = "7"\nname = "text"\n', "event entry 2: number must be a whole number, not str"),
        (ZERO + '[[event]]\nnumber = true\nname = "bool"\n', "must be a whole number, not bool"),
        (ZERO + '[[event]]\nname = "none"\n', "event entry 2: number is missing"),
        (ZERO + "[[event]]\nnumber = 7\n", "event 0x7: name must be"),
        (ZERO + '[[event]]\nnumber = 7\nname = ""\n', "event 0x7: name must be"),
        (ZERO + '[[event]]\nnumber = 7\nname = "a\\nb"\n', "event 0x7: name must be"),
        (
            ZERO + '[[event]]\nnumber = 7\nname = "x"\ntype = "global"\n',
            "event 0x7: type must be one of private, shared",
        ),
        (
            ZERO + '[[event]]\nnumber = 7\nname = "x"\npriority = 1\n',
            "event 0x7: priority must be one of normal, critical",
        ),
        (ZERO + '[[event]]\nnumber = 7\nname = "x"\nsignalable = 1\n', "event 0x7: signalable must be true or false"),
        (
            ZERO + '[[event]]\nnumber = 7\nname = "x"\ntype = "shared"\nsignalable = true\n',
            "event 0x7 .*only a private event can be signalable",
        ),
        (ZERO + '[[event]]\nnumber = 7\nname = "x"\nprio = "normal"\n', "event 0x7: unknown key 'prio'"),
        (ZERO + "[other]\n", "top level: unknown key 'other'"),
        ("event = 3\n", r"written as \[\[event\]\]"),
        ("event = [1]\n", r"written as \[\[event\]\]"),
        ("sdei = 3\n" + ZERO, r"sdei: must be a table"),
        ("[sdei]\ncolour = 1\n" + ZERO, r"\[sdei\]: unknown key 'colour'"),
        ("[sdei]\nversion = 1.1\n" + ZERO, "version must be a string"),
        ('[sdei]\nversion = "1"\n' + ZERO, "version must be a string"),
        ('[sdei]\nversion = "1.x"\n' + ZERO, "version must be a string"),
        ('[sdei]\nversion = "99999.0"\n' + ZERO, "version: major is"),
        ("[sdei]\nvendor = 0x100000000\n" + ZERO, "does not fit in 32 bits"),
        ("[slots]\nprivate = 5\n" + ZERO, r"slots: private is 0\.\.4"),
        ("[slots]\nshared = -1\n" + ZERO, r"slots: shared is 0\.\.64"),
        (ZERO + '[[event]]\nnumber = 0x40ff0003\nname = "mine"\n', r"event 0x40ff0003 \(mine\): .* a slot"),
        (ZERO + '[[event]]\nnumber = 7\nname = "bound-shared-0"\n', "event 0x7: the name 'bound-shared-0' is that of"),
        ("services = 3\n" + ZERO, r"services: must be a table"),
        ("[services]\npsci = []\n" + ZERO, r"\[services\] psci=: write REGISTER"),
        ('[services]\nstd = ["ptp"]\n' + ZERO, "std has no ptp; it has sdei, trng"),
        ('[services]\nstd = "trng"\n' + ZERO, r"\[services\] std: must be a list of words"),
        ("[services]\nstd = [1]\n" + ZERO, r"\[services\] std: must be a list of words"),
        ("[services]\nstd = [" + '"trng",' * 99 + "]\n" + ZERO, "too long"),
        ("[sdei\n", "not valid TOML: .*line 1"),
        (b"\xff\xfe", "not UTF-8"),
        ("x = " + "[" * 100_000, "not valid TOML"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, message: str) -> None:
    """One line that names the file and what is wrong."""
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path, text)
    assert "machine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable(tmp_path: Path) -> None:
    """No such file, a directory."""
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        MachineDescription.load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        MachineDescription.load(tmp_path)


@pytest.mark.parametrize(
    ("affinities", "client_el", "message"),
    [
        ([], 1, "at least one PE"),
        ([1, 0x8000_0001], 1, "same affinity"),
        ([0], 3, "client EL 3"),
        ([0], 0, "client EL"),
    ],
)
def test_dispatcher_refuses_nonsense(affinities: list[int], client_el: int, message: str) -> None:
    """A machine that cannot be."""
    with pytest.raises(UsageError, match=message):
        Dispatcher(MachineDescription.default(), affinities, client_el=client_el)


SOFTWARE = '[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n'


def described(tmp_path: Path, text: str) -> MachineDescription:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    return MachineDescription.load(path)


def test_events_that_acpi_tables_name(tmp_path: Path) -> None:
    text = SOFTWARE
    for number, purpose in ((5, "ghes"), (9, "agdi"), (7, "ghes")):
        text += f'[[event]]\nnumber = {number}\nname = "e{number}"\nacpi = "{purpose}"\n'
    profile = described(tmp_path, text)
    assert profile.for_acpi("ghes") == (5, 7)
    assert profile.for_acpi("agdi") == (9,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOFTWARE + 'acpi = "ghes"\n', "event 0 .*ACPI tables cannot name it"),
        (SOFTWARE + '[[event]]\nnumber = 1\nname = "a"\nacpi = "sdei"\n', "acpi must be one of ghes, agdi"),
        (SOFTWARE + '[[event]]\nnumber = 1\nname = "a"\nacpi = 1\n', "acpi must be one of ghes, agdi"),
        (
            SOFTWARE + "".join(f'[[event]]\nnumber = {n}\nname = "e{n}"\nacpi = "agdi"\n' for n in (1, 2)),
            "2 events are for AGDI, not one",
        ),
    ],
)
def test_what_acpi_tables_cannot_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        described(tmp_path, text)


def test_the_former_names_warn() -> None:
    with pytest.warns(DeprecationWarning, match="MachineDescription now"):
        former = importlib.import_module("qemu_sdei.sdei.profile")
    with pytest.warns(DeprecationWarning, match="MachineDescription now"):
        assert former.Profile is sdei.Profile is MachineDescription
