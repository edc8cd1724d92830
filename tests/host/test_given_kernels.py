"""Kernels as people have them: what is found with each, and what is refused in which words."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import given_kernels, unpack
from qemu_sdei.host.given_kernels import find
from qemu_sdei.host.kernel_config import KernelConfig
from qemu_sdei.host.kernel_drivers import load_order
from tests.host.packages import CONFIG, RELEASE, build, forged, image, module, tree

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
MODULES = f"lib/modules/{RELEASE}/kernel/drivers"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/qemu-sdei"


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        find(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(image())
    found = find(path)
    assert (found.image, found.config, found.modules, found.tree) == (path, None, None, None)
    assert given_kernels.release_of(path) == RELEASE


def test_an_installed_kernel_has_its_configuration_beside_it(tmp_path: Path) -> None:
    (tmp_path / f"vmlinuz-{RELEASE}").write_bytes(image())
    (tmp_path / f"config-{RELEASE}").write_text(CONFIG)
    found = find(tmp_path / f"vmlinuz-{RELEASE}")
    assert found.config == tmp_path / f"config-{RELEASE}"
    assert KernelConfig.read(found.config).get("ARM64") == "y"  # type: ignore[union-attr]


def test_a_build_tree_and_the_image_in_it_are_the_same(tmp_path: Path) -> None:
    made = tree(tmp_path / "linux")
    for given in (made, made / "arch/arm64/boot/Image"):
        found = find(given)
        assert (found.image, found.config) == (made / "arch/arm64/boot/Image", made / ".config")
        assert (found.vmlinux, found.tree, found.modules) == (made / "vmlinux", made, made)
    assert given_kernels.vmlinux_of(made / "arch/arm64/boot/Image") == made / "vmlinux"
    assert [name for name, _ in load_order(made, ["virtio_blk", "gone"])] == ["virtio", "virtio_blk"]


def test_a_build_tree_without_a_kernel_says_what_to_make(tmp_path: Path) -> None:
    made = tree(tmp_path / "linux")
    (made / "arch/arm64/boot/Image").unlink()
    assert "make ARCH=arm64 Image" in refusal(made)
    (made / ".config").write_text("CONFIG_X86_64=y\n")
    assert "for another architecture" in refusal(made)


def test_a_directory_with_an_installed_kernel(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, data in {
        f"boot/vmlinuz-{RELEASE}": image(),
        f"boot/config-{RELEASE}": CONFIG.encode(),
        f"{MODULES}/block/virtio_blk.ko": module("virtio_blk"),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "vmlinuz").symlink_to(f"boot/vmlinuz-{RELEASE}")
    found = find(root)
    assert found.image == root / f"boot/vmlinuz-{RELEASE}"
    assert (found.config, found.modules) == (root / f"boot/config-{RELEASE}", root / f"lib/modules/{RELEASE}")
    (root / "boot/vmlinuz-2").write_bytes(image())
    assert "has 2 kernels in it" in refusal(root)


@needs_dpkg
def test_a_package_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    deb = build(
        tmp_path,
        f"linux-image-{RELEASE}",
        {
            f"boot/vmlinuz-{RELEASE}": image(),
            f"boot/config-{RELEASE}": CONFIG.encode(),
            f"{MODULES}/virtio/virtio.ko": module("virtio"),
            f"{MODULES}/block/virtio_blk.ko": module("virtio_blk", "virtio"),
            f"{MODULES}/gpu/drm.ko": module("drm"),
        },
    )
    told: list[str] = []
    found = find(deb, told.append)
    assert found.image.read_bytes() == image()
    assert found.config is not None
    assert found.config.read_text() == CONFIG
    assert found.package == (f"linux-image-{RELEASE}", "1.0")
    assert found.modules is not None
    assert [name for name, _ in load_order(found.modules, ["virtio_blk"])] == ["virtio", "virtio_blk"]
    assert len(told) == 1
    copy = shutil.copy(deb, tmp_path / "other-name.deb")
    assert find(copy, told.append) == found
    assert len(told) == 1
    found.image.write_bytes(b"x")  # a damaged cache is made again
    assert find(deb).image.read_bytes() == image()
    assert not list((cache / given_kernels.FOLDER).glob(".*"))


@needs_dpkg
def test_split_packages_are_found_beside_each_other(tmp_path: Path) -> None:
    deb = build(tmp_path, f"linux-binary-{RELEASE}", {f"usr/lib/modules/{RELEASE}/vmlinuz": image()})
    assert find(deb).modules is None
    build(tmp_path, f"linux-modules-{RELEASE}", {f"usr/{MODULES}/block/virtio_blk.ko": module("virtio_blk")})
    build(tmp_path, f"linux-base-{RELEASE}", {f"boot/config-{RELEASE}": CONFIG.encode()})
    found = find(deb)
    assert found.modules is not None
    assert load_order(found.modules, ["virtio_blk"]) == [("virtio_blk", module("virtio_blk"))]
    assert found.config is not None


@needs_dpkg
def test_a_package_without_a_kernel_says_which_one_has_it(tmp_path: Path) -> None:
    meta = build(tmp_path, "linux-image-arm64", {}, depends=f"linux-image-{RELEASE} (= 1.0)")
    assert f"depends on linux-image-{RELEASE}: give that one" in refusal(meta)
    headers = build(tmp_path, "linux-headers-x", {"usr/src/x": b"x"})
    assert "has no kernel in it" in refusal(headers)
    assert "is a package for amd64" in refusal(build(tmp_path, "linux-image-amd64", {}, arch="amd64"))


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


@needs_dpkg
def test_what_leads_out_of_the_archive_is_not_followed(tmp_path: Path, cache: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(image())
    data = image()
    members = [
        (member("./boot/vmlinuz-x", kind=tarfile.SYMTYPE, target=str(secret)), b""),
        (member("./boot/config-x", kind=tarfile.LNKTYPE, target=str(secret)), b""),
        (member("./boot/../../../../vmlinuz-y", len(data)), data),
        (member("/boot/vmlinuz-z", len(data)), data),
        (member("./lib/modules/x/kernel/fs/..", 4), b"evil"),
        (member("./boot/vmlinuz-f", kind=tarfile.FIFOTYPE), b""),
    ]
    assert "has no kernel in it" in refusal(forged(tmp_path / "evil.deb", members))
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"secret", "evil.deb", "complete"}


@needs_dpkg
def test_a_bomb_is_stopped(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_MIN_LIMIT", 1 << 20)
    zeroes = bytes(4 << 20)
    bomb = forged(tmp_path / "bomb.deb", [(member("./boot/vmlinuz-x", len(zeroes)), zeroes)])
    assert "times as large" in refusal(bomb)
    monkeypatch.setattr(unpack, "_MIN_LIMIT", 1 << 30)
    monkeypatch.setattr(unpack, "_MAX_MEMBER", 1 << 20)
    assert "larger than any kernel" in refusal(bomb)
    assert list((cache / given_kernels.FOLDER).iterdir()) == []


@needs_dpkg
@pytest.mark.parametrize("cut", [8, 100, 300, -1000, -20])
def test_a_package_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    deb = build(tmp_path, "linux-image-x", {"boot/vmlinuz-x": image(), f"{MODULES}/block/a.ko": bytes(range(256)) * 90})
    deb.write_bytes(deb.read_bytes()[:cut])
    assert "damaged" in refusal(deb)


def test_without_dpkg_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = forged(tmp_path / "x.deb", [])
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert "install dpkg" in refusal(deb)


def test_the_configuration_out_of_a_kernel() -> None:
    import gzip

    inside = b"x" * 5000 + b"IKCFG_ST" + gzip.compress(CONFIG.encode()) + b"IKCFG_ED" + b"x" * 100
    found = KernelConfig.inside(inside, "Image")
    assert found is not None
    assert found.get("CONFIG_ARM_SDE_INTERFACE") == "y"
    assert found.get("VIRTIO_BLK") is None
    for damaged in (inside[:5100], b"IKCFG_STxxxxIKCFG_ED", b"", b"IKCFG_ED IKCFG_ST"):
        assert KernelConfig.inside(damaged, "Image") is None
