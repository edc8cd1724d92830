"""Kernels and busybox by the real apt, from an archive in a directory."""

from __future__ import annotations

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import debian
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.kernel_packages import series_of
from tests.host.archive import Archive, kernel, split_kernel

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("apt-get", "dpkg-deb")), reason="no apt: nothing is downloaded here"
)


class Setting:
    """An archive, a user whose apt knows it, and an empty cache."""

    def __init__(self, tmp_path: Path) -> None:
        self.archive = Archive(tmp_path / "archive")
        self.image = kernel(self.archive, "6.1.0-9-arm64", "6.1.9-1", "linux-image-arm64")
        self.newer = kernel(self.archive, "6.12.3+deb12-arm64", "6.12.3-1~deb12u1", "linux-image-6.12-arm64")
        self.archive.add("busybox-static", "1:1.35.0-4", {"bin/busybox": b"busybox"})
        self.sources = tmp_path / "sources.list"
        self.sources.write_text(self.archive.source)
        self.directory = tmp_path / "cache"
        self.told: list[str] = []

    @property
    def cache(self) -> DebianCache:
        """A new one each time, as in a new process."""
        return DebianCache(self.directory, progress=self.told.append)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    made = Setting(tmp_path)
    (tmp_path / "user-apt.conf").write_text(
        f'Dir::Etc::sourcelist "{made.sources}";\nDir::Etc::sourceparts "{tmp_path}/none";\n'
        # What container images like to have: it must not run for us.
        f'APT::Update::Post-Invoke {{ "touch {tmp_path}/hook-ran"; }};\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "user-apt.conf"))
    return made


def without_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_default_kernel_and_busybox_are_downloaded(setting: Setting, tmp_path: Path) -> None:
    found = setting.cache.kernel()
    assert (found.series, found.release, found.version) == ("6.1", "6.1.0-9-arm64", "6.1.9-1")
    assert found.package == "linux-image-6.1.0-9-arm64"
    assert found.image.read_bytes() == setting.image
    assert found.config is not None
    assert found.config.read_bytes() == b"CONFIG_ARM64=y\n"
    assert setting.cache.busybox().read_bytes() == b"busybox"
    assert setting.told  # a user sees what takes so long
    assert not (tmp_path / "hook-ran").exists()


def test_the_second_time_nobody_is_asked(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = setting.cache
    first = cache.kernel(), cache.kernel("6.12"), cache.busybox()
    shutil.rmtree(setting.archive.directory)
    without_apt(monkeypatch, tmp_path)
    setting.told.clear()
    cache = setting.cache
    assert (cache.kernel(), cache.kernel("6.12"), cache.busybox()) == first
    assert setting.told == []
    assert [found.series for found in cache.cached_kernels()] == ["6.1", "6.12"]
    assert cache.cached_busybox() == first[2]


def test_a_series_is_found_by_its_own_metapackage_or_the_default_one(setting: Setting) -> None:
    assert setting.cache.kernel("6.12").image.read_bytes() == setting.newer
    assert setting.cache.kernel("6.1").image.read_bytes() == setting.image


def test_an_unknown_series_names_those_that_there_are(setting: Setting) -> None:
    with pytest.raises(UsageError, match=r"series 5\.10 \(they have 6\.1, 6\.12\).*--kernel"):
        setting.cache.kernel("5.10")
    with pytest.raises(UsageError, match="two numbers"):
        setting.cache.kernel("bookworm; rm -rf /")


@pytest.mark.parametrize(
    ("series", "release", "metapackage"),
    [
        ("6.1-rt", "6.1.0-9-rt-arm64", "linux-image-rt-arm64"),
        ("6.1-cloud", "6.1.0-9-cloud-arm64", "linux-image-cloud-arm64"),
        ("6.12-rt", "6.12.3+deb12-rt-arm64", "linux-image-6.12-rt-arm64"),
        ("6.12-16k", "6.12.3+deb12-arm64-16k", "linux-image-6.12-arm64-16k"),
        ("6.12-cloud", "6.12.3+deb12-cloud-arm64", "nothing"),
    ],
)
def test_flavours_are_found(series: str, release: str, metapackage: str, setting: Setting) -> None:
    image = kernel(setting.archive, release, "9", metapackage)
    found = setting.cache.kernel(series)
    assert (found.series, found.release, found.image.read_bytes()) == (series, release, image)
    assert series_of(release) == series
    assert setting.cache.kernel(series) == found  # out of the cache
    assert setting.cache.kernel("6.12" if series.startswith("6.12") else "6.1").release != release


def test_the_newest_of_a_series_without_a_metapackage(setting: Setting) -> None:
    for release in ("7.3.9+deb13-arm64", "7.3.10+deb13-arm64", "7.3.11+deb13-arm64-unsigned", "7.3.12-arm64-dbg"):
        kernel(setting.archive, release, release.partition("+")[0], "nothing")
    assert setting.cache.kernel("7.3").release == "7.3.10+deb13-arm64"


def test_of_two_suites_each_has_its_own_metapackage(setting: Setting) -> None:
    """Of trixie and trixie-backports: apt shows the one that it would install, and the other one is asked for."""
    image = kernel(setting.archive, "7.3.4+deb13-arm64", "7.3.4-1~bpo13+1", "nothing")
    depends = "linux-image-7.3.4+deb13-arm64 (= 7.3.4-1~bpo13+1)"
    setting.archive.add("linux-image-arm64", "7.3.4-1~bpo13+1", depends=depends, beside=True)
    assert setting.cache.kernel("7.3").image.read_bytes() == image
    assert setting.cache.kernel("6.1").image.read_bytes() == setting.image


def test_a_kernel_in_several_packages(setting: Setting) -> None:
    image = split_kernel(setting.archive, "7.5.2-arm64", "7.5.2-1", "linux-image-7.5-arm64")
    found = setting.cache.kernel("7.5")
    assert (found.release, found.package, found.image.read_bytes()) == (
        "7.5.2-arm64",
        "linux-binary-7.5.2-arm64",
        image,
    )
    assert found.config is not None
    assert found.config.read_text() == "CONFIG_ARM64=y\n"
    shutil.rmtree(setting.archive.directory)  # its modules came along
    assert [path.name for path in setting.cache.drivers(found).glob("*.ko")] == ["virtio_blk.ko"]
    assert setting.cache.kernel("7.5") == found


def test_a_suite_that_the_users_sources_do_not_name(setting: Setting) -> None:
    dists = setting.archive.directory / "dists"
    shutil.copytree(dists / "stable", dists / "trixie-backports")
    found = setting.cache.kernel("6.12/trixie-backports")
    assert (found.series, found.suite) == ("6.12/trixie-backports", "trixie-backports")
    assert setting.cache.kernel("6.12/trixie-backports") == found
    with pytest.raises(UsageError, match=r"trixie-nowhere\) cannot be had"):
        setting.cache.kernel("6.12/trixie-nowhere")
    with pytest.raises(UsageError, match=r"name another suite, as in 7\.3/trixie-backports"):
        setting.cache.kernel("7.3")


def test_lists_that_have_expired_are_not_taken(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apt compares the date of signed lists only, which a test cannot make: here it says what it says of those."""
    (tmp_path / "bin").mkdir()
    said = "E: Release file for copy:/x/InRelease is expired (invalid since 3d 2h). Updates will not be applied."
    (tmp_path / "bin/apt-get").write_text(f"#!/bin/sh\necho '{said}'\nexit 100\n")
    (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"expired .*mirror is out of date: name another one") as error:
        setting.cache.kernel()
    assert "\n" not in str(error.value)
    assert leftovers(setting) == []


def test_refresh_gets_a_newer_kernel_and_keeps_the_old_one(setting: Setting) -> None:
    old = setting.cache.kernel()
    image = kernel(setting.archive, "6.1.0-10-arm64", "6.1.10-1", "linux-image-arm64")
    assert setting.cache.kernel() == old
    new = setting.cache.kernel(refresh=True)
    assert new.release == "6.1.0-10-arm64"
    assert new.image.read_bytes() == image
    assert setting.cache.kernel() == new
    assert old.image.read_bytes() == setting.image  # a guest may be running from it


def test_a_package_that_the_mirror_replaced_is_found_by_new_lists(setting: Setting) -> None:
    setting.cache.busybox()  # has the lists now
    (setting.archive.directory / "pool" / "linux-image-6.1.0-9-arm64_6.1.9-1_arm64.deb").unlink()
    kernel(setting.archive, "6.1.0-10-arm64", "6.1.10-1", "linux-image-arm64")
    assert setting.cache.kernel().release == "6.1.0-10-arm64"
    with pytest.raises(UsageError, match=r"linux-image-6\.1\.0-9-arm64 6\.1\.9-1 cannot be downloaded"):
        setting.cache.download("linux-image-6.1.0-9-arm64", "6.1.9-1")


def test_other_packages_by_version_and_architecture(setting: Setting) -> None:
    setting.archive.add("linux-headers-common", "6.1.9-1", {"x": b"common"}, arch="all")
    setting.archive.add("linux-kbuild-6.1", "6.1.9-1", {"x": b"kbuild"}, arch="amd64")
    cache = setting.cache
    common = cache.download("linux-headers-common", "6.1.9-1", "all")
    kbuild = cache.download("linux-kbuild-6.1", "6.1.9-1", "amd64")
    assert common.name.endswith("_all.deb")
    assert kbuild.name.endswith("_amd64.deb")
    setting.told.clear()
    assert setting.cache.download("linux-kbuild-6.1", "6.1.9-1", "amd64") == kbuild
    assert setting.told == []


def leftovers(setting: Setting) -> list[str]:
    """Anything in the cache that looks like a result, or like a half of one."""
    folders = [setting.directory / name for name in ("debs", "kernels", "busybox")]
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_a_package_that_is_not_what_the_list_says_is_refused(setting: Setting) -> None:
    deb = setting.archive.directory / "pool" / "linux-image-6.1.0-9-arm64_6.1.9-1_arm64.deb"
    data = bytearray(deb.read_bytes())
    data[len(data) // 2] ^= 1
    deb.write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot be downloaded: .*--kernel") as error:
        setting.cache.kernel()
    assert "\n" not in str(error.value)
    assert leftovers(setting) == []


def test_an_archive_without_a_signature_is_refused(setting: Setting) -> None:
    setting.sources.write_text(setting.archive.source.replace("[trusted=yes] ", ""))
    with pytest.raises(UsageError, match=r"package lists .* cannot be had: .*not signed"):
        setting.cache.kernel()
    assert leftovers(setting) == []


def test_an_archive_that_cannot_be_reached_is_one_line(setting: Setting) -> None:
    shutil.rmtree(setting.archive.directory)
    with pytest.raises(UsageError, match=r"package lists .* cannot be had: .*--kernel") as error:
        setting.cache.kernel()
    assert "\n" not in str(error.value)


def test_no_debian_source_is_said(setting: Setting) -> None:
    setting.sources.write_text("deb copy:/x some-third-party main\n# deb copy:/y stable main\n")
    with pytest.raises(UsageError, match=r"no Debian package source .*--kernel"):
        setting.cache.kernel()


def test_no_apt_is_said(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_apt(monkeypatch, tmp_path)
    with pytest.raises(UsageError, match=r"no apt-get here: give --kernel"):
        setting.cache.kernel()


def test_a_package_without_a_kernel_in_it_is_said(setting: Setting) -> None:
    setting.archive.add("linux-image-6.1.0-9-arm64", "6.1.9-1", {"usr/share/x": b""})
    shutil.rmtree(setting.archive.directory / "build")
    setting.archive.add("linux-image-6.1.0-9-arm64", "6.1.9-1", {"usr/share/x": b""})
    with pytest.raises(UsageError, match=r"has no vmlinuz-6\.1\.0-9-arm64 in it"):
        setting.cache.kernel()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kernels": 5, "default": [], "debs": {"a=1": 5}, "busybox": 7}'])
def test_a_damaged_index_only_costs_another_download(setting: Setting, text: str) -> None:
    first = setting.cache.kernel()
    (setting.directory / "index.json").write_text(text)
    assert setting.cache.cached_kernels() == []
    assert setting.cache.cached_busybox() is None
    assert setting.cache.kernel() == first


def test_a_file_that_went_away_is_made_again(setting: Setting) -> None:
    setting.cache.kernel().image.unlink()
    assert setting.cache.kernel().image.read_bytes() == setting.image


def test_two_at_once_download_once(setting: Setting) -> None:
    with ThreadPoolExecutor(2) as pool:
        caches = [setting.cache, setting.cache]
        first, second = pool.map(lambda cache: cache.kernel(), caches)
    assert first == second
    assert sum(line.startswith("downloading linux-image-6.1.0-9-arm64 6") for line in setting.told) == 1


def test_waiting_for_another_process_has_a_limit(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_LOCK_TIMEOUT", 0.1)
    setting.directory.mkdir()
    with (setting.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"another qemu-sdei holds .*/lock"):
            setting.cache.kernel()
    assert any("waiting for another" in line for line in setting.told)


def test_a_cache_that_cannot_be_written_is_said(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be used: Not a directory.*XDG_CACHE_HOME"):
        DebianCache(tmp_path / "file" / "cache").kernel()
    with pytest.raises(UsageError, match="without such characters"):
        DebianCache(tmp_path / 'a"b').kernel()


def test_no_descriptor_is_left_open(setting: Setting) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    setting.cache.kernel()
    setting.cache.busybox()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_uefi_is_downloaded_once(setting: Setting) -> None:
    firmware = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
    setting.archive.add("qemu-efi-aarch64", "2022.11-6", {"usr/share/AAVMF/AAVMF_CODE.fd": b"no", firmware: b"uefi"})
    path = setting.cache.uefi()
    assert path.read_bytes() == b"uefi"
    setting.told.clear()
    assert setting.cache.uefi() == path
    assert not setting.told
