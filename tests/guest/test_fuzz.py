"""A bare-metal guest whose CPUs all make random calls at once, and check what comes back (guest/bench/fuzz.c)."""

from __future__ import annotations

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import explained

pytestmark = pytest.mark.guest


def fuzz(seed: int, count: int, smp: int, limit: float, *, virtualization: bool = False) -> None:
    """One guest; a failure is replayed by its seed as far as the CPUs' timing allows."""
    options = GuestOptions(
        kernel="builtin:bench",
        append=f"mode=fuzz seed={seed} count={count} smp={smp}",
        smp=smp,
        memory="128M",
        virtualization=virtualization,
        qemu_args=["-no-shutdown"],  # so that the backend can still be asked
    )
    with Guest(options) as guest, explained(guest):
        found = guest.expect(r"^(fuzz: ok calls=(\d+) handled=(\d+) seed=\d+|FAIL.*)\r?$", limit)
        assert found[2], f"{found[0]} (again: {options.append})"
        assert guest.status()["counts"]["calls"] >= int(found[2]) > count * smp // 2
        assert int(found[3]) > count // 1000
        assert not [note for note in guest.trace(4000) if note["type"] == "reject"]
        assert guest.backend_starts == 1


@pytest.mark.parametrize(("seed", "smp", "virtualization"), [(1, 4, False), (2, 2, True)], ids=["EL1", "EL2"])
def test_fuzz(seed: int, smp: int, virtualization: bool) -> None:
    fuzz(seed, 20_000, smp, 60, virtualization=virtualization)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_fuzz_long(seed: int) -> None:
    fuzz(seed, 500_000, 4, 500)
