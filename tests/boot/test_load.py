"""What is in guest RAM after loading, read back with nothing but the entry registers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei import boot
from qemu_sdei.acpi.fdt import parse, total_size
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.errors import GuestError, UsageError
from tests.acpi.trees import RAM_BASE, qemu_tree, small_dtb
from tests.boot.kernels import MIB, arm64_image

RAM_SIZE = 128 * MIB


def reset_ram(nr_cpus: int = 2) -> memoryview:
    """RAM as QEMU leaves it at a reset."""
    ram = memoryview(bytearray(RAM_SIZE))
    tree = qemu_tree(nr_cpus)
    ram[: len(tree)] = tree
    return ram


@pytest.fixture
def config(tmp_path: Path) -> BootConfig:
    (tmp_path / "Image").write_bytes(arm64_image())
    (tmp_path / "initrd").write_bytes(b"070701 an initrd" * 1000)
    return BootConfig(
        "linux", str(tmp_path / "Image"), initrd=str(tmp_path / "initrd"), append="quiet", ram_size=RAM_SIZE, nr_cpus=2
    )


def at(ram: memoryview, address: int, size: int) -> bytes:
    assert RAM_BASE <= address <= address + size <= RAM_BASE + RAM_SIZE
    return bytes(ram[address - RAM_BASE :][:size])


def test_linux_finds_its_device_tree_initrd_and_command_line(config: BootConfig) -> None:
    ram = reset_ram()
    entry = boot.load(ram, config)
    assert at(ram, entry.pc, 3 * MIB) == arm64_image()
    assert entry.x1 == 0
    dtb = at(ram, entry.x0, total_size(at(ram, entry.x0, 64)))
    chosen = parse(dtb).root.ensure("chosen")
    assert chosen.text("bootargs") == "quiet"
    start, end = (int.from_bytes(chosen.properties[f"linux,initrd-{name}"], "big") for name in ("start", "end"))
    assert at(ram, start, end - start) == b"070701 an initrd" * 1000


def test_without_an_initrd_none_is_announced(config: BootConfig) -> None:
    ram = reset_ram()
    entry = boot.load(ram, replace(config, initrd=None))
    dtb = at(ram, entry.x0, total_size(at(ram, entry.x0, 64)))
    assert "linux,initrd-start" not in parse(dtb).root.ensure("chosen").properties


def test_nothing_is_written_into_the_hidden_part(config: BootConfig) -> None:
    ram = reset_ram()
    boot.load(ram, config)
    assert bytes(ram[config.usable_size :]) == bytes(config.hidden_size)


def test_loading_again_gives_the_same_ram(config: BootConfig) -> None:
    """A backend that was killed half-way loads again; and so does every reset."""
    ram = reset_ram()
    first = boot.load(ram, config)
    once = bytes(ram)
    assert boot.load(ram, config) == first
    assert bytes(ram) == once


def test_a_reset_loads_what_the_guest_was_started_with(config: BootConfig) -> None:
    entry = boot.load(reset_ram(), config)
    Path(config.kernel).unlink()
    ram = reset_ram()
    assert boot.load(ram, config) == entry
    assert at(ram, entry.pc, 3 * MIB) == arm64_image()


@pytest.mark.parametrize("kind", ["linux", "flat"])
@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (b"", "no device tree"),
        (small_dtb(5), "5 CPUs, not 2"),
        (small_dtb(2)[:-200], "damaged"),
        (b"\xff" * 64, "no dev"),
    ],
)
def test_a_device_tree_that_is_not_this_machines_is_an_error(
    kind: str, tree: bytes, message: str, config: BootConfig
) -> None:
    ram = memoryview(bytearray(RAM_SIZE))
    ram[: len(tree)] = tree
    wanted = config if kind == "linux" else BootConfig("flat", config.kernel, ram_size=RAM_SIZE, nr_cpus=2)
    with pytest.raises(GuestError, match=f"0x40000000: .*{message}"):
        boot.load(ram, wanted)


def test_check_finds_mistakes_before_there_is_a_guest(config: BootConfig, tmp_path: Path) -> None:
    boot.check(config)
    with pytest.raises(UsageError, match=r"use --memory \d+"):
        boot.check(replace(config, ram_size=16 * MIB))
    with pytest.raises(UsageError, match="no such file"):
        boot.check(replace(config, kernel=str(tmp_path / "missing")))
    with pytest.raises(UsageError, match=r"initrd .*directory"):
        boot.check(replace(config, initrd=str(tmp_path)))


def test_flat_binary_finds_device_tree_and_command_line(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(b"\1\2\3\4" * 100)
    config = BootConfig("flat", str(tmp_path / "guest.bin"), append="vcpus=2 test", ram_size=RAM_SIZE, nr_cpus=2)
    boot.check(config)
    ram = reset_ram()
    entry = boot.load(ram, config)
    assert entry.pc == RAM_BASE + 2 * MIB
    assert at(ram, entry.pc, 400) == b"\1\2\3\4" * 100
    assert at(ram, entry.x1, 13) == b"vcpus=2 test\0"
    parse(at(ram, entry.x0, total_size(at(ram, entry.x0, 64))))
    assert entry.x0 > entry.pc + 64 * MIB  # far from whatever BSS and stacks the binary has


def test_the_packages_own_guest_is_found_by_name() -> None:
    config = BootConfig("flat", "builtin:selftest", ram_size=RAM_SIZE, nr_cpus=2)
    boot.check(config)
    assert boot.load(reset_ram(), config).pc == RAM_BASE + 2 * MIB


@pytest.mark.parametrize("name", ["builtin:nothing", "builtin:", "builtin:../errors", "builtin:init"])
def test_an_unknown_builtin_names_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"there are: .*builtin:selftest"):
        boot.check(BootConfig("flat", name))


def test_a_flat_binary_that_does_not_fit_says_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(bytes(20 * MIB))
    config = BootConfig("flat", str(tmp_path / "guest.bin"), ram_size=16 * MIB)
    with pytest.raises(UsageError, match="use --memory 32"):
        boot.check(config)
    boot.check(replace(config, ram_size=32 * MIB))


def test_ram_that_cannot_be_is_a_bug_of_the_caller(config: BootConfig) -> None:
    for ram in (memoryview(bytes(RAM_SIZE)), memoryview(bytearray(RAM_SIZE)).cast("Q"), memoryview(bytearray(4096))):
        with pytest.raises(ValueError, match="guest RAM"):
            boot.load(ram, config)
