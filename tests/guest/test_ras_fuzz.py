"""Malformed errors against Debian's kernel: what becomes of each, and the guest is back after those that it dies of."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.fuzzing.target import Target
from qemu_sdei.fuzzing.verdicts import Judged, Verdict, judge
from qemu_sdei.guest.guest import Guest
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import Memory, raw
from qemu_sdei.ras.mutate import Case
from qemu_sdei.symbols.sources import Sources, load_image
from qemu_sdei.symbols.symbolizer import Symbolizer
from qemu_sdei.vm.options import GuestOptions
from tests.ras.samples import VENDOR

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]


def memory(address: int, severity: str = "corrected") -> bytes:
    return block([entry(Memory(physical_address=address, memory_error_type=2), severity)]).pack()


@pytest.mark.parametrize("hang", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_verdicts_and_a_guest_that_comes_back(tmp_path: Path, hang: bool) -> None:
    with Guest(GuestOptions(series="6.12", ras=True)) as guest:
        guest.wait_shell()
        guest.save(tmp_path / "saved", end=True)
        kernel = load_image(Path(str(guest.placement.config.boot["kernel"])))
        guest.wait_off()
    assert kernel is not None
    with Target(tmp_path / "saved", limit=12.0, symbolizer=Symbolizer(Sources([kernel]))) as target:

        def shown(data: bytes, *edits: str) -> Judged:
            case = Case(data, edits)
            return judge(target.show(case.data), asks_to_panic=case.asks_to_panic)

        # More of them than Linux prints in so short a time.
        assert target.unlimited
        for number in range(8):
            seen = target.show(memory(0x90_0000_0000 + (number << 12)))
            assert judge(seen, asks_to_panic=False).verdict is Verdict.LOGGED
            assert "[Hardware Error]" in seen.console
            assert seen.taken
        assert shown(memory(0x91_0000_0000), "block_status=0").verdict is Verdict.IGNORED
        assert shown(memory(0x91_0000_0000), "data_length=overflow").verdict is Verdict.IGNORED
        assert target.restored == 0

        fatal = shown(memory(0x91_0000_0000, "fatal"))
        assert fatal.verdict is Verdict.PANIC_AS_ASKED
        assert fatal.trouble is not None
        assert "__ghes_panic" in fatal.trouble.stack
        target.restore()
        assert shown(memory(0x90_0000_0000)).verdict is Verdict.LOGGED, "the guest is as it was"

        if not hang:
            return
        # A fault of this kernel: a section whose length leads back to itself has no end.
        endless = shown(block([entry(raw(VENDOR, b"1234"))]).pack(), "cycle")
        assert endless.verdict is Verdict.HANG
        assert endless.trouble is not None
        assert endless.trouble.stack[0].startswith("cper_estatus_"), endless
        target.restore()
        assert shown(memory(0x90_0000_0000)).verdict is Verdict.LOGGED
        assert target.restored == 2
