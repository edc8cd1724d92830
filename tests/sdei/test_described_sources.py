"""Error sources of a machine description: what is taken, what follows from what is left out, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.ras.source import Notify, Source, numbered
from qemu_sdei.sdei.machine_description import MachineDescription
from tests.sdei.test_machine_description import SOFTWARE, described

EVENTS = SOFTWARE + "".join(f'[[event]]\nnumber = {n}\nname = "e{n}"\n' for n in (5, 6))


def source(text: str) -> str:
    return f"[[source]]\n{text}\n"


def test_a_file_without_sources_has_one_for_each_event_that_is_for_errors() -> None:
    (found,) = MachineDescription.default().sources
    assert found == Source(name="ghes", event=0x324, id=0)
    assert (found.type, found.notify, found.block, found.raw, found.enabled) == (
        "ghes-v2", Notify.SDEI, 4096, 4096, True,
    )  # fmt: skip


def test_all_that_can_be_said_of_a_source(tmp_path: Path) -> None:
    text = EVENTS.replace('name = "e6"', 'name = "e6"\nacpi = "ghes"')
    text += source('name = "all"\nevent = 5\ntype = "ghes"\nid = 7\nblock = 65536\nraw = 12\nrecords = 3\nsections = 4')
    text += source('name = "abort"\nnotify = "sea"\nenabled = false')
    text += source('name = "line"\nnotify = "interrupt"\ninterrupt = 100\nid = 0')
    text += source('name = "slow"\nnotify = "polled"')
    profile = described(tmp_path, text)
    assert profile.sources == (
        Source(name="all", event=5, type="ghes", id=7, block=65536, raw=12, records=3, sections=4),
        Source(name="abort", notify=Notify.SEA, id=1, enabled=False),
        Source(name="line", notify=Notify.INTERRUPT, interrupt=100, id=0),
        Source(name="slow", notify=Notify.POLLED, poll_ms=1000, id=2),
        Source(name="e6", event=6, id=3),
    )
    assert profile.for_acpi("ghes") == (5, 6), "an event that a source names is one for errors"
    assert replace(profile, vendor=0).sources == profile.sources


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event = 5", "source entry 1: name must be 1..64"),
        ('name = "a\\u001b"\nevent = 5', "name must be 1..64 printable"),
        ('name = "a"', "notify is 'sdei', so it needs event"),
        ('name = "a"\nevent = 0', "event 0 cannot signal hardware errors"),
        ('name = "a"\nevent = 99', "there is no event 0x63"),
        ('name = "a"\nevent = "e5"', "event must be a whole number, not str"),
        ('name = "a"\nevent = true', "event must be a whole number, not bool"),
        ('name = "a"\nevent = 5\npoll = 3', "poll is for notify = 'polled', not 'sdei'"),
        ('name = "a"\nevent = 5\ninterrupt = 40', "interrupt is for notify = 'interrupt'"),
        ('name = "a"\nnotify = "sea"\nevent = 5', "event is for notify = 'sdei', not 'sea'"),
        ('name = "a"\nnotify = "interrupt"', "so it needs interrupt"),
        ('name = "a"\nnotify = "interrupt"\ninterrupt = 31', "interrupt is 0x1f, it must be from 32 to 1019"),
        ('name = "a"\nnotify = "polled"\npoll = 0', "poll is 0x0, it must be from 1"),
        ('name = "a"\nnotify = "nmi"', "notify must be one of sdei, sea, interrupt, external, polled"),
        ('name = "a"\nevent = 5\ntype = "v3"', "type must be one of ghes, ghes-v2"),
        ('name = "a"\nevent = 5\nblock = 19', "block is 0x13, it must be from 20 to 65536"),
        ('name = "a"\nevent = 5\nblock = 65537', "must be from 20 to 65536"),
        (f'name = "a"\nevent = 5\nblock = {1 << 200}', "block is .too long to print"),
        ('name = "a"\nevent = 5\nraw = -1', "raw cannot be negative"),
        ('name = "a"\nevent = 5\nid = 65535', "id is 0xffff, it must be from 0 to 65534"),
        ('name = "a"\nevent = 5\nrecords = 0', "records is 0x0"),
        ('name = "a"\nevent = 5\nenabled = 1', "enabled must be true or false, not int"),
        ('name = "a"\nevent = 5\nsize = 1', "unknown key 'size' .known: name, type, notify, event"),
        ('name = "a"\nevent = 5\n[[source]]\nname = "a"\nnotify = "sea"', "name 'a' is that of source 'a' already"),
        ('name = "a"\nevent = 5\n[[source]]\nname = "b"\nevent = 5', "event 0x5 is that of source 'a' already"),
        ('name = "a"\nevent = 5\nid = 1\n[[source]]\nname = "b"\nevent = 6\nid = 1', "id 1 is that of source 'a'"),
    ],
)
def test_what_a_source_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        described(tmp_path, EVENTS + source(text))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("machine description ")


def test_agdis_event_and_other_forms_are_refused(tmp_path: Path) -> None:
    agdi = EVENTS.replace('name = "e5"', 'name = "e5"\nacpi = "agdi"')
    with pytest.raises(UsageError, match=r"event 0x5 \(e5\) is for AGDI"):
        described(tmp_path, agdi + source('name = "a"\nevent = 5'))
    with pytest.raises(UsageError, match=r"source: sources are written as \[\[source\]\]"):
        described(tmp_path, "source = 1\n" + EVENTS)


def test_ids_that_are_free_are_given_out_and_there_is_a_limit() -> None:
    sources = [Source(name=str(n), event=n + 1) for n in range(3)]
    assert [each.id for each in numbered([replace(sources[0], id=1), *sources[1:]])] == [1, 0, 2]
    with pytest.raises(UsageError, match="1025 error sources are too many"):
        numbered(Source(name=str(n), event=n + 1) for n in range(1025))
