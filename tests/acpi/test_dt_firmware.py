"""The firmware's nodes in trees of real boards' shapes: what is there is found, never doubled, and Linux finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.acpi import DtError
from qemu_sdei.acpi.dt import merge, overlay_for
from qemu_sdei.acpi.dt_firmware import PSCI, SDEI, announce, as_linux, places
from qemu_sdei.acpi.dts import overlay, overlay_tree
from qemu_sdei.acpi.fdt import Node, Tree, flatten, parse
from tests.acpi.trees import qemu_tree, small_tree

BINDINGS = "QEMU_SDEI_DT_BINDINGS"
"""Documentation/devicetree/bindings of a Linux source tree, for the test that asks dt-validate."""


def board(**cpu: bytes) -> Node:
    """Two CPUs called as the board's reg says."""
    root = small_tree(2).root
    root.set_text("compatible", "acme,board")
    root.set_text("model", "A board")
    cpus = root.ensure("cpus")
    cpus.properties |= {"#address-cells": b"\0\0\0\1", "#size-cells": bytes(4)}
    for node, reg in zip(cpus.children, (0x0, 0x100), strict=True):
        node.name = f"cpu@{reg:x}"
        node.set_text("compatible", "arm,cortex-a53")
        node.properties["reg"] = reg.to_bytes(4, "big")
        node.properties |= cpu
    return root


def psci(node: Node, *compatible: str, method: str = "smc", status: str = "") -> Node:
    node.set_text("compatible", *compatible)
    node.set_text("method", method)
    if status:
        node.set_text("status", status)
    return node


def merged(root: Node) -> Node:
    return parse(merge(flatten(Tree(root)), conduit="smc")).root


def plain() -> Node:
    return board()


def below_firmware() -> Node:
    """59 boards of Linux' tree (TI K3)."""
    root = board()
    psci(root.ensure("firmware").ensure("psci"), "arm,psci-1.0", method="hvc")
    return root


def disabled() -> Node:
    root = board()
    psci(root.ensure("psci"), "arm,psci-1.0", status="disabled")
    firmware = root.ensure("firmware")
    firmware.set_text("status", "disabled")
    psci(firmware.ensure("sdei"), SDEI, status="disabled")
    return root


def twice() -> Node:
    root = board()
    psci(root.ensure("bus").ensure("psci"), "arm,psci-0.2", method="hvc")
    psci(root.ensure("firmware").ensure("psci"), "arm,psci-1.0")
    for place in (root, root.ensure("firmware"), root.ensure("soc")):
        psci(place.ensure("sdei"), SDEI, method="hvc")
    return root


def referred_to() -> Node:
    """The second one is a power domain provider that others name by its phandle."""
    root = below_firmware()
    other = psci(root.ensure("psci"), "arm,psci-1.0", method="hvc")
    other.ensure("power-domain-cpu0").properties["phandle"] = b"\0\0\0\7"
    return root


def psci_0_1() -> Node:
    root = board()
    node = psci(root.ensure("psci"), "arm,psci")
    node.properties |= {"cpu_on": b"\x95\xc1\xba\x60", "cpu_off": b"\x95\xc1\xba\x5f", "migrate": b"\x95\xc1\xba\x61"}
    return root


def spin_table() -> Node:
    root = board(**{"cpu-release-addr": bytes(8)})
    for cpu in root.ensure("cpus").children:
        cpu.set_text("enable-method", "spin-table")
    return root


def sdei_elsewhere() -> Node:
    root = board()
    psci(root.ensure("soc").ensure("sdei@0"), SDEI, method="hvc").properties["phandle"] = b"\0\0\0\5"
    return root


BOARDS = (plain, below_firmware, disabled, twice, referred_to, psci_0_1, spin_table, sdei_elsewhere)


@pytest.mark.parametrize("make", BOARDS)
def test_linux_finds_it(make: Callable[[], Node]) -> None:
    """Whatever was there: PSCI and SDEI by the same conduit, all CPUs started by PSCI, no contradiction."""
    found = as_linux(merged(make()))
    assert found.faults == ()
    assert found.psci
    assert (found.psci_method, found.sdei, found.sdei_method, found.cpus) == ("smc", "/firmware/sdei", "smc", 2)


@pytest.mark.parametrize("make", BOARDS)
def test_nodes_of_a_kind_agree(make: Callable[[], Node]) -> None:
    """At most one of a kind is in use; what stays beside it says the same."""
    root = merged(make())
    for kind in (PSCI, (SDEI,)):
        found = places(root, kind)
        assert len([place for place in found if "status" not in place.node.properties]) == 1
        assert {place.node.text("method") for place in found} == {"smc"}


@pytest.mark.parametrize("make", BOARDS)
def test_again_changes_nothing(make: Callable[[], Node]) -> None:
    once = merge(flatten(Tree(make())), conduit="smc")
    assert merge(once, conduit="smc") == once


def test_a_node_keeps_its_place_and_what_else_is_in_it() -> None:
    root = below_firmware()
    node = places(root, PSCI)[0].node
    node.properties["phandle"] = b"\0\0\0\3"
    node.ensure("power-domain-cpu0").properties["#power-domain-cells"] = bytes(4)
    after = merged(root)
    assert [place.path for place in places(after, PSCI)] == ["/firmware/psci"]
    found = places(after, PSCI)[0].node
    assert found.properties["phandle"] == b"\0\0\0\3"
    assert found.child("power-domain-cpu0") is not None


def test_what_others_may_refer_to_stays() -> None:
    """Disabled, and with its power domains."""
    second = places(merged(referred_to()), PSCI)[1].node
    assert second.text("status") == "disabled"
    assert second.child("power-domain-cpu0") is not None


def test_psci_0_1_is_announced_with_its_ids_only() -> None:
    """To clients of "arm,psci" a node without cpu_on and cpu_off says nothing (bindings/arm/psci.yaml)."""
    node = places(merged(psci_0_1()), PSCI)[0].node
    assert node.texts("compatible") == list(PSCI)
    assert node.properties["cpu_on"] == b"\xc4\0\0\3"
    assert node.properties["cpu_off"] == b"\x84\0\0\2"
    assert "migrate" not in node.properties
    assert places(merged(plain()), PSCI)[0].node.texts("compatible") == ["arm,psci-1.0", "arm,psci-0.2"]


def test_an_overlay_is_no_base() -> None:
    nodes = Node("")
    announce(nodes, conduit="smc")
    for call in (merge, overlay_for):
        with pytest.raises(DtError, match="overlay"):
            call(flatten(overlay_tree(nodes)), conduit="smc")


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda root: places(root, PSCI)[0].node.set_text("status", "disabled"), "/psci is disabled"),
        (lambda root: places(root, PSCI)[0].node.set_text("method", "svc"), "neither smc nor hvc"),
        (lambda root: places(root, (SDEI,))[0].node.set_text("method", "hvc"), "SDEI by hvc"),
        (lambda root: root.ensure("cpus").children[1].set_text("enable-method", "spin-table"), "cpu@100 is started by"),
        (lambda root: places(root, PSCI)[0].node.set_text("compatible", "arm,psci"), "does not name cpu_on"),
    ],
)
def test_faults_are_named(break_it: object, fault: str) -> None:
    """What Linux would stumble over, and where."""
    root = merged(plain())
    assert callable(break_it)
    break_it(root)
    assert any(fault in found for found in as_linux(root).faults)


@pytest.mark.skipif(shutil.which("fdtoverlay") is None, reason="no fdtoverlay")
@pytest.mark.parametrize("make", [plain, below_firmware, disabled])
def test_an_overlay_for_a_tree(make: Callable[[], Node], tmp_path: Path) -> None:
    """Applied, it gives what merging gives; of the CPUs it names those that are there."""
    base, blob, out = (tmp_path / name for name in ("base.dtb", "it.dtbo", "out.dtb"))
    base.write_bytes(flatten(Tree(make())))
    nodes = overlay_for(base.read_bytes(), conduit="smc")
    blob.write_bytes(flatten(overlay_tree(nodes)))
    subprocess.run(["fdtoverlay", "-i", str(base), "-o", str(out), str(blob)], check=True, timeout=60)
    assert as_linux(parse(out.read_bytes()).root) == as_linux(merged(make()))
    assert [cpu.name for cpu in nodes.ensure("cpus").children] == ["cpu@0", "cpu@100"]
    assert "cpu@1 {" not in overlay(nodes)


def test_an_overlay_takes_nothing_out() -> None:
    with pytest.raises(DtError, match=r"take out /[a-z/-]+: merge"):
        overlay_for(flatten(Tree(twice())), conduit="smc")


@given(st.data())
def test_any_mixture_of_nodes(data: st.DataObject) -> None:
    """PSCI and SDEI nodes anywhere, alike, disabled, doubled: Linux finds one of each. Again, nothing changes."""
    root = board()
    places_ = [root, root.ensure("firmware"), root.ensure("soc"), root.ensure("soc").ensure("bus")]
    for number in range(data.draw(st.integers(0, 5))):
        node = data.draw(st.sampled_from(places_)).ensure(data.draw(st.sampled_from(("psci", "sdei", f"x{number}"))))
        psci(
            node,
            *data.draw(st.sampled_from((PSCI, PSCI[:1], PSCI[2:], (SDEI,)))),
            method=data.draw(st.sampled_from(("smc", "hvc", "svc"))),
            status=data.draw(st.sampled_from(("", "okay", "disabled"))),
        )
        if data.draw(st.booleans()):
            node.properties["phandle"] = bytes((0, 0, 0, number + 1))
    after = merged(root)
    found = as_linux(after)
    assert found.faults == ()
    assert found.psci
    assert found.sdei.startswith("/firmware/")
    assert merged(after) == after


@pytest.mark.skipif(
    shutil.which("dt-validate") is None or BINDINGS not in os.environ, reason=f"no dt-validate, or {BINDINGS} not set"
)
@pytest.mark.parametrize("make", [*BOARDS, "virt"])
def test_it_is_valid_by_the_bindings(make: object, tmp_path: Path) -> None:
    """psci.yaml and cpus.yaml of a Linux tree say nothing about it."""
    tree = tmp_path / "tree.dtb"
    base = qemu_tree(2) if make == "virt" else flatten(Tree(make()))  # type: ignore[operator]
    tree.write_bytes(merge(base, conduit="smc"))
    for schema in ("arm/psci.yaml", "arm/cpus.yaml"):
        path = Path(os.environ[BINDINGS]) / schema
        result = subprocess.run(
            ["dt-validate", "-l", str(path), "-s", os.environ[BINDINGS], str(tree)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = [line for line in (result.stdout + result.stderr).splitlines() if "psci" in line or "cpu@" in line]
        assert said == []


@pytest.mark.parametrize(("name", "compatible"), [("board-{}", "arm,psci-1.0"), ("psci-{}", "acme,thing")])
def test_a_tree_of_very_many_nodes(name: str, compatible: str) -> None:
    """The time is that of its size: by its square, this took a minute each."""
    root = Node("")
    root.ensure("psci").set_text("compatible", "acme,other")
    for number in range(30_000):
        node = Node(name.format(number), {"compatible": compatible.encode() + b"\0"})
        root.children.append(node)
    blob = flatten(Tree(root))
    found = as_linux(parse(merge(blob, conduit="smc")).root)
    assert (found.psci_method, found.sdei, found.faults) == ("smc", "/firmware/sdei", ())
    if compatible != "arm,psci-1.0":
        assert [child.name for child in overlay_for(blob, conduit="smc").children] == [found.psci[1:], "firmware"]
