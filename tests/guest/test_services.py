"""Which services a guest finds: what stock Linux says with and without TRNG; registers written before it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestTimeoutError, UsageError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.host.kernel_drivers import load_order
from qemu_sdei.host.unpack import extract
from qemu_sdei.rundir import find
from qemu_sdei.smccc.selection import BY_WORD
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import plain

pytestmark = pytest.mark.guest

NO_SEED = ("-machine", "dtb-randomness=off")
"""The kernel gets no seed from QEMU, which would be as good."""
STD = BY_WORD["std"].id
TRNG, SDEI = 1, 2
BY_FIRMWARE = "random: crng init done"


def _linux(runtime: Path, **options: object) -> Guest:
    return Guest(GuestOptions(name="services", smp=1, qemu_args=NO_SEED, **options))  # type: ignore[arg-type]


def _registers(guest: Guest, values: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
    with guest.client() as client:
        return client.registers(0, values)


def _driver(folder: Path, series: str) -> dict[str, Path]:
    """The kernel's driver of /dev/hwrng for TRNG with what it needs: path in the guest → file, in order."""
    cache = DebianCache()
    kernel = cache.kernel(series)
    pattern = re.compile(r"\./(?:usr/)?lib/modules/[^/]+/kernel/drivers/char/hw_random/([^/]+\.ko(?:\.xz)?)")
    extract(cache.download(kernel.package, kernel.version), pattern, folder / "modules")
    found = {}
    for number, (name, data) in enumerate(load_order(folder / "modules", ("arm_smccc_trng",))):
        path = folder / f"{name}.ko"
        path.write_bytes(data)
        found[f"/lib/rng/{number}-{name}.ko"] = path
    return found


SERIES = ["6.1", pytest.param("6.12", marks=pytest.mark.slow)]
LOAD = "for module in /lib/rng/*; do insmod $module; done"
BYTES = "head -c 64 /dev/hwrng | wc -c"
CURRENT = "cat /sys/class/misc/hw_random/rng_current"


@pytest.mark.parametrize("series", SERIES)
def test_linux_takes_its_random_numbers_from_the_firmware(runtime: Path, tmp_path: Path, series: str) -> None:
    with _linux(runtime, series=series, files=_driver(tmp_path, series)) as guest:
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" in guest.console
        assert any(record.get("function") == "TRNG_RND" for record in guest.trace(1000))
        assert guest.run(LOAD).status == 0
        assert plain(guest.run(CURRENT).output) == "smccc_trng\n"
        assert plain(guest.run(BYTES).output) == "64\n"


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_without_trng_there_is_no_hwrng(runtime: Path, tmp_path: Path, series: str) -> None:
    with _linux(runtime, series=series, selection=("std=sdei",), files=_driver(tmp_path, series)) as guest:
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" not in guest.console
        assert guest.run(LOAD).status == 0
        assert plain(guest.run(CURRENT).output) == "none\n"
        assert guest.run(BYTES).output.endswith("0\n")


def test_registers_that_are_written_before_it_runs_are_what_it_finds(runtime: Path) -> None:
    with _linux(runtime, paused=True) as guest:
        assert _registers(guest)[STD] == [TRNG | SDEI]
        assert _registers(guest, {STD: [SDEI]})[STD] == [SDEI]
        with pytest.raises(UsageError, match="not supported"):
            _registers(guest, {STD: [1 << 5]})
        with pytest.raises(GuestTimeoutError, match="nobody resumed the paused guest"):
            guest.wait_resumed(0.1)
        assert guest.console == ""
        found = find("services")
        assert machine_control.resume(found.owner, found.identity) == machine_control.RUNNING
        guest.wait_resumed(20)
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" not in guest.console
        assert "sdei: SDEIv1.1" in guest.console
        with pytest.raises(UsageError, match="the guest has run already"):
            _registers(guest, {STD: [SDEI | TRNG]})
        assert _registers(guest, {STD: [SDEI]})[STD] == [SDEI]


def test_a_selection_goes_along_with_the_guest(runtime: Path) -> None:
    with _linux(runtime, selection=("std=sdei",)) as guest:
        guest.wait_shell()
        guest.migrate()
        assert _registers(guest)[STD] == [SDEI]
        guest.reset()
        guest.wait_shell()
        assert f"[    0.000000] {BY_FIRMWARE}" not in guest.console.rpartition("Booting Linux")[2]


SERVICE = """
from qemu_sdei.smccc import FunctionRange, Service


class Bits(Service):
    ranges = (FunctionRange(4, 0x53, 0x53),)

    def call(self, call):
        return 0, 1, 2, call.args[0]
"""
RND64 = 0xC400_0053
FORWARDED = ("forward:0xc4000053", "forward:0x84000053")
NOT_SUPPORTED = (1 << 64) - 1


def _called(function: int, argument: int = 7, **options: object) -> list[int]:
    """x0 to x3 of a call by a bare-metal guest."""
    append = f"mode=call function={function:#x} a1={argument:#x} stay=1"
    more = GuestOptions(kernel="builtin:bench", append=append, memory="64M", smp=1, **options)  # type: ignore[arg-type]
    with Guest(more) as guest:
        found = guest.expect(r"call: x0=0x(\w+) x1=0x(\w+) x2=0x(\w+) x3=0x(\w+)\s")
    return [int(word, 16) for word in found.groups()]


def test_what_the_filter_says_of_a_call_is_what_the_guest_gets(runtime: Path, tmp_path: Path) -> None:
    service = tmp_path / "bits.py"
    service.write_text(SERVICE)
    code, first, second, last = _called(RND64)
    assert (code, first, second) == (0, 0, 0)
    assert last < 1 << 7
    assert _called(RND64, smccc_filter=("deny:0xc4000050+0x10",))[0] == NOT_SUPPORTED
    assert _called(RND64, smccc_filter=FORWARDED)[0] == NOT_SUPPORTED
    assert _called(RND64, smccc_filter=FORWARDED, services=[service]) == [0, 1, 2, 7]


FUNCTIONS = {
    TRNG: ((0x8400_0050, 0), (0x8400_0051, RND64), (0x8400_0052, 0), (0x8400_0053, 7), (RND64, 7)),
    SDEI: ((0xC400_0020, 0), (0xC400_0025, 0), (0xC400_002B, 0), (0xC400_002E, 0), (0xC400_0030, 0)),
}
"""Of each feature of STD_BMAP: functions, and an x1 with which they answer anything but NOT_SUPPORTED."""
ALWAYS = ((0x8000_0000, 0), (0x8000_0001, 0x8000_0000), (0x8400_0000, 0), (0x8400_000A, 0x8400_0000))


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, TRNG, SDEI, TRNG | SDEI])
def test_each_function_is_there_just_when_its_bit_is_set(runtime: Path, value: int) -> None:
    """What KVM's own `hypercalls` asks of its registers, of this firmware's."""
    words = [word for bit, word in ((TRNG, "trng"), (SDEI, "sdei")) if value & bit]
    selection = (f"std={','.join(words)}",)
    for bit, functions in FUNCTIONS.items():
        for function, argument in functions:
            code = _called(function, argument, selection=selection)[0]
            assert (code != NOT_SUPPORTED) is bool(value & bit), f"{function:#x} gave {code:#x}"
    for function, argument in ALWAYS:
        assert _called(function, argument, selection=selection)[0] != NOT_SUPPORTED
