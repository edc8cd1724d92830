"""Functions of a running Debian kernel, named by the symbols in its own Image: against what the kernel itself says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.symbols import listings
from qemu_sdei.symbols.elf import ModuleFile
from qemu_sdei.symbols.kaslr import is_kernel_address
from qemu_sdei.symbols.sources import Sources, load, load_image
from qemu_sdei.symbols.symbolizer import Symbolizer
from qemu_sdei.trace.reading import open_trace
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for

pytestmark = pytest.mark.guest

COMPLETIONS = ("SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME")
NEIGHBOURS = 400
"""Every so many-th symbol of the kernel is compared."""


def records(guest: Guest, symbols: Symbolizer) -> list[dict[str, Any]]:
    """What the guest's ring has, with names."""
    with open_trace(rundir.find(guest.name).path / rundir.TRACE) as reading:
        return [symbols.annotated(record) for record in reading.records()]


def check(client: Client, symbols: Symbolizer) -> int:
    """Compare with the kernel's own table. Returns how many functions of our module were compared."""
    wanted = f'$4 == "[sdei_test]" || $3 == "schedule" || (NR % {NEIGHBOURS} == 0 && !$4)'
    # Read once: the kernel makes the table anew for each reader.
    listed = [
        line.split()
        for line in client.shell(f"awk '$2 ~ /[tT]/ && $3 !~ /[$]/ && ({wanted})' /proc/kallsyms").splitlines()
    ]
    theirs = {(int(line[0], 16), line[2]) for line in listed}
    assert len(theirs) > 100
    other = []
    for at, name in theirs:
        found = symbols.resolve(at)
        assert found is not None, name
        assert found.offset == 0, (name, str(found))
        if (at, found.name) not in theirs:
            other.append((name, found.name))
    assert len(other) < len(theirs) / 10, other  # two names of one address
    (schedule,) = (at for at, name in theirs if name == "schedule")
    assert symbols.name(schedule + 4).startswith("schedule+0x4/0x")
    return sum(len(line) > 3 for line in listed)


@pytest.mark.parametrize(
    ("series", "append"),
    [
        ("6.12", ""),
        pytest.param("6.1", "", marks=pytest.mark.slow),
        pytest.param("6.1", "nokaslr kpti=off", marks=pytest.mark.slow),
    ],
)
def test_addresses_of_a_running_kernel_have_its_own_names(series: str, append: str) -> None:
    """With KASLR Linux has KPTI too, and then its handler says nothing of where it is. A reset forgets it."""
    kernel = load_image(DebianCache().kernel(series).image)
    assert kernel is not None
    module = module_for(series)
    with Guest(GuestOptions(series=series, append=append, smp=2, files={KO: module})) as guest:
        client = Client(guest)
        client.shell("dmesg -n 1")
        client.load("events=0")
        guest.inject(0, 1, wait=True)

        told: list[str] = []
        modules = load([str(module)]).modules
        # Debian 13's linker puts `.plt` before `.text`: then its place in /proc/modules says nothing.
        sections = listings.sections(client.shell("grep -H . /sys/module/sdei_test/sections/.*text*"))
        plain = all(isinstance(one, ModuleFile) and ".text" in one.at(0) for one in modules["sdei_test"])
        symbols = Symbolizer(Sources([kernel], modules=modules, sections={} if plain else sections), tell=told.append)
        seen = records(guest, symbols)
        symbols.learn_modules(client.shell("cat /proc/modules"))
        assert check(client, symbols) > 5
        calls = [record for record in seen if record["type"] == "call" and record["function"] not in COMPLETIONS]
        served = [record for record in calls if re.match("SDEI|PSCI|CPU|AFF", record["function"])]
        assert len(served) > 10
        assert {record["pc_symbol"].partition("+")[0] for record in served} == {"__arm_smccc_smc"}
        (entered,) = (
            record for record in seen if record.get("then") == "handler" and is_kernel_address(record["next_pc"])
        )
        # Without CONFIG_KALLSYMS_ALL, as in 6.1, the trampoline is not among a kernel's own symbols.
        handler = "__sdei_asm_handler" if append else "__sdei_asm_entry_trampoline" if series == "6.12" else None
        assert entered.get("next_pc_symbol", "").partition("+")[0] == (handler or "")

        notes = client.shell("od -An -v -tx1 /sys/kernel/notes")
        symbols.learn_notes(bytes.fromhex("".join(notes.split())))
        assert symbols.problem is None
        assert not told
        if series == "6.12":
            return  # a reset takes as long as a boot: the others try it

        guest.reset()
        guest.wait_shell()
        records(guest, symbols)
        check(client, symbols)
        assert not told
