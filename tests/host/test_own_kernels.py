"""Kernels that were built here: found by name, and never one that is not whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import environment, own_kernels
from qemu_sdei.host.unpack import Unpacked, sha256, write_sums
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import prepare

SAID: dict[str, Any] = {
    "series": "own-7.3",
    "release": "7.3.4-crash",
    "version": "7.3.4-1",
    "configuration": "0123456789ab",
    "built": 1000.0,
    "seconds": 60.0,
    "compiler": "gcc",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "qemu-sdei" / "own-kernels"


def add(cache: Path, name: str, **said: Any) -> Path:
    """A kernel in the cache that says of itself `said`, beside what all say."""
    folder = cache / name
    folder.mkdir(parents=True)
    for file in own_kernels.FILES:
        (folder / file).write_text(f"{file} of {name}")
    sums = {file: Unpacked(folder / file, sha256(folder / file)) for file in own_kernels.FILES}
    write_sums(folder, sums)
    (folder / own_kernels.DESCRIPTION).write_text(json.dumps(SAID | said))
    return folder


def test_the_newest_of_a_series_is_found(cache: Path) -> None:
    add(cache, "old")
    new = add(cache, "new", built=2000.0, release="7.3.5-crash")
    add(cache, "other", built=3000.0, series="own-7.4")
    found = own_kernels.kernel("own-7.3")
    assert (found.image, found.vmlinux, found.tree) == (new / "Image", new / "vmlinux", new / "build")
    assert found.description.release == "7.3.5-crash"
    assert own_kernels.vmlinux_of(found.image) == found.vmlinux
    assert [each.description.series for each in own_kernels.built()] == ["own-7.4", "own-7.3", "own-7.3"]


def test_what_is_not_built_says_how_it_is(cache: Path) -> None:
    assert own_kernels.find("own-7.3") is None
    with pytest.raises(UsageError, match=r"own-7\.3 is not built: scripts/crash-kernel builds it .*minutes"):
        own_kernels.kernel("own-7.3")
    add(cache, "here")
    with pytest.raises(UsageError, match=r"\(here: own-7.3\): scripts/crash-kernel --version 7.9 builds it"):
        own_kernels.kernel("own-7.9")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 5000, "[]", '{"series": "own-7.3"}', json.dumps(SAID | {"more": 1}),
     json.dumps(SAID | {"series": "../x"}), json.dumps(SAID | {"built": True}), "x" * (1 << 17)],
)  # fmt: skip
def test_a_damaged_description_is_no_kernel(cache: Path, text: str) -> None:
    folder = add(cache, "damaged")
    (folder / own_kernels.DESCRIPTION).write_text(text)
    assert own_kernels.built() == []
    assert own_kernels.vmlinux_of(folder / "Image") is None


def test_one_that_is_being_built_or_deleted_is_none(cache: Path) -> None:
    add(cache, "7.3.4-1-0123.part")
    (add(cache, "half") / "Image").unlink()
    (cache / "lock").touch()
    assert own_kernels.built() == []


def test_doctor_says_which_there_are(cache: Path) -> None:
    def said() -> str | None:
        return next(found.found for found in environment.check() if found.name == "crash-path kernel")

    assert said() is None
    add(cache, "here")
    assert said() == "own-7.3 (7.3.4-crash)"


def test_a_damaged_image_is_refused_with_what_to_delete(cache: Path) -> None:
    folder = add(cache, "here")
    (folder / "Image").write_text("something else")
    with pytest.raises(UsageError, match=re.escape(f"`rm -r {folder}`")):
        own_kernels.kernel("own-7.3")


def test_an_image_elsewhere_has_no_vmlinux(cache: Path, tmp_path: Path) -> None:
    folder = add(cache, "here")
    shutil.copy(folder / "Image", tmp_path / "Image")
    assert own_kernels.vmlinux_of(tmp_path / "Image") is None
    (folder / "vmlinux").unlink()
    assert own_kernels.vmlinux_of(folder / "Image") is None


@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (GuestOptions(series="own-7.3"), "own-7.3 is not built: scripts/crash-kernel builds it"),
        (GuestOptions(series="own-7.4", kdump="own-7.3"), "own-7.3 is not built (here: own-7.4)"),
        (GuestOptions(series="own-7.3", net=True), "without a network: leave out --net"),
        (GuestOptions(series="own-7"), "kernel series own-7: behind own- give two numbers, such as own-7.3"),
    ],
)
def test_a_guest_that_asks_for_one_that_is_not_here_is_refused(cache: Path, options: GuestOptions, what: str) -> None:
    if options.kdump:
        add(cache, "here", series="own-7.4")
    with pytest.raises(UsageError, match=re.escape(what)):
        prepare(options)
