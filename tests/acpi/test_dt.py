"""QEMU's device tree, patched: what Linux finds in it, and what it must not find."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.acpi import DtError
from qemu_sdei.acpi.dt import patch
from qemu_sdei.acpi.dt_firmware import Conduit
from qemu_sdei.acpi.fdt import Node, flatten, parse
from tests.acpi.trees import GIB, RAM_BASE, qemu_tree, small_dtb, small_tree

USABLE = (RAM_BASE, GIB - 0x20_0000)


def patched(
    dtb: bytes,
    nr_cpus: int,
    *,
    conduit: Conduit = "smc",
    memory: tuple[int, int] = USABLE,
    bootargs: str = "console=ttyAMA0",
    initrd: tuple[int, int] | None = None,
    sdei: bool = True,
) -> Node:
    out = patch(dtb, nr_cpus=nr_cpus, conduit=conduit, memory=memory, bootargs=bootargs, initrd=initrd, sdei=sdei)
    return parse(out).root


def at(root: Node, path: str) -> Node:
    node = root
    for name in path.split("/"):
        found = node.child(name)
        assert found is not None, f"no {path}"
        node = found
    return node


def memory_of(root: Node) -> list[tuple[int, int]]:
    """(base, size) of all that a kernel would take for RAM, whatever the status of the node."""
    regs = [node.properties["reg"] for node in root.children if node.text("device_type") == "memory"]
    words = [int.from_bytes(reg[i : i + 8], "big") for reg in regs for i in range(0, len(reg), 8)]
    return sorted(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("nr_cpus", [1, 2, 20, 64])
def test_firmware_is_announced_and_every_cpu_is_started_by_psci(nr_cpus: int) -> None:
    root = patched(qemu_tree(nr_cpus), nr_cpus)
    assert at(root, "psci").properties["compatible"] == b"arm,psci-1.0\0arm,psci-0.2\0"
    assert at(root, "psci").text("method") == "smc"
    assert at(root, "firmware/sdei").text("compatible") == "arm,sdei-1.0"
    assert at(root, "firmware/sdei").text("method") == "smc"
    cpus = [node for node in at(root, "cpus").children if node.name.startswith("cpu@")]
    assert [cpu.text("enable-method") for cpu in cpus] == ["psci"] * nr_cpus


def test_conduit_is_the_method() -> None:
    root = patched(qemu_tree(2), 2, conduit="hvc")
    assert at(root, "psci").text("method") == at(root, "firmware/sdei").text("method") == "hvc"


def test_sdei_can_be_left_out() -> None:
    assert patched(qemu_tree(2), 2, sdei=False).child("firmware") is None


def test_the_hidden_part_of_ram_and_secure_sram_are_not_memory() -> None:
    assert memory_of(patched(qemu_tree(2), 2)) == [USABLE]


def test_secure_devices_stay_disabled_and_the_console_is_the_guests() -> None:
    root = patched(qemu_tree(2), 2)
    for path in ("pl011@9040000", "pl061@90b0000", "secflash@0", "gpio-poweroff", "gpio-restart"):
        assert at(root, path).text("status") == "disabled"
    assert at(root, "chosen").text("stdout-path") == "/pl011@9000000"
    assert root.child("secure-chosen") is None


def test_numa_nodes_are_clipped_one_by_one() -> None:
    options = "-object memory-backend-ram,id=a,size=512M -object memory-backend-ram,id=b,size=512M"
    options += " -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1"
    dtb = qemu_tree(2, *options.split())
    half = GIB // 2
    assert memory_of(patched(dtb, 2)) == [(RAM_BASE, half), (RAM_BASE + half, half - 0x20_0000)]
    # A node that is hidden as a whole is gone: a kernel does not like empty ones.
    assert memory_of(patched(dtb, 2, memory=(RAM_BASE, half))) == [(RAM_BASE, half)]


def test_command_line_and_initrd() -> None:
    chosen = at(patched(qemu_tree(2), 2, bootargs="quiet a=b", initrd=(0x4300_0000, 0x1_2345_6789)), "chosen")
    assert chosen.text("bootargs") == "quiet a=b"
    assert chosen.properties["linux,initrd-start"] == (0x4300_0000).to_bytes(8, "big")
    assert chosen.properties["linux,initrd-end"] == (0x1_2345_6789).to_bytes(8, "big")
    assert len(chosen.properties["rng-seed"]) == 32  # QEMU's entropy for the guest stays


def test_patching_again_changes_nothing_that_was_patched() -> None:
    once = patch(qemu_tree(2), nr_cpus=2, conduit="hvc", memory=USABLE, bootargs="x", initrd=(1 << 30, 2 << 30))
    twice = patch(once, nr_cpus=2, conduit="smc", memory=USABLE, bootargs="y", initrd=None)
    assert parse(twice).root == patched(qemu_tree(2), 2, bootargs="y")


def test_size_does_not_depend_on_addresses() -> None:
    sizes = {
        len(patch(small_dtb(), nr_cpus=1, conduit="smc", memory=USABLE, bootargs="", initrd=initrd))
        for initrd in ((0, 1), (0x4000_0000, 0x5000_0000), (1 << 40, (1 << 40) + 1))
    }
    assert len(sizes) == 1


@pytest.mark.skipif(shutil.which("dtc") is None, reason="no dtc")
@pytest.mark.parametrize("nr_cpus", [1, 2, 64])
def test_dtc_accepts_it_with_no_warning_that_qemus_tree_does_not_cause(nr_cpus: int, tmp_path: Path) -> None:
    def warnings(dtb: bytes) -> set[str]:
        path = tmp_path / "a.dtb"
        path.write_bytes(dtb)
        command = ["dtc", "-I", "dtb", "-O", "dtb", "-o", "/dev/null", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return set(result.stderr.splitlines())

    dtb = qemu_tree(nr_cpus)
    out = patch(dtb, nr_cpus=nr_cpus, conduit="smc", memory=USABLE, bootargs="x", initrd=(1 << 30, 2 << 30))
    assert warnings(out) <= warnings(dtb)


def test_another_number_of_cpus_is_an_error() -> None:
    with pytest.raises(DtError, match="2 CPUs, not 3"):
        patched(qemu_tree(2), 3)


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (b"", "no usable reg"),
        (b"\0\0\0\1", "no usable reg"),
        ((0).to_bytes(8, "big") + (GIB).to_bytes(8, "big"), "no memory between"),
        ((RAM_BASE).to_bytes(8, "big") + bytes(8), "no memory between"),
    ],
)
def test_memory_that_cannot_be_is_an_error(memory: bytes, message: str) -> None:
    with pytest.raises(DtError, match=message):
        patched(small_dtb(memory=memory), 1)


def test_cells_that_cannot_be_are_an_error() -> None:
    tree = small_tree()
    tree.root.properties["#size-cells"] = b"\0\0\0\7"
    with pytest.raises(DtError, match="#size-cells is not 1 or 2"):
        patched(flatten(tree), 1)


def test_a_nul_would_cut_the_command_line() -> None:
    with pytest.raises(DtError, match="NUL"):
        patched(small_dtb(), 1, bootargs="a\0b")


@given(st.data())
def test_damage_to_qemus_tree_is_an_error_or_a_tree(data: st.DataObject) -> None:
    dtb = bytearray(flatten(parse(qemu_tree(2))))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, len(dtb) * 8 - 1))
        dtb[bit // 8] ^= 1 << bit % 8
    try:
        patched(bytes(dtb[: data.draw(st.sampled_from((len(dtb), len(dtb) // 2)))]), 2)
    except DtError:
        pass
