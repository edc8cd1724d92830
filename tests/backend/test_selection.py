"""Services that a guest does or does not find: by the firmware's bitmaps, over a backend's death, in documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.services.trng import RND64, Function
from qemu_sdei.smccc.arch import SMCCC_ARCH_FEATURES, SMCCC_VERSION
from qemu_sdei.smccc.call_filter import parse
from qemu_sdei.smccc.selection import BY_WORD, RefusedError
from tests.backend.handed_over import machine
from tests.backend.simulated import SimulatedBoot, SimulatedGuest, serve

STD = BY_WORD["std"].id
X0 = 3
"""Place in what `take` returns."""
NOT_SUPPORTED = (1 << 64) - 1


def _ask(guest: SimulatedGuest, server: Server, function: int, argument: int = 0) -> int:
    guest.smc(0, function, argument)
    serve(server)
    return guest.take(0)[X0]


def _booted(guest: SimulatedGuest, bitmap: int | None = None) -> Server:
    """A backend whose guest was reset; `bitmap` was written to STD_BMAP before."""
    server = guest.server()
    if bitmap is not None:
        server.select_services({STD: bitmap})
    guest.reset(0)
    serve(server)
    guest.take(0)
    return server


def test_a_guest_finds_all_there_are(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = _booted(guest)
    assert _ask(guest, server, Function.VERSION) == 1 << 16
    # As with KVM: TRNG_VERSION itself says that it is there.
    assert _ask(guest, server, SMCCC_ARCH_FEATURES, Function.VERSION) == NOT_SUPPORTED
    assert _ask(guest, server, RND64, 192) == 0


def test_what_is_withheld_is_not_supported_wherever_a_guest_looks(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = _booted(guest, 2)
    for function in (*Function, RND64):
        assert _ask(guest, server, function, 8) == NOT_SUPPORTED
        assert _ask(guest, server, SMCCC_ARCH_FEATURES, function) == NOT_SUPPORTED
    assert _ask(guest, server, Sdei.VERSION) != NOT_SUPPORTED


def test_sdei_can_be_withheld_too(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = _booted(guest, 1)
    for function in Sdei:
        assert _ask(guest, server, function) == NOT_SUPPORTED
    assert _ask(guest, server, Function.VERSION) == 1 << 16


def test_a_selection_outlives_the_backend_and_no_other_can_be_made_then(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    _booted(guest, 2)
    other = guest.server()
    other.recover()
    assert _ask(guest, other, RND64, 8) == NOT_SUPPORTED
    other.select_services({STD: 2})
    with pytest.raises(RefusedError, match="the guest has run already"):
        other.select_services({STD: 3})


@pytest.mark.parametrize(
    "rule", ["deny:0x84000000", "deny:0x84000000+0x20", "forward:0xc4000000+0x40", "deny:0x84000000+0x1000000"]
)
def test_any_call_but_the_architectures_own_can_be_denied(tmp_path: Path, rule: str) -> None:
    guest = SimulatedGuest(1, tmp_path)
    guest.filter = (rule,)
    server = _booted(guest)
    (denied,) = parse((rule,))
    for function in (Psci.PSCI_VERSION, Psci.CPU_ON, Sdei.VERSION, SMCCC_VERSION):
        found = _ask(guest, server, function, 1)
        assert (found == NOT_SUPPORTED) is (denied.first <= function <= denied.last)


def test_two_registers_are_written_both_or_none() -> None:
    firmware = Firmware(1, boot=SimulatedBoot())
    with pytest.raises(UsageError, match="not supported"):
        firmware.select({STD: 0, BY_WORD["vendor-hyp"].id: 1 << 40})
    assert firmware.selection.read(STD) == 3


def test_a_guest_of_a_program_without_a_selection_goes_on_without_the_services_that_it_did_not_find(
    tmp_path: Path,
) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = _booted(guest)
    server.guest.machine = machine(1)
    document = state_document.take(server)
    document["services"].remove("trng")
    del document["firmware"]["selection"]
    again = SimulatedGuest(1, tmp_path / "again")
    (tmp_path / "again").mkdir()
    taken = again.server()
    taken.guest.machine = machine(1)
    state_document.prepare(taken, document)
    assert taken.firmware.selection.read(STD) == 2
    assert not taken.firmware.registry.implemented(RND64)
    assert taken.firmware.registry.implemented(Sdei.VERSION)
    assert state_document.take(taken)["firmware"]["selection"]["std"] == 2


def test_a_document_with_a_service_that_is_not_here_is_refused(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    server.guest.machine = machine(1)
    document = state_document.take(server)
    document["firmware"]["selection"]["vendor-hyp"] = 1
    with pytest.raises(ProtocolError, match="vendor-hyp: not what this firmware has"):
        state_document.prepare(server, document)
    document["services"].append("ptp")
    with pytest.raises(ProtocolError, match="other services"):
        state_document.prepare(server, document)


def test_what_the_guest_was_given_is_given_again_after_the_backend_was_killed(tmp_path: Path) -> None:
    """The call was decided and recorded, and the backend died before the guest had its answer."""
    guest = SimulatedGuest(1, tmp_path)
    server = _booted(guest)
    guest.smc(0, RND64, 192)
    frame = guest.window.frames[0]
    before = frame.tolist()
    serve(server)
    given = guest.take(0)
    for index, word in enumerate(before):
        frame[index] = word
    other = guest.server()
    other.recover()
    serve(other)
    assert guest.take(0)[X0 : X0 + 4] == given[X0 : X0 + 4]
