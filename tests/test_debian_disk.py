"""`scripts/debian-disk` where it makes no disk: one is there, or it cannot be made and one line says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qemu_sdei.locks import try_lock
from scripts.disklib import build, layout, recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, on a machine that has all tools."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "missing_tools", list)
    return tmp_path / "qemu-sdei" / build.FOLDER


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said in one line of one that is not made."""
    assert build.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("debian-disk: ")
    assert err.count("\n") == 1
    return err


def test_one_that_is_there_is_named_and_how_to_boot_it(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir(parents=True)
    build.image().write_bytes(b"")
    assert build.main([]) == 0
    out, _ = capsys.readouterr()
    assert str(build.image()) in out
    assert f"qemu-sdei run --hypervisor --disk {build.image()}" in out


def test_another_recipe_is_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.image()
    monkeypatch.setattr(recipe, "PACKAGES", (*recipe.PACKAGES, "openssh-server"))
    assert build.image() != before


def test_tools_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build, "missing_tools", lambda: ["debootstrap", "mcopy"])
    assert "debootstrap, mcopy" in refused(capsys)


@pytest.mark.parametrize("mirror", ["ftp://a", "http://", "http://a b", "http://a\x1b[2J", "-x"])
def test_what_is_no_mirror(mirror: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, f"--mirror={mirror}")
    assert "give a URL" in said
    assert "\x1b" not in said


def test_a_cache_whose_name_the_tools_do_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a,b"))
    assert "set XDG_CACHE_HOME" in refused(capsys)


def test_only_one_at_a_time(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir(parents=True)
    held = try_lock(cache / "lock")
    assert held is not None
    assert "another scripts/debian-disk" in refused(capsys)


def test_too_little_room(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    usage = shutil.disk_usage(cache.parent.parent)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "1 MiB free" in refused(capsys)
    assert not list(cache.glob("*.part"))


def test_no_disk_is_left_where_the_packages_cannot_be_had(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What debootstrap fails with is in the log, and the next run begins where this one began."""
    monkeypatch.setattr(layout, "grub", lambda cache, work: work)
    monkeypatch.setattr(layout, "fill_system_partition", lambda *_: None)
    tools = cache.parent.parent / "bin"
    tools.mkdir()
    for name in ("debootstrap", "fakeroot"):
        (tools / name).write_text("#!/bin/sh\necho 'E: no archive'; exit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert build.main([]) == 2
    err = capsys.readouterr().err
    assert "debian-disk: Debian's packages cannot be unpacked: exit code 1" in err
    assert not build.image().exists()
    (log,) = cache.glob("*.part/build.log")
    assert "E: no archive" in log.read_text()
    assert not list(cache.glob("*.part/unpacked.img"))
