"""The command line's compatibility switches on top of a machine description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.sdei import MachineDescription
from qemu_sdei.sdei.switches import description_of

TF_A = {"sdei_version": "1.0", "sdei_vendor": 0, "sdei_signal": "invalid", "sdei_slots": (2, 3)}


def config(**changes: Any) -> GuestConfig:
    return GuestConfig(name="guest", nr_cpus=2, cpu="cortex-a72", ram_size=1 << 30, **changes)


def test_without_switches_it_is_the_description() -> None:
    assert description_of(config()) == MachineDescription.default()


def test_all_of_them_through_the_file() -> None:
    """Also as `guest.json` carries them to the backend."""
    for given in (config(**TF_A), GuestConfig.from_json(config(**TF_A).to_json())):
        profile = description_of(given)
        assert (profile.version, profile.vendor, profile.strict_signal, profile.slots) == ((1, 0), 0, True, (2, 3))
        assert profile.events == MachineDescription.default().events


def test_they_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "events.toml"
    file.write_text(
        '[sdei]\nversion = "1.0"\nvendor = 7\nsignal = "invalid"\n[slots]\nprivate = 1\nshared = 2\n'
        '[[event]]\nnumber = 0\nname = "zero"\nsignalable = true\n'
    )
    profile = description_of(config(events=str(file), sdei_signal="pend"))
    assert (profile.version, profile.vendor, profile.strict_signal, profile.slots) == ((1, 0), 7, False, (1, 2))
    assert [event.name for event in profile.events] == ["zero"]


@pytest.mark.parametrize(
    ("switch", "what"),
    [
        ({"sdei_version": "1"}, r"MAJOR\.MINOR"),
        ({"sdei_version": "40000.0"}, "major is 0..32767"),
        ({"sdei_vendor": 1 << 32}, "does not fit in 32 bits"),
        ({"sdei_vendor": -1}, "does not fit in 32 bits"),
        ({"sdei_signal": "drop"}, "one of pend, invalid"),
        ({"sdei_slots": (5, 8)}, "private is 0..4"),
        ({"sdei_slots": (4, 65)}, "shared is 0..64"),
    ],
)
def test_what_cannot_be_is_told(switch: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        description_of(config(**switch))
    assert "\n" not in str(error.value)
