"""`--symbols`: every kind of file, compressed or not, and directories as distributions have them."""

from __future__ import annotations

import gzip
import lzma
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import sources
from qemu_sdei.symbols.sources import Sources, load
from qemu_sdei.symbols.symbolizer import Symbolizer
from tests.boot.kernels import zboot
from tests.symbols import elves
from tests.symbols.kallsyms_maker import image
from tests.symbols.test_image_symbols import SYMBOLS

RELEASE = "6.1.0-56-arm64"
STUB = b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(found: Sources) -> list[str]:
    return [Path(kernel.source).name for kernel in found.kernels]


@pytest.mark.parametrize(
    "data",
    [
        elves.linux(),
        elves.system_map(),
        gzip.compress(elves.linux()),
        lzma.compress(elves.system_map()),
        image(SYMBOLS, since_6_4=True),
        gzip.compress(image(SYMBOLS, since_6_4=False)),
        zboot(gzip.compress(image(SYMBOLS, since_6_4=False)), b"gzip"),
    ],
    ids=["vmlinux", "System.map", "vmlinux.gz", "System.map.xz", "Image", "Image.gz", "zboot"],
)
def test_a_kernels_symbols_are_read_from_whatever_has_them(data: bytes, tmp_path: Path) -> None:
    found = load([str(put(tmp_path / "some file", data))])
    assert len(found.kernels) == 1
    assert found.kernels[0].table.address_of("__sdei_asm_handler") is not None


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", elves.linux())
    (tmp_path / "vmlinux").symlink_to("real")
    assert names(load([str(tmp_path / "vmlinux")])) == ["real"]


@pytest.mark.parametrize(
    "data", [elves.note(bytes(range(20))), b"OSRELEASE=6.1\nBUILD-ID=" + bytes(range(20)).hex().encode()]
)
def test_the_guests_build_id_can_come_from_a_file(data: bytes, tmp_path: Path) -> None:
    assert load([str(put(tmp_path / "notes", data))]).build_id == bytes(range(20)).hex()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has no symbols that are known here"),
        (os.urandom(5000), "has no symbols that are known here"),
        (b"hello\nworld\n", "has no symbols that are known here"),
        (STUB, "linux-image-RELEASE-dbg"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd|damaged"),
        (gzip.compress(bytes(100_000_000), 1), "or more: damaged"),
        (gzip.compress(elves.linux())[:-20], "cut short"),
        (bytes(56) + b"ARMd" + bytes(5000), "a kernel without symbols in it"),
    ],
)
def test_what_has_none_is_refused_in_one_line(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load([str(put(tmp_path / "FILE", data))])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for word in ("nothing", "fifo"):
        with pytest.raises(UsageError, match="cannot be read"):
            load([str(tmp_path / word)])


def test_a_listing_of_ten_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = put(tmp_path / "System.map", elves.system_map())
    os.truncate(path, 3 << 30)
    with pytest.raises(UsageError, match="has more than 64 MiB"):
        load([str(path)])
    os.truncate(path, 10 << 30)
    with pytest.raises(UsageError, match="more than it can have"):
        load([str(path)])


def test_debians_files_of_a_kernel_are_found_in_their_directory(tmp_path: Path) -> None:
    """System.map is a placeholder there, and the kernel itself has what is needed; modules are read when they run."""
    put(tmp_path / f"boot/System.map-{RELEASE}", STUB)
    put(tmp_path / f"boot/vmlinuz-{RELEASE}", image(SYMBOLS, since_6_4=False))
    put(tmp_path / f"lib/modules/{RELEASE}/kernel/drivers/firmware/sdei-test.ko.xz", lzma.compress(elves.module()))
    put(tmp_path / f"lib/modules/{RELEASE}/kernel/broken.ko", b"broken")
    found = load([str(tmp_path)])
    assert names(found) == [f"vmlinuz-{RELEASE}"]
    told: list[str] = []
    symbols = Symbolizer(found, tell=told.append)
    symbols.learn_modules("sdei_test 1 0 - Live 0xffff800001000000\nother 1 0 - Live 0xffff800002000000\n")
    assert symbols.name(0xFFFF_8000_0100_0010) == "on_event+0x0/0x40 [sdei_test]"
    assert not told
    symbols.learn_modules("broken 1 0 - Live 0xffff800003000000\n")
    symbols.name(0xFFFF_8000_0300_0010)
    assert any("broken.ko" in sentence for sentence in told)


def test_debugging_symbols_are_taken_before_others(tmp_path: Path) -> None:
    put(tmp_path / f"usr/lib/debug/boot/vmlinux-{RELEASE}", elves.linux())
    put(tmp_path / f"usr/lib/debug/boot/System.map-{RELEASE}", elves.system_map())
    put(tmp_path / f"boot/vmlinuz-{RELEASE}", image(SYMBOLS, since_6_4=False))
    put(tmp_path / "boot/System.map-6.12.1", elves.system_map(move=0x10))
    put(tmp_path / f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux", b"not an ELF file")
    found = load([str(tmp_path)])
    assert sorted(names(found)) == ["System.map-6.12.1", f"vmlinux-{RELEASE}"]


def test_of_a_systems_root_only_the_usual_places_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where /lib is a link to /usr/lib, as it is in Debian."""
    put(tmp_path / f"usr/lib/debug/boot/vmlinux-{RELEASE}", elves.linux())
    put(tmp_path / f"usr/lib/modules/{RELEASE}/kernel/sdei_test.ko", elves.module())
    (tmp_path / "lib").symlink_to("usr/lib")
    for number in range(20):
        put(tmp_path / f"home/somebody/{number}", b"")
    monkeypatch.setattr(sources, "MAX_NAMES", 5)
    found = load([str(tmp_path)])
    assert names(found) == [f"vmlinux-{RELEASE}"]
    assert len(found.modules["sdei_test"]) == 1


def test_a_build_tree_is_a_directory_too(tmp_path: Path) -> None:
    put(tmp_path / "vmlinux", elves.linux())
    put(tmp_path / "System.map", elves.system_map())
    put(tmp_path / "arch/arm64/boot/Image", image(SYMBOLS, since_6_4=False))
    put(tmp_path / "drivers/virtio/virtio_net.ko", elves.module("virtio_net"))
    found = load([str(tmp_path)])
    assert names(found) == ["vmlinux"]
    assert list(found.modules) == ["virtio_net"]


def test_the_module_of_the_right_kernel_is_taken(tmp_path: Path) -> None:
    for release in ("6.12.1", RELEASE):
        put(tmp_path / f"lib/modules/{release}/sdei_test.ko", elves.module(release=release))
    found = load([str(tmp_path)])
    module = found.module("sdei_test", RELEASE)
    assert module is not None
    assert RELEASE in module.source
    assert found.module("sdei_test", "6.13.1") is None
    assert found.module("nothing", RELEASE) is None


def test_a_directory_without_symbols_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "readme", b"nothing")
    with pytest.raises(UsageError, match="has no symbols in it"):
        load([str(tmp_path)])
    put(tmp_path / f"boot/System.map-{RELEASE}", STUB)
    with pytest.raises(UsageError, match="linux-image-RELEASE-dbg"):
        load([str(tmp_path)])


def test_too_large_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        put(tmp_path / f"System.map-6.{number}", elves.system_map())
    with pytest.raises(UsageError, match="symbols of 10 kernels"):
        load([str(tmp_path)])
    monkeypatch.setattr(sources, "MAX_NAMES", 5)
    with pytest.raises(UsageError, match="more than 5 files"):
        load([str(tmp_path)])


def test_links_of_a_directory_lead_nowhere_for_ever(tmp_path: Path) -> None:
    put(tmp_path / "vmlinux", elves.linux())
    (tmp_path / "build").symlink_to(tmp_path)
    assert names(load([str(tmp_path)])) == ["vmlinux"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x7fELF", b"\x1f\x8b", b"ffff800000000000 T _text\n", bytes(56) + b"ARMd"]),
)
def test_noise_is_refused_in_one_line(tmp_path: Path, data: bytes, head: bytes) -> None:
    try:
        load([str(put(tmp_path / "noise", head + data))])
    except UsageError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
