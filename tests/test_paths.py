"""Paths from users and the environment: homes that are not there, names that cannot be."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from qemu_sdei import paths
from qemu_sdei.errors import UsageError


def nobody(uid: int) -> pwd.struct_passwd:
    """The user database of a container that runs with any user id."""
    raise KeyError(uid)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("home", [None, "", "relative/home"])
def test_a_user_without_a_home(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert paths.home() is None
    with pytest.raises(UsageError, match="set XDG_CACHE_HOME"):
        paths.cache_directory()
    with pytest.raises(UsageError, match="no home directory"):
        paths.expand("~/x")
    assert paths.expand("/x/y") == Path("/x/y")


@pytest.mark.usefixtures("stranger")
def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME if it is absolute, then HOME."""
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.cache_directory() == Path("/home/me/.cache/qemu-sdei")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.cache_directory() == Path("/home/me/.cache/qemu-sdei")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert paths.cache_directory() == Path("/cache/qemu-sdei")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("~nobody-of-this-name/x", "no user 'nobody-of-this-name'"),
        ("a" * 256, "too long"),
        ("/" + "a/" * 2100, "too long"),
        ("a\0b", "NUL"),
    ],
)
def test_what_is_no_path(path: str, what: str) -> None:
    for function in (paths.expand, paths.absolute, paths.resolved):
        with pytest.raises(UsageError, match=what):
            function(path)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="circle"):
        paths.resolved(tmp_path / "a" / "x")


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="was removed"):
        paths.absolute("x")
    os.chdir("/")


def test_a_home_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.absolute("~/a/b") == Path("/home/me/a/b")
    assert paths.expand("~root") == Path(pwd.getpwnam("root").pw_dir)
