"""The firmware's nodes in any device tree: found by what they are, set right where they stand, and judged as Linux
finds them.

A node is what its `compatible` says, wherever it stands: many boards have PSCI below /firmware. Linux takes the first
one in the order of the tree, and none if that one is disabled (`psci_dt_init`). SDEI it looks for below a node called
/firmware, whose children become devices (`sdei_present_dt`, `of_platform_default_populate_init`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from qemu_sdei.acpi.errors import DtError
from qemu_sdei.acpi.fdt import Node

Conduit = Literal["smc", "hvc"]

PSCI: Final = ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")
SDEI: Final = "arm,sdei-1.0"
_METHODS: Final = ("smc", "hvc")
_IDS: Final = {"cpu_on": 0xC400_0003, "cpu_off": 0x8400_0002, "cpu_suspend": 0xC400_0001}
"""Function ids that a PSCI 0.1 client reads from the tree (bindings/arm/psci.yaml): those of PSCI 0.2 and later."""
_OTHER_IDS: Final = ("migrate",)
_DUMMY: Final = ("phandle", "linux,phandle")


class Place(NamedTuple):
    """A node, where it is, and what it is below."""

    path: str
    node: Node
    parent: Node


def announce(root: Node, *, conduit: Conduit, sdei: bool = True, psci: bool = True) -> None:
    """Add the firmware's nodes to the tree below `root`, or set right those that are there.

    Args:
        root: the root node of any tree; it is changed. One without CPUs gets the nodes alone.
        conduit: `method` of both nodes.
        sdei: have /firmware/sdei (Documentation/devicetree/bindings/arm/firmware/sdei.txt).
        psci: have a PSCI node, and `enable-method` of every CPU (bindings/arm/psci.yaml, arm/cpus.yaml).

    A node that is there keeps its place, its phandle and whatever else is in it. Further ones of its kind are taken
    out, or disabled where the tree may refer to them.
    """
    if psci:
        for cpu in cpus(root):
            cpu.set_text("enable-method", "psci")
            cpu.properties.pop("cpu-release-addr", None)  # of "spin-table"
        found = places(root, PSCI)
        node = found[0].node if found else _fresh(root, "psci")
        _set_psci(node, conduit)
        _retire(found[1:], node)
    if sdei:
        node = _sdei_node(root)
        node.set_text("compatible", SDEI)
        node.set_text("method", conduit)
        node.properties.pop("status", None)
        _retire([place for place in places(root, (SDEI,)) if place.node is not node], node)


def cpus(root: Node) -> list[Node]:
    """The CPUs' nodes, as Linux finds them (`of_get_next_cpu_node`)."""
    below = (root.child("cpus") or Node("")).children
    return [node for node in below if node.text("device_type") == "cpu" or node.name.partition("@")[0] == "cpu"]


def places(root: Node, compatible: tuple[str, ...]) -> list[Place]:
    """All nodes below `root` that are compatible with one of these, in the order of the tree."""
    return [place for place in _walk(root, "") if any(text in compatible for text in place.node.texts("compatible"))]


def available(node: Node) -> bool:
    """Whether a node is there for the Normal world (Devicetree Specification 2.3.4)."""
    return node.text("status", "okay") in ("okay", "ok")


def _walk(node: Node, path: str) -> Iterator[Place]:
    for child in node.children:
        here = f"{path}/{child.name}"
        yield Place(here, child, node)
        yield from _walk(child, here)


def _set_psci(node: Node, conduit: Conduit) -> None:
    """PSCI 1.0. "arm,psci" is PSCI 0.1, whose clients must be told the ids of cpu_on and cpu_off."""
    old = "cpu_on" in node.properties and "cpu_off" in node.properties
    node.set_text("compatible", *(PSCI if old else PSCI[:2]))
    node.set_text("method", conduit)
    node.properties.pop("status", None)
    for name, function in _IDS.items():
        if name in node.properties:
            node.properties[name] = function.to_bytes(4, "big")
            if not old:
                del node.properties[name]
    for name in _OTHER_IDS:
        node.properties.pop(name, None)


def _sdei_node(root: Node) -> Node:
    """The node to be SDEI's, below /firmware. One that stands elsewhere is moved: Linux makes no device of it."""
    firmware = root.ensure("firmware")
    firmware.properties.pop("status", None)
    found = places(root, (SDEI,))
    for place in found:
        if place.parent is firmware:
            return place.node
    node = _fresh(firmware, "sdei")
    if found:
        first = found[0]
        first.parent.children = [other for other in first.parent.children if other is not first.node]
        node.properties, node.children = first.node.properties, first.node.children
    return node


def _fresh(parent: Node, name: str) -> Node:
    """A node for something new: `name`, or that with a number where something else is called so."""
    taken = {child.name for child in parent.children if "compatible" in child.properties}
    number = 0
    wanted = name
    while wanted in taken:
        number += 1
        wanted = f"{name}-{number}"
    return parent.ensure(wanted)


def _retire(further: Sequence[Place], kept: Node) -> None:
    """Further nodes of a kind of which there is one. What may be referred to stays, says the same, and is disabled."""
    out: set[int] = set()
    for _, node, _ in further:
        if not node.children and not any(name in node.properties for name in _DUMMY):
            out.add(id(node))
            continue
        for name in ("compatible", "method", *_IDS):
            if name in kept.properties:
                node.properties[name] = kept.properties[name]
            else:
                node.properties.pop(name, None)
        node.set_text("status", "disabled")
    for parent in {id(place.parent): place.parent for place in further}.values():
        parent.children = [child for child in parent.children if id(child) not in out]


# ---- as Linux finds it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a tree tells Linux of its firmware.

    Attributes:
        psci, sdei: path of the node that Linux uses; "": none.
        psci_method, sdei_method: its conduit.
        cpus: how many CPUs there are.
        faults: what keeps Linux from using it, a sentence each.
    """

    psci: str
    psci_method: str
    sdei: str
    sdei_method: str
    cpus: int
    faults: tuple[str, ...]

    def __str__(self) -> str:
        """For people, one line."""
        parts = [
            f"PSCI at {self.psci} by {self.psci_method}" if self.psci else "no PSCI",
            f"SDEI at {self.sdei} by {self.sdei_method}" if self.sdei else "no SDEI",
            f"{self.cpus} CPU{'' if self.cpus == 1 else 's'}",
        ]
        return ", ".join(parts)


def as_linux(root: Node) -> Found:
    """What Linux makes of the tree below `root`: `psci_dt_init`, `sdei_present_dt`, `cpu_read_enable_method`."""
    faults: list[str] = []
    psci, psci_method = _first(places(root, PSCI), faults)
    firmware = root.child("firmware")
    in_firmware = [place for place in places(root, (SDEI,)) if place.parent is firmware]
    sdei, sdei_method = _first(in_firmware, faults)
    if not in_firmware:
        faults += [f"{place.path} is not below /firmware: it becomes no device" for place in places(root, (SDEI,))]
    if psci_method and sdei_method and psci_method != sdei_method:
        faults.append(f"PSCI is called by {psci_method}, SDEI by {sdei_method}")
    found = cpus(root)
    for cpu in found:
        method = cpu.text("enable-method")
        if psci and method != "psci":
            faults.append(f"/cpus/{cpu.name} is started by {method or 'nothing'}, not by psci")
    for place in places(root, PSCI):
        names = place.node.properties
        if "arm,psci" in place.node.texts("compatible") and not {"cpu_on", "cpu_off"} <= names.keys():
            faults.append(f'{place.path} is compatible with "arm,psci" and does not name cpu_on and cpu_off')
    return Found(psci, psci_method, sdei, sdei_method, len(found), tuple(faults))


def _first(found: list[Place], faults: list[str]) -> tuple[str, str]:
    """Path and method of the first of these; nothing if Linux does not use it."""
    if not found:
        return "", ""
    path, node, _ = found[0]
    method = node.text("method")
    if not available(node):
        faults.append(f"{path} is disabled")
    elif method not in _METHODS:
        faults.append(f"{path} has the method {method!r}: neither smc nor hvc")
    else:
        return path, method
    return "", ""


# ---- an overlay for one tree ----------------------------------------------------------------------------------------


def is_overlay(root: Node) -> bool:
    """Whether this is an overlay, which has no machine in it."""
    return any(node.child("__overlay__") is not None for node in root.children)


def difference(before: Node, after: Node, path: str = "") -> Node:
    """What an overlay must say to make `before` into `after`: the nodes that differ, with the properties that differ.

    Raises:
        DtError: something is to be taken out, which no overlay can.
    """
    node = Node(after.name)
    for key, value in after.properties.items():
        if before.properties.get(key) != value:
            node.properties[key] = value
    for key in before.properties.keys() - after.properties.keys():
        if key != "status":
            raise DtError(f"an overlay cannot take {key!r} out of {path or '/'}: merge the nodes into the tree instead")
        node.set_text("status", "okay")
    names = {child.name for child in after.children}
    for child in before.children:
        if child.name not in names:
            raise DtError(f"an overlay cannot take out {path}/{child.name}: merge the nodes into the tree instead")
    old = {child.name: child for child in reversed(before.children)}
    for child in after.children:
        below = difference(old.get(child.name) or Node(child.name), child, f"{path}/{child.name}")
        if below.properties or below.children or child.name not in old:
            node.children.append(below)
    return node
