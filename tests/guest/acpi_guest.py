"""ACPI guests as tests look at them: the tables that lie in their RAM, and Debian's modules for their devices."""

from __future__ import annotations

import hashlib
import lzma
import mmap
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from qemu_sdei.acpi.tables import Fadt, Rsdp, Xsdt
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache


def area_of(guest: Guest) -> AcpiArea:
    """Where the guest's tables are, computed as the backend computes it."""
    return AcpiArea.of(BootConfig.from_json(guest.placement.plan.boot_json(None)))


def emitted(guest: Guest) -> dict[str, bytes]:
    """The tables in the guest's RAM, by signature, from the RSDP on. (`virt` has one of each.)"""
    with mmap.mmap(guest.placement.ram.fd, guest.placement.plan.ram_size, prot=mmap.PROT_READ) as ram:

        def at(address: int, size: int) -> bytes:
            return ram[address - RAM_BASE : address - RAM_BASE + size]

        def table(address: int) -> bytes:
            return at(address, int.from_bytes(at(address + 4, 4), "little"))

        start, size = area_of(guest).tables
        rsdp = Rsdp.from_bytes(at(at(start, size).index(b"RSD PTR ") + start, 36))
        xsdt = Xsdt.from_bytes(table(rsdp.xsdt_address))
        found = {data[:4].decode(): data for data in map(table, xsdt.entries)}
        found["DSDT"] = table(Fadt.from_bytes(found["FACP"]).x_dsdt)
    return found


def seen_by_linux(guest: Guest) -> dict[str, str]:
    """MD5 of every table that the kernel shows, by signature."""
    result = guest.run("cd /sys/firmware/acpi/tables; for t in ????; do [ -f $t ] && md5sum $t; done; true")
    assert result.status == 0
    return {name: digest for digest, name in (line.split() for line in result.output.splitlines())}


def digests(tables: dict[str, bytes]) -> dict[str, str]:
    """MD5 of tables, by signature."""
    return {name: hashlib.md5(data).hexdigest() for name, data in tables.items()}


@cache
def modules(series: str, *names: str) -> dict[str, Path]:
    """Modules of Debian's kernel for our initramfs: path in the guest → file here. The order to load them in."""
    debian = DebianCache()
    kernel = debian.kernel(series)
    folder = debian.directory / "modules" / kernel.release
    if not all((folder / f"{name}.ko").is_file() for name in names):
        folder.mkdir(parents=True, exist_ok=True)
        _extract(debian.download(kernel.package, kernel.version), folder, set(names))
    return {f"/lib/{name}.ko": folder / f"{name}.ko" for name in names}


def _extract(deb: Path, folder: Path, names: set[str]) -> None:
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            name, _, rest = Path(member.name).name.partition(".")
            if name in names and rest in ("ko", "ko.xz") and (data := archive.extractfile(member)):
                module = data.read()
                (folder / f"{name}.ko").write_bytes(lzma.decompress(module) if rest == "ko.xz" else module)
    assert process.wait(60) == 0
