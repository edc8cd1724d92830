"""Which machine a guest is of, and which QEMU can have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.vm import machine_type
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import prepare
from qemu_sdei.vm.qemu_exit import not_taken

HEAD = bytes.fromhex("5145564d 00000003 07 00000008") + b"virt-7.2" + bytes(40)
"""How QEMU's streams begin."""


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (HEAD, "virt-7.2"),
        (HEAD[:13] + b"virt-7.2", "virt-7.2"),
        (HEAD[:13], None),
        (HEAD[:5], None),
        (b"", None),
        (HEAD.replace(b"\x08virt-7.2", b"\x08virt,x=y"), None),
        (HEAD.replace(b"\0\x08virt", b"\xff\xffvirt"), None),
        (HEAD.replace(b"\x08virt-7.2", b"\x09virt-\xff7.2"), None),
        (b"QEVN" + HEAD[4:], None),
    ],
)
def test_of_a_stream(head: bytes, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "vm.state").write_bytes(head)
    assert machine_type.of_stream(tmp_path / "vm.state") == kind


def test_a_guest_keeps_its_machine() -> None:
    """And what the user says of it comes later, so that it counts."""
    plan = prepare(GuestOptions(kernel="builtin:bench"))
    # As an apt upgrade has it: the QEMU knows its own type and older ones.
    kinds = [kind for kind in find_qemu().machines if machine_type.is_type(kind)]
    plan = replace(plan, devices=replace(plan.devices, arguments=("-device", "x")))
    for kind in kinds:
        pinned = machine_type.pinned(plan, kind)
        assert pinned.devices.arguments == ("-machine", kind, "-device", "x")
        assert machine_type.pinned(pinned, kind) == pinned
    assert machine_type.pinned(plan, None) is plan
    assert machine_type.pinned(plan, "mine") is plan
    with pytest.raises(UsageError, match=r"machine is virt-99.9, which .*qemu.* has not: use the same QEMU or a newer"):
        machine_type.pinned(plan, "virt-99.9")


def test_why_a_guest_was_not_taken() -> None:
    """QEMU 11.1 says it in 22 lines."""
    said = [f"handle_cpreg_only_in_incoming_stream: system register {n:#x}: fail migration" for n in range(21)]
    said.append("load of migration failed: error while loading state for instance 0x0 of device 'cpu': post load")
    assert not_taken(
        said
    ) == f"{said[-1]} (its CPU has other registers than in the QEMU that the guest comes from: " + ("use that one)")
    assert not_taken(["Unknown ramblock", "load of migration failed"]) == "Unknown ramblock; load of migration failed"
    assert not_taken([]) == ""
