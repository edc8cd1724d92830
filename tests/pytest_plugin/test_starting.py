"""Where a test's guest comes from when the cache is not as it should be; no guest is started."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.pytest_plugin import starting
from qemu_sdei.pytest_plugin.starting import Starter
from qemu_sdei.vm.options import GuestOptions


class Made:
    """In place of `Guest`."""

    how: list[str]
    full = False

    def __init__(self, options: GuestOptions, how: str = "boot") -> None:
        self._how = how

    @classmethod
    def saved(cls, path: Path, **_: Any) -> Made:
        if not (path / "vm.state").read_text():
            raise UsageError(f"{path}/vm.state is damaged")
        return cls(GuestOptions(), "restored")

    def start(self) -> None:
        self.how.append(self._how)

    def __enter__(self) -> Made:
        self.start()
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def wait_shell(self) -> None: ...

    def save(self, path: Path, **_: Any) -> None:
        if self.full:
            raise GuestError("the guest was not saved and runs on: No space left on device")
        path.mkdir()
        (path / "vm.state").write_text("x")

    def run(self, command: str) -> Any:
        return type("Result", (), {"status": 0, "output": ""})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Made]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind = type("Kind", (Made,), {"how": []})
    replacements: dict[str, object] = {
        "Guest": kind, "prepare": lambda options: None, "_has_shell": lambda plan: True,
        "_files": lambda plan: [], "_qemu": lambda plan: "",
    }  # fmt: skip
    for name, value in replacements.items():
        monkeypatch.setattr(starting, name, value)
    return kind


def folder(tmp_path: Path) -> Path:
    (found,) = tmp_path.rglob("pytest-guests")
    return found


def damage(tmp_path: Path, made: type[Made]) -> None:
    Starter(fresh=False).start(GuestOptions())
    made.how.clear()
    for file in folder(tmp_path).glob("*/vm.state"):
        file.write_text("")


def unusable(tmp_path: Path, made: type[Made]) -> None:
    damage(tmp_path, made)
    path = folder(tmp_path)
    path.rename(path.with_name("away"))
    path.write_text("a file is in the way")


def fill(tmp_path: Path, made: type[Made]) -> None:
    made.full = True


def test_it_is_booted_once_and_restored_then(made: type[Made]) -> None:
    starter = Starter(fresh=False)
    for _ in range(3):
        starter.start(GuestOptions())
    assert made.how == ["boot", "restored", "restored", "restored"]
    assert not starter.remarks


@pytest.mark.parametrize(
    ("harm", "how", "says"),
    [
        (damage, ["boot", "restored"], "a guest in the cache could not be used, and is made again: .*is damaged"),
        (unusable, ["boot"], "guests are booted for each test: the cache cannot be used .*File exists"),
        (fill, ["boot", "boot"], "guests are booted for each test: the cache cannot be used .*No space left"),
    ],
    ids=["damaged", "unusable", "full"],
)
def test_a_bad_cache_is_told_in_a_line(
    made: type[Made], tmp_path: Path, harm: Callable[[Path, type[Made]], None], how: list[str], says: str
) -> None:
    harm(tmp_path, made)
    starter = Starter(fresh=False)
    starter.start(GuestOptions())
    assert made.how == how
    (line,) = starter.remarks
    assert "\n" not in line
    assert re.search(says, line)
