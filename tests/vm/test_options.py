"""Options that mean the same in any working directory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import GuestOptions, rooted
from qemu_sdei.vm.travelling import from_directory, from_host, to_directory, to_host


def test_rooted_options_name_the_same_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = GuestOptions(
        kernel="Image",
        drives=("disk.img,snapshot=on", "/abs.img"),
        shares=("dir:tag", "dir"),
        events=Path("events.toml"),
        services=("service.py",),
        client="sdei.ko",
        files={"/etc/x": Path("x")},
    )
    found = rooted(options)
    monkeypatch.chdir("/")
    assert found.kernel == f"{tmp_path}/Image"
    assert found.drives == (f"{tmp_path}/disk.img,snapshot=on", "/abs.img")
    assert found.shares == (f"{tmp_path}/dir:tag", f"{tmp_path}/dir")
    assert (found.events, found.services, found.client) == (
        f"{tmp_path}/events.toml",
        (f"{tmp_path}/service.py",),
        f"{tmp_path}/sdei.ko",
    )
    assert found.files == {"/etc/x": tmp_path / "x"}
    assert rooted(found) == found


def test_what_names_no_file_stays() -> None:
    for kernel in (None, "builtin:bench"):
        assert rooted(GuestOptions(kernel=kernel)).kernel == kernel
    assert rooted(GuestOptions(kernel="flat:/u-boot.bin")).kernel == "flat:/u-boot.bin"
    assert rooted(GuestOptions(client=True)).client is True
    assert rooted(GuestOptions()) == GuestOptions()


def test_the_former_name_of_the_events_file_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="events="):
        options = GuestOptions(profile="mine.toml")
    assert options.events == "mine.toml"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace(options, smp=4).events == "mine.toml"
    written = to_directory(GuestOptions())
    del written["events"]
    assert from_directory({**written, "profile": "/mine.toml"}).events == "/mine.toml"


def test_the_former_name_of_the_boot_timeout_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="boot_timeout="):
        options = GuestOptions(stall_timeout=5)
    assert options.boot_timeout == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace(options, smp=4).boot_timeout == 5
    with (
        pytest.warns(DeprecationWarning, match="boot_timeout="),
        pytest.raises(UsageError, match="boot_timeout is 'x'"),
    ):
        GuestOptions(stall_timeout="x")  # type: ignore[arg-type]
    written = to_directory(GuestOptions())
    del written["boot_timeout"]
    assert from_directory({**written, "stall_timeout": 7.0}).boot_timeout == 7
    told = to_host(GuestOptions())
    del told["boot_timeout"]
    assert from_host({**told, "stall_timeout": 7.0}).boot_timeout == 7  # of a host with an older version
