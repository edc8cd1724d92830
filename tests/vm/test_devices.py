"""Disks, shares and networks: which words become which options of QEMU, and which are refused in one line."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host.kernel_drivers import load_order
from qemu_sdei.vm.devices import devices
from qemu_sdei.vm.options import GuestOptions


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a,b.img"
    path.write_bytes(bytes(512))
    return path


def arguments(option: str, *values: str) -> str:
    return " ".join(devices(GuestOptions(**{option: values})).arguments)  # type: ignore[arg-type]


def test_formats_are_those_of_the_files(tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(bytes(512))
    qcow2.write_bytes(b"QFI\xfb" + bytes(508))
    words = arguments("drives", str(raw), f"{qcow2},snapshot=on", f"{raw},format=qcow2,readonly=on")
    assert re.findall(r"file=(\S+)", words) == [
        f"{raw},format=raw",
        f"{qcow2},snapshot=on,format=qcow2",
        f"{raw},format=qcow2,readonly=on",
    ]
    assert re.findall(r"virtio-blk-pci,drive=(\w+)", words) == ["drive0", "drive1", "drive2"]


def test_a_guest_without_devices_gets_none() -> None:
    assert devices(GuestOptions()).arguments == ()


def test_commas_of_directories_are_doubled(tmp_path: Path) -> None:
    directory = tmp_path / "a,b"
    directory.mkdir()
    words = devices(GuestOptions(shares=[f"{directory}:tag"]))
    assert f"path={tmp_path}/a,,b,security" in words.arguments[1]
    assert words.tags == ("tag",)


def test_a_forwarded_port_is_a_network_and_only_this_hosts() -> None:
    found = devices(GuestOptions(forwards=["2222:22", "8080:80"]))
    assert found.net
    assert "hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:8080-:80" in found.arguments[1]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("drives", "/no/such", "cannot be read: No such file"),
        ("drives", "IMAGE,ro", "NAME=VALUE"),
        ("drives", "IMAGE,if=ide,id=x", "id, if is set by this option"),
        ("shares", "/no/such", "no such directory"),
        ("shares", "/", "cannot be its tag"),
        ("shares", "/tmp:a b", "cannot be its tag"),
        ("shares", "/tmp:" + "x" * 32, "at most 31"),
        ("forwards", "22", "HOST:GUEST"),
        ("forwards", "0:22", "HOST:GUEST"),
        ("forwards", "22:65536", "HOST:GUEST"),
        ("forwards", "22:22,guestfwd=x", "HOST:GUEST"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, option: str, value: str, words: str) -> None:
    (tmp_path / "image").write_bytes(bytes(512))
    with pytest.raises(UsageError, match=words) as error:
        arguments(option, value.replace("IMAGE", str(tmp_path / "image")))
    assert "\n" not in str(error.value)


def test_two_shares_of_one_tag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two shared directories have the tag 'x'"):
        arguments("shares", f"{tmp_path}:x", f"{tmp_path.parent}:x")


# ---- the kernel modules that they need


def module(folder: Path, name: str, depends: str = "", *, compressed: bool = False) -> bytes:
    data = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"
    path = folder / f"{name}.ko{'.xz' if compressed else ''}"
    path.write_bytes(lzma.compress(data) if compressed else data)
    return data


def test_modules_come_behind_what_they_need(tmp_path: Path) -> None:
    module(tmp_path, "ext4", "jbd2,mbcache,crc16")
    module(tmp_path, "jbd2", "crc16", compressed=True)
    crc = module(tmp_path, "crc16", compressed=True)
    module(tmp_path, "mbcache")
    module(tmp_path, "not-wanted")
    order = load_order(tmp_path, ["built_in", "ext4", "ext4"])
    assert [name for name, _ in order] == ["crc16", "jbd2", "mbcache", "ext4"]
    assert order[0][1] == crc


def test_hyphens_and_underscores_are_one(tmp_path: Path) -> None:
    module(tmp_path, "virtio-rng", "rng-core")
    module(tmp_path, "rng_core")
    assert [name for name, _ in load_order(tmp_path, ["virtio_rng"])] == ["rng_core", "virtio_rng"]


def test_a_module_without_what_it_needs(tmp_path: Path) -> None:
    module(tmp_path, "a", "b")
    with pytest.raises(UsageError, match="module a needs b"):
        load_order(tmp_path, ["a"])


def test_a_damaged_module(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(b"no xz")
    with pytest.raises(UsageError, match="damaged"):
        load_order(tmp_path, ["a"])


def test_image_for_snapshots_is_made_once(tmp_path: Path) -> None:
    """It is no device of the guest's; what is there already is not touched, and must be one."""
    file = tmp_path / "a,b.qcow2"
    found = devices(GuestOptions(snapshots=file))
    assert found.arguments == ("-drive", f"if=none,id=snapshots,format=qcow2,file={tmp_path}/a,,b.qcow2")
    assert not found.seen
    assert not file.exists()
    found.create(1 << 30)
    assert file.read_bytes()[:4] == b"QFI\xfb"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes() + b"more")
    devices(GuestOptions(snapshots=file)).create(1 << 30)
    assert file.read_bytes().endswith(b"more")
    (tmp_path / "raw").write_bytes(bytes(512))
    with pytest.raises(UsageError, match="is not a qcow2 image"):
        devices(GuestOptions(snapshots=tmp_path / "raw"))
    with pytest.raises(UsageError, match="cannot be made"):
        devices(GuestOptions(snapshots=tmp_path / "no" / "file"))
    with pytest.raises(UsageError, match="cannot be read"):
        devices(GuestOptions(snapshots=tmp_path))
