"""Files of the cache, and of the package, that are not what was put there: refused by their names, never booted."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei import blobs
from qemu_sdei.boot import flat
from qemu_sdei.errors import UsageError
from qemu_sdei.host import environment
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.kernel_drivers import load_order
from qemu_sdei.monitor import image
from tests.host.test_debian import Setting, leftovers, pytestmark, setting

__all__ = ["pytestmark", "setting"]

Get = Callable[[DebianCache], Path]
BOTH: list[Get] = [lambda cache: cache.kernel().image, lambda cache: cache.busybox()]


def flip(path: Path) -> bytes:
    """Change one byte as a bad disk does: size and times stay. Returns what was there."""
    data = path.read_bytes()
    status = path.stat()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return data


def without_network(setting: Setting) -> None:
    shutil.rmtree(setting.archive.directory)
    shutil.rmtree(setting.directory / "apt-arm64")


def forget_digests(setting: Setting) -> None:
    """The index as older versions wrote it."""
    index = json.loads((setting.directory / "index.json").read_bytes())
    del index["digests"]
    (setting.directory / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("get", BOTH)
def test_a_damaged_file_is_refused_by_its_name_until_it_is_deleted(setting: Setting, get: Get) -> None:
    path = get(setting.cache)
    good = flip(path)
    without_network(setting)
    for _ in range(2):
        with pytest.raises(UsageError, match=re.escape(f"{path} is damaged") + f".*`rm {re.escape(str(path))}`"):
            get(setting.cache)
    path.unlink()  # as the message says: its package is still here
    assert get(setting.cache) == path
    assert path.read_bytes() == good


@pytest.mark.parametrize("get", BOTH)
def test_what_an_older_version_left_is_taken_from_its_package_again(setting: Setting, get: Get) -> None:
    path = get(setting.cache)
    good = flip(path)
    forget_digests(setting)
    without_network(setting)
    assert get(setting.cache) == path
    assert path.read_bytes() == good
    flip(path)
    with pytest.raises(UsageError, match="is damaged"):
        get(setting.cache)


def test_without_its_package_it_is_taken_as_it_is_and_known_from_then_on(setting: Setting) -> None:
    path = setting.cache.kernel().image
    forget_digests(setting)
    without_network(setting)
    shutil.rmtree(setting.directory / "debs")
    assert setting.cache.kernel().image == path
    flip(path)
    with pytest.raises(UsageError, match="is damaged"):
        setting.cache.kernel()


def test_a_damaged_package_is_refused_by_its_name(setting: Setting) -> None:
    setting.cache.kernel().image.unlink()
    (deb,) = (setting.directory / "debs").glob("linux-image-6.1.0*.deb")
    flip(deb)
    with pytest.raises(UsageError, match=re.escape(f"{deb} is damaged")):
        setting.cache.kernel()
    deb.unlink()
    assert setting.cache.kernel().image.read_bytes() == setting.image


def test_what_a_package_holds_is_compared_with_its_own_checksums(setting: Setting) -> None:
    """The compression's own check is at the end of the package, which is not read."""
    setting.archive.add("busybox-static", "1:1.36.0-1", {"bin/busybox": b"busybox"}, md5sums=f"{'0' * 32}  bin/busybox")
    with pytest.raises(UsageError, match=r"busybox-static_.*\.deb is damaged"):
        setting.cache.busybox()
    assert not list(setting.directory.glob("busybox-static/*/*"))


def test_doctor_says_it(setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"Debian kernels": setting.cache.kernel().image, "busybox for arm64": setting.cache.busybox()}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "qemu-sdei").symlink_to(setting.directory)

    def findings() -> dict[str, environment.Finding]:
        return {finding.name: finding for finding in environment.check() if finding.name in files}

    assert all(finding.ok and finding.found for finding in findings().values())
    for name, path in files.items():
        flip(path)
        finding = findings()[name]
        assert not finding.ok
        assert path.name in finding.remedy
        assert "`rm " in finding.remedy
    monkeypatch.setenv("PATH", str(tmp_path))  # neither apt nor a network is needed to say so
    assert not any(finding.ok for finding in findings().values())


def test_no_room_leaves_nothing_half(setting: Setting) -> None:
    path = setting.cache.kernel().image
    path.unlink()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(setting.image) // 2, hard))
    try:
        with pytest.raises(UsageError, match="File too large: make room"):
            setting.cache.kernel()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not any(str(path.parent) in name and "vmlinuz" in name for name in leftovers(setting))
    assert setting.cache.kernel().image.read_bytes() == setting.image


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_drivers(setting: Setting, damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone is not taken to be built into the kernel."""
    release = "6.1.0-8-arm64"
    module = f"lib/modules/{release}/kernel/drivers/block/virtio_blk.ko"
    files = {f"boot/vmlinuz-{release}": b"kernel", module: b"ELF\0depends=\0 and code"}
    setting.archive.add(f"linux-image-{release}", "6.1.8-1", files)
    setting.archive.add("linux-image-arm64", "6.1.8-1", depends=f"linux-image-{release} (= 6.1.8-1)")
    found = setting.cache.kernel()
    folder = setting.cache.drivers(found)
    assert [name for name, _ in load_order(folder, ["virtio_blk"])] == ["virtio_blk"]
    damage(folder / "virtio_blk.ko")
    with pytest.raises(UsageError, match=rf"virtio_blk\.ko is damaged.*`rm -r {re.escape(str(folder))}`"):
        load_order(folder, ["virtio_blk"])
    shutil.rmtree(folder)
    without_network(setting)
    assert load_order(setting.cache.drivers(found), ["virtio_blk"])
    # As an older version left them.
    damage(folder / "virtio_blk.ko")
    (folder / "complete").write_bytes(b"")
    assert load_order(setting.cache.drivers(found), ["virtio_blk"]) == [("virtio_blk", files[module])]


def test_embedded_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(blobs.FOLDER, tmp_path / "data")
    monkeypatch.setattr(blobs, "FOLDER", tmp_path / "data")
    flat._binary.cache_clear()
    assert image.blob()
    flip(tmp_path / "data/monitor.bin")
    flip(tmp_path / "data/bench.bin")
    with pytest.raises(UsageError, match=r"monitor\.bin is damaged.*install the package again"):
        image.blob()
    with pytest.raises(UsageError, match=r"bench\.bin is damaged"):
        flat._binary("builtin:bench")
    flat._binary.cache_clear()
