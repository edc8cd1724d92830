"""Firmware without SDEI: the interface is not there, all else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.monitor.layout import Word
from qemu_sdei.sdei.constants import FIRST_NUMBER, LAST_NUMBER
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import SimulatedBoot, SimulatedGuest, serve

M64 = (1 << 64) - 1


def test_the_whole_range_is_not_supported(tmp_path: Path) -> None:
    """Conformance 7; PSCI answers as ever, and x1 and on are left alone."""
    guest = SimulatedGuest(1, tmp_path)
    guest.sdei = False
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for number in range(FIRST_NUMBER, LAST_NUMBER + 1):
        guest.window.frames[0][Word.X0 + 5] = 0x5555
        guest.smc(0, 0xC400_0000 | number, 0, 0x4000)
        serve(server)
        answer = guest.take(0)
        assert answer[0] == 0
        assert (answer[3], answer[4:6], answer[8]) == (M64, [0, 0x4000], 0x5555)
        guest.smc(0, Psci.PSCI_FEATURES, 0xC400_0000 | number)
        serve(server)
        assert guest.take(0)[3] == M64
    guest.smc(0, Psci.PSCI_VERSION)
    serve(server)
    assert guest.take(0)[3] == 0x1_0001
    with pytest.raises(UsageError, match="no SDEI"):
        server.trigger(0, 0)


SERVICES = {
    94: (0x8600_FF01, 0x8600_0000),  # what KVM switches by its bitmaps: its own owner's calls
    96: (0xC500_0020, 0xC500_0021),
    97: (0x8600_0001, 0xC600_0001, 0xC600_0040),
}
"""Function ids of other services, by the conformance scenario that is about them."""


@pytest.mark.parametrize("scenario", SERVICES)
def test_a_service_that_is_not_offered_is_not_supported(tmp_path: Path, scenario: int) -> None:
    """Conformance 94, 96 and 97: to the call itself, and to who asks for it by SMCCC_ARCH_FEATURES."""
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for function in SERVICES[scenario]:
        for call in ((function, 0x4000, 1), (0x8000_0001, function, 1)):
            guest.smc(0, *call)
            serve(server)
            answer = guest.take(0)
            assert (answer[3], answer[4:6]) == (M64, list(call[1:]))


def test_a_state_is_not_taken_over_by_the_other_kind() -> None:
    with_sdei, without = Firmware(1, boot=SimulatedBoot()), Firmware(1, boot=SimulatedBoot(), sdei=False)
    with pytest.raises(ProtocolError, match="of a machine with SDEI"):
        without.restore(with_sdei.snapshot())
    with pytest.raises(ProtocolError, match="of a machine without SDEI"):
        with_sdei.restore(without.snapshot())
