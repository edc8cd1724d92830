"""How far each option goes with its guest: to another host, into a saved directory, to who takes it over."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest

from qemu_sdei import codec
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.vm import travelling
from qemu_sdei.vm.options import Goes, GuestOptions, Travel, rooted, travel
from qemu_sdei.vm.plan import Plan


def metadata(goes: Goes, **more: Any) -> MappingProxyType[str, Travel]:
    return MappingProxyType({"travel": Travel(goes, **more)})


@dataclass(frozen=True, kw_only=True)
class MoreOptions(GuestOptions):
    """What a new option takes: its declaration."""

    speed: Literal["slow", "fast"] = field(default="slow", metadata=metadata(Goes.EVERYWHERE))
    tap: str | None = field(default=None, metadata=metadata(Goes.SAVED))
    levels: tuple[int, int] | None = field(
        default=None, metadata=metadata(Goes.EVERYWHERE, may_be=lambda value: value is None or value[0] < value[1])
    )
    once: bool = field(default=False, metadata=metadata(Goes.NOWHERE))
    log: str | None = field(
        default=None, metadata=metadata(Goes.SAVED, roots=lambda value: value and str(Path(value).absolute()))
    )


@dataclass(frozen=True)
class MorePlan(Plan):
    options: MoreOptions


@dataclass(frozen=True, kw_only=True)
class Mute(GuestOptions):
    mute: bool = False


MORE = MoreOptions(speed="fast", tap="tap0", levels=(1, 2), once=True, log="/var/log/guest")


def sent(data: dict[str, Any]) -> Any:
    return json.loads(json.dumps(data))


def test_every_option_says_how_far_it_goes() -> None:
    for option in fields(GuestOptions):
        assert travel(option).goes in Goes
    with pytest.raises(TypeError, match="the option mute does not say how far it goes"):
        travelling.to_host(Mute())


def test_a_new_option_travels_as_its_declaration_says() -> None:
    there = travelling.from_host(sent(travelling.to_host(MORE)), MoreOptions)
    assert there == MoreOptions(speed="fast", levels=(1, 2))
    saved = travelling.from_directory(sent(travelling.to_directory(MORE)), MoreOptions)
    assert saved == replace(MORE, once=False)


def test_a_new_option_is_known_to_who_takes_a_running_guest_over() -> None:
    plan = MorePlan(MORE, Path("/qemu"), 1 << 30, "builtin:bench", True, None, None, "", True)
    assert codec.from_data(MorePlan, sent(codec.to_data(plan)), complete=True) == plan


def test_a_new_option_is_checked_as_its_declaration_says() -> None:
    good = travelling.to_host(MORE)
    for name, value in (("speed", "furious"), ("levels", [2, 1]), ("levels", [1]), ("levels", "12")):
        with pytest.raises(ProtocolError, match=f"option {name}"):
            travelling.from_host(sent(good | {name: value}), MoreOptions)
        with pytest.raises(UsageError, match=f"damaged: {name}"):
            travelling.from_directory(sent({name: value}), MoreOptions)


def test_an_older_directory_has_not_all_options_and_one_that_is_gone() -> None:
    data = sent(travelling.to_directory(GuestOptions(smp=3)))
    assert travelling.from_directory(data | {"exact_memory": True}, MoreOptions) == MoreOptions(smp=3)
    assert travelling.from_directory({}) == GuestOptions()


def test_another_host_knows_the_same_options() -> None:
    data = sent(travelling.to_host(MORE))
    without = {name: value for name, value in data.items() if name != "smp"}
    damages: list[Any] = [{**data, "more": 1}, without, [], None]
    for damaged in damages:
        with pytest.raises(ProtocolError, match="of another version of this program"):
            travelling.from_host(damaged, MoreOptions)


@pytest.mark.parametrize("goes", [travelling.to_host, travelling.to_directory])
def test_paths_are_those_of_the_directory_that_they_were_given_in(
    goes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = goes(GuestOptions(drives=["disk,cache=none"], shares=["dir:tag"], services=[Path("a.py")]))
    assert found["drives"] == [f"{tmp_path}/disk,cache=none"]
    assert found["shares"] == [f"{tmp_path}/dir:tag"]
    assert found["services"] == [f"{tmp_path}/a.py"]


@pytest.mark.parametrize("name", ["drives", "shares", "services"])
@pytest.mark.parametrize("path", ["relative", "~/x", "./x", ""])
def test_a_path_of_another_host_is_absolute(name: str, path: str) -> None:
    data = travelling.to_host(GuestOptions())
    with pytest.raises(ProtocolError, match="a path that is not absolute"):
        travelling.from_host(data | {name: [path]})


def test_options_that_went_nowhere_are_as_by_default() -> None:
    options = GuestOptions(command=["true"], files={"/x": Path("/x")}, client=True, name="a", trace="/t", initrd="/i")
    assert travelling.from_directory(sent(travelling.to_directory(options))) == GuestOptions()
    assert rooted(options).files == {"/x": Path("/x")}
