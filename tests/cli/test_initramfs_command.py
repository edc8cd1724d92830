"""`qemu-sdei initramfs export`."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from tests.boot.test_initramfs import busybox
from tests.cli.conftest import Command
from tests.host.packages import CONFIG, tree

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "busybox").write_bytes(busybox())
    (tmp_path / "hello").write_text("hello, guest\n")
    made = tree(tmp_path / "linux", config=f"{CONFIG}CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\n")
    (tmp_path / "disk").write_bytes(bytes(512))
    return [
        "initramfs", "export", "--kernel", str(made), "--busybox", str(tmp_path / "busybox"),
        "--file", f"{tmp_path / 'hello'}:etc/hello", "--drive", str(tmp_path / "disk"),
    ]  # fmt: skip


def test_it_has_what_run_would_boot(command: Command, words: list[str], tmp_path: Path) -> None:
    plain = tmp_path / "i.cpio"
    done = command(*words, "-o", str(plain), "--", "cat /etc/hello")
    assert done.returncode == 0, done.stderr
    data = plain.read_bytes()
    assert data.startswith(b"070701")
    for part in (b"hello, guest\n", b"cat /etc/hello\n", b"qemu-sdei/drivers/01-virtio_blk.ko", b"bin/agent"):
        assert part in data
    packed = tmp_path / "i.gz"
    assert command(*words, "-o", str(packed), "--", "cat /etc/hello").returncode == 0
    assert gzip.decompress(packed.read_bytes()) == data


def test_what_cannot_be_exported(command: Command, words: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for more, what in (
        (["--initrd", "/bin/sh"], "leave out --initrd"),
        (["--kdump"], "leave out --kdump"),
        (["--modules", "/nonexistent"], "no such directory"),
    ):
        files = [word for word in words if "hello" not in word and word != "--file"]
        done = command(*files, *more, "-o", out)
        assert (done.returncode, what in done.stderr) == (2, True), done.stderr
        assert not Path(out).exists()
    command(*words, "-o", out)
    assert "--force" in command(*words, "-o", out).stderr
