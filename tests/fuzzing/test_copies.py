"""What a guest must be like so that there can be copies of it, and what they are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import UntrustedError, UsageError
from qemu_sdei.fuzzing import copies
from qemu_sdei.fuzzing.target import chosen
from qemu_sdei.rundir import Running
from qemu_sdei.saving import saved as saving
from qemu_sdei.vm.options import GuestOptions

A = Running("a", Path("/run/a"), 1)


class Saved:
    """A directory with a guest."""

    def __init__(self, options: GuestOptions, name: str = "a") -> None:
        self.options = options
        self.path = Path("/saved")
        self.config = SimpleNamespace(ram_size=1 << 30, name=name)

    def wants(self) -> list[str]:
        return ["program: something"] if self.options.services else []


def saved(monkeypatch: pytest.MonkeyPatch, found: Saved) -> None:
    def ask(owner: Path, command: str, request: dict[str, Any], *_: object, **more: object) -> dict[str, Any]:
        Path(request["path"]).mkdir()
        return {}

    monkeypatch.setattr(copies, "ask", ask)
    monkeypatch.setattr(saving.Saved, "read", lambda path: found)
    monkeypatch.setattr(copies, "Boot", lambda saved: None)
    monkeypatch.setattr(copies, "replace", replaced)
    monkeypatch.setattr(copies, "Guest", lambda options, **more: options)


def replaced(thing: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(thing, **changes) if isinstance(thing, GuestOptions) else thing


def test_a_disk_that_is_written_to_has_no_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved(monkeypatch, Saved(GuestOptions(drives=("disk.img,format=raw",))))
    with pytest.raises(UsageError, match=r"guest 'a' writes to disk\.img, and its copies would too"):
        copies.save_running(A, tmp_path / "state")
    assert not (tmp_path / "state").exists()
    saved(monkeypatch, Saved(GuestOptions(drives=("disk.img,readonly=on", "other.img,snapshot=on"))))
    copies.save_running(A, tmp_path / "state")
    assert (tmp_path / "state").exists()


def test_copies_have_names_and_no_ports_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved(monkeypatch, Saved(GuestOptions(forwards=("8080:80",), name="a"), "web"))
    monkeypatch.setattr(rundir, "running", lambda: [Running("web-fuzz-1", Path("/x"), 2)])
    options: Any = copies.copy_of(tmp_path, trust=True)
    assert (options.name, options.forwards, options.net) == ("web-fuzz-2", (), True)
    saved(monkeypatch, Saved(GuestOptions(), "web-fuzz-1"))
    options = copies.copy_of(tmp_path, trust=True)
    assert (options.name, options.net) == ("web-fuzz-2", False), "a copy's copy is called the same"
    saved(monkeypatch, Saved(GuestOptions(), "x" * 32))
    options = copies.copy_of(tmp_path, trust=True)
    assert len(options.name) <= 32


def test_a_directory_of_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved(monkeypatch, Saved(GuestOptions(services=("evil.py",))))
    with pytest.raises(UntrustedError, match="--trust"):
        copies.copy_of(tmp_path, trust=False)


def test_the_error_source() -> None:
    ready = {"name": "b", "ready": True, "reason": None}
    deaf = {"name": "a", "ready": False, "reason": "nobody listens"}
    assert chosen([deaf, ready], None) is ready
    assert chosen([deaf, ready], "b") is ready
    for sources, wanted, words in (
        ([], None, "start it with --ras"),
        ([deaf, ready], "c", "no error source 'c'; it has a, b"),
        ([deaf, ready], "a", "by source 'a': nobody listens"),
        ([deaf], None, "nobody listens"),
    ):
        with pytest.raises(UsageError, match=words):
            chosen(sources, wanted)
