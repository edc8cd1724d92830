"""The tables that `qemu-sdei tables` writes, in a kernel: a guest of ours has them, an initrd brings them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.acpi.formats.acpidump import Entry, read
from qemu_sdei.boot import initramfs
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import GuestOptions
from tests.boot.newc import entries
from tests.guest.acpi_guest import digests, seen_by_linux
from tests.guest.test_cpus import booted

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SERIES = "6.1"


def tables(*words: str) -> bytes:
    """What the command writes to standard output."""
    command = [sys.executable, "-m", "qemu_sdei", "tables", *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def plain(initrd: bytes, folder: Path) -> str:
    """The console of Debian's kernel, started by EDK II on a QEMU that has nothing of ours, until it powers off."""
    debian = DebianCache()
    (folder / "initrd").write_bytes(initrd)
    done = subprocess.run(
        ["qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "1G",
         "-nodefaults", "-display", "none", "-serial", "stdio", "-bios", str(debian.uefi()), "-no-reboot",
         "-kernel", str(debian.kernel(SERIES).image), "-initrd", str(folder / "initrd"),
         "-append", "console=ttyAMA0 panic=-1 quiet"],
        check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=150,
    )  # fmt: skip
    return done.stdout.decode(errors="replace").replace("\r", "")


def own_initramfs(script: str) -> bytes:
    busybox = DebianCache().busybox().read_bytes()
    return initramfs.build(busybox, command=["sh", "-c", f"{script}; poweroff -f"], nonce="t", extra_files={})


def table_in(console: str, name: str) -> bytes:
    """What `show` printed of one table."""
    found = re.search(rf"^{name}:((?:\n[0-9a-f]+)+)$", console, re.MULTILINE)
    assert found is not None, f"no {name}:\n{console[-3000:]}"
    return bytes.fromhex(found[1])


def show(*names: str) -> str:
    return "; ".join(f"echo {name}:; xxd -p /sys/firmware/acpi/tables/{name}" for name in names)


@pytest.mark.timeout(180)
def test_a_guest_by_acpi_has_the_tables_that_are_written_for_its_machine() -> None:
    written: list[Entry] = read(tables("--smp", "3", "--memory", "512M", "--format", "acpidump"))
    expected = {entry.name: entry.data for entry in written if entry.name not in ("RSDP", "XSDT")}
    with booted(GuestOptions(series=SERIES, boot="acpi", smp=3, memory="512M", append="quiet")) as client:
        assert seen_by_linux(client.guest) == digests(expected)


@pytest.mark.timeout(400)
def test_a_stock_kernel_takes_the_override_from_its_initrd(tmp_path: Path) -> None:
    (tmp_path / "FACP").write_bytes(table_in(plain(own_initramfs(show("FACP")), tmp_path), "FACP"))
    override = tables(
        "--format", "cpio", "--ghes", "ghes@0x7ff00000", "--fadt", str(tmp_path / "FACP"), "--method", "hvc"
    )
    written = {Path(path).stem.upper(): data for path, (_, data, _) in entries(override).items() if data}
    assert set(written) == {"HEST", "AGDI", "FACP"}
    console = plain(override + own_initramfs(f"dmesg; {show(*written)}"), tmp_path)
    for name, data in written.items():
        assert f"{name} ACPI table found in initrd [kernel/firmware/acpi/{name.lower()}.aml][{len(data):#x}]" in console
        assert table_in(console, name) == data
    assert "Table Upgrade: override [FACP-BOCHS -BXPC    ]" in console
    assert "Table Upgrade: install [HEST-QSDEI -QEMUSDEI]" in console
    # The kernel went on by what the new FADT says.
    assert "psci: probing for conduit method from ACPI." in console
    assert "Brought up 1 node, 2 CPUs" in console
