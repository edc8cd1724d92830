"""Options that mean the same in any working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.vm.options import GuestOptions, rooted


def test_rooted_options_name_the_same_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = GuestOptions(
        kernel="Image",
        drives=("disk.img,snapshot=on", "/abs.img"),
        shares=("dir:tag", "dir"),
        profile=Path("events.toml"),
        services=("service.py",),
        client="sdei.ko",
        files={"/etc/x": Path("x")},
    )
    found = rooted(options)
    monkeypatch.chdir("/")
    assert found.kernel == f"{tmp_path}/Image"
    assert found.drives == (f"{tmp_path}/disk.img,snapshot=on", "/abs.img")
    assert found.shares == (f"{tmp_path}/dir:tag", f"{tmp_path}/dir")
    assert (found.profile, found.services, found.client) == (
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
