"""Flattened device trees, there and back, with dtc as a second opinion; and damaged ones."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi import DtError
from qemu_sdei.acpi.dt import patch
from qemu_sdei.acpi.fdt import MAX_NAME, MAX_SIZE, Node, Tree, flatten, parse, total_size
from tests.acpi.hostile_trees import TREES
from tests.acpi.trees import qemu_tree, small_dtb
from tests.examples import examples

needs_dtc = pytest.mark.skipif(shutil.which("dtc") is None, reason="no dtc")

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789,._+-", min_size=1, max_size=31)
NODES = st.recursive(
    st.builds(Node, NAMES, st.dictionaries(NAMES, st.binary(max_size=40), max_size=4)),
    lambda below: st.builds(
        Node,
        NAMES,
        st.dictionaries(NAMES, st.binary(max_size=40), max_size=4),
        st.lists(below, max_size=4, unique_by=lambda node: node.name),
    ),
    max_leaves=12,
)
RESERVATIONS = st.lists(st.tuples(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1)), max_size=3)


def source(dtb: bytes, path: Path) -> str:
    """`dtb` as device-tree source, nodes and properties sorted; fails if dtc does not take it."""
    path.write_bytes(dtb)
    command = ["dtc", "-q", "-s", "-I", "dtb", "-O", "dts", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@given(NODES, RESERVATIONS, st.integers(0, 2**32 - 1))
def test_a_tree_survives_flattening(root: Node, reservations: list[tuple[int, int]], boot_cpu: int) -> None:
    root.name = ""
    tree = Tree(root, reservations, boot_cpu)
    assert parse(flatten(tree)) == tree


@needs_dtc
@pytest.mark.parametrize("nr_cpus", [1, 20])
def test_dtc_reads_the_same_from_ours_as_from_qemus(nr_cpus: int, tmp_path: Path) -> None:
    original = qemu_tree(nr_cpus)
    assert source(flatten(parse(original)), tmp_path / "a") == source(original, tmp_path / "b")


def test_bytes_behind_the_tree_are_ignored() -> None:
    dtb = small_dtb()
    assert parse(dtb + b"anything") == parse(dtb)


@settings(max_examples=examples(300))
@given(st.data())
def test_damaged_trees_are_refused_or_read_but_never_crash(data: st.DataObject) -> None:
    dtb = bytearray(small_dtb(3))
    for _ in range(data.draw(st.integers(1, 4))):
        dtb[data.draw(st.integers(0, len(dtb) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(dtb[: data.draw(st.integers(0, len(dtb)))])
    try:
        tree = parse(damaged)
    except DtError:
        return
    assert parse(flatten(tree)) == tree


@given(st.binary(max_size=400))
def test_any_bytes_behind_a_good_header_are_harmless(body: bytes) -> None:
    header = struct.pack(">10I", 0xD00DFEED, 40 + len(body), 56, 40, 40, 17, 16, 0, len(body), max(len(body) - 16, 0))
    try:
        parse(header + body)
    except DtError:
        pass


def test_deep_nesting_is_refused() -> None:
    root = node = Node("")
    for _ in range(100):
        node = node.ensure("n")
    with pytest.raises(DtError, match="too deep"):
        parse(flatten(Tree(root)))


@pytest.mark.parametrize(
    ("dtb", "message"),
    [
        (b"", "at least 40 bytes"),
        (bytes(64), "no device tree"),
        (struct.pack(">10I", 0xD00DFEED, MAX_SIZE + 8, 0, 0, 0, 17, 16, 0, 0, 0), "at most"),
        (small_dtb()[:100], "cut short"),
        (struct.pack(">10I", 0xD00DFEED, 40, 0, 0, 0, 3, 1, 0, 0, 0), "version 3"),
    ],
)
def test_the_message_says_what_is_wrong(dtb: bytes, message: str) -> None:
    with pytest.raises(DtError, match=message):
        parse(dtb)


def test_a_tree_for_the_guest_is_never_larger_than_linux_maps() -> None:
    with pytest.raises(DtError, match="at most"):
        flatten(Tree(Node("", {"big": bytes(MAX_SIZE)})))


def test_total_size_looks_at_the_header_only() -> None:
    dtb = small_dtb()
    assert total_size(dtb[:40]) == len(dtb)


@pytest.mark.parametrize("make", TREES, ids=lambda make: make.__name__)
def test_what_a_tree_becomes_is_bounded(make: Callable[[], bytes]) -> None:
    """2 MiB that could become gigabytes: read or refused, at a cost that is a small multiple of the bytes."""
    dtb = make()
    tracemalloc.start()
    try:
        with contextlib.suppress(DtError):
            patch(dtb, nr_cpus=1, conduit="smc", memory=(0x4000_0000, 1 << 30), bootargs="")
        assert tracemalloc.get_traced_memory()[1] < 16 * MAX_SIZE
    finally:
        tracemalloc.stop()


def test_names_of_real_boards_are_read() -> None:
    """Longer than the specification's 31 characters."""
    root = Node("", {"p" * MAX_NAME: b""}, [Node("n" * MAX_NAME)])
    assert parse(flatten(Tree(root))).root == root
    for name in (Node("", {"p" * (MAX_NAME + 1): b""}), Node("", {}, [Node("n" * (MAX_NAME + 1))])):
        with pytest.raises(DtError, match="255"):
            parse(flatten(Tree(name)))
