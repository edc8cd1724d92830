"""Source and overlays, checked by the device-tree compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi import DtError
from qemu_sdei.acpi.dt import merge
from qemu_sdei.acpi.dt_firmware import announce
from qemu_sdei.acpi.dts import overlay, overlay_tree, source, value_source
from qemu_sdei.acpi.fdt import Node, Tree, flatten, parse
from tests.acpi.trees import qemu_tree, small_dtb
from tests.examples import examples

needs_dtc = pytest.mark.skipif(shutil.which("dtc") is None, reason="no dtc")


def dtc(text: str, *options: str) -> Tree:
    command = ["dtc", "-q", "-I", "dts", "-O", "dtb", *options]
    return parse(subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=30).stdout)


def fdtoverlay(base: bytes, blob: bytes, folder: Path) -> Node:
    (folder / "base.dtb").write_bytes(base)
    (folder / "ours.dtbo").write_bytes(blob)
    command = ["fdtoverlay", "-i", "base.dtb", "-o", "out.dtb", "ours.dtbo"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return parse((folder / "out.dtb").read_bytes()).root


def firmware(root: Node) -> tuple[bytes, bytes, list[str]]:
    node = root.child("firmware")
    assert node is not None
    sdei, psci, cpus = node.child("sdei"), root.child("psci"), root.child("cpus")
    assert sdei is not None
    assert psci is not None
    assert cpus is not None
    enable = [cpu.text("enable-method") for cpu in cpus.children if cpu.text("device_type") == "cpu"]
    return sdei.properties["method"], psci.properties["method"], enable


@needs_dtc
def test_qemus_tree_as_source_compiles_to_the_same_tree() -> None:
    tree = parse(qemu_tree(4))
    assert dtc(source(tree)) == tree


@needs_dtc
@settings(max_examples=examples(40))
@given(st.lists(st.binary(max_size=24), min_size=1, max_size=12))
def test_any_property_as_source_compiles_to_the_same_bytes(values: list[bytes]) -> None:
    root = Node("", {f"p{number}": value for number, value in enumerate(values)})
    assert dtc(source(Tree(root))).root.properties == root.properties


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", ""),
        (b"smc\0", '"smc"'),
        (b"a\0b\0", '"a", "b"'),
        (b'say "x" \\\0', '"say \\"x\\" \\\\"'),
        (b"\0\0\0\1\0\0\0\x10", "<0x1 0x10>"),
        (b"\1\2\3", "[01 02 03]"),
    ],
)
def test_what_people_read(value: bytes, text: str) -> None:
    assert value_source(value) == text


@pytest.mark.parametrize("name", ["a b", "x;y", "new\nline", "\x1b[2J", ""])
def test_a_name_that_source_cannot_have(name: str) -> None:
    with pytest.raises(DtError, match="source"):
        source(Tree(Node("", {name: b""})))
    with pytest.raises(DtError, match="source"):
        source(Tree(Node("", {}, [Node(name)])))


@needs_dtc
@pytest.mark.parametrize("method", ["smc", "hvc"])
@pytest.mark.parametrize("by", ["source", "blob"])
def test_the_overlay_applies_to_qemus_tree(method: str, by: str, tmp_path: Path) -> None:
    root = Node("")
    for number in range(2):
        root.ensure("cpus").ensure(f"cpu@{number}").set_text("enable-method", "psci")
    announce(root, conduit="smc" if method == "smc" else "hvc")
    blob = flatten(dtc(overlay(root), "-@")) if by == "source" else flatten(overlay_tree(root))
    applied = fdtoverlay(qemu_tree(2), blob, tmp_path)
    expected = method.encode() + b"\0"
    assert firmware(applied) == (expected, expected, ["psci", "psci"])


def test_merging_keeps_the_rest_and_is_done_once() -> None:
    before = parse(qemu_tree(2))
    once = merge(qemu_tree(2), conduit="hvc")
    assert firmware(parse(once).root) == (b"hvc\0", b"hvc\0", ["psci", "psci"])
    assert merge(once, conduit="hvc") == once
    assert merge(once + b"behind its end", conduit="hvc") == once
    after = parse(once)
    assert after.reservations == before.reservations
    names = [node.name for node in before.root.children]
    assert [node.name for node in after.root.children if node.name in names] == names


@needs_dtc
def test_a_tree_that_has_the_nodes_is_not_even_put_in_another_order() -> None:
    """With room behind the strings, and the strings in another order than ours: as other programs write it."""
    text = source(parse(merge(qemu_tree(2), conduit="smc")))
    command = ["dtc", "-q", "-I", "dts", "-O", "dtb", "-p", "512", "-s"]
    blob = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=30).stdout
    assert flatten(parse(blob)) != blob
    assert merge(blob, conduit="smc") == blob


def test_merging_sets_another_method_right() -> None:
    assert firmware(parse(merge(merge(small_dtb(1), conduit="hvc"), conduit="smc")).root)[0] == b"smc\0"


def test_what_is_not_wanted_is_not_added() -> None:
    root = parse(merge(small_dtb(1), conduit="smc", psci=False)).root
    assert root.child("psci") is None
    assert root.child("firmware") is not None
    root = parse(merge(small_dtb(1), conduit="smc", sdei=False)).root
    assert root.child("firmware") is None
    assert root.child("psci") is not None


def test_a_damaged_tree_is_refused() -> None:
    blob = small_dtb(1)
    for broken in (blob[:-8], b"", b"\0" * 64, blob[:56] + b"\xff" * (len(blob) - 56)):
        with pytest.raises(DtError):
            merge(broken, conduit="smc")
