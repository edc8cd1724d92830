"""Functions of a running Debian kernel, named by the symbols in its own Image: against what the kernel itself says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
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


def check_kernel(client: Client, symbols: Symbolizer) -> str:
    """Compare with the kernel's own table. Returns what it says of `schedule`."""
    client.shell("cat /proc/kallsyms >/kallsyms")  # which the kernel makes anew for each reader
    listed = client.shell(f"awk '$2 ~ /[tT]/ && !$4 && NR % {NEIGHBOURS} == 0' /kallsyms").splitlines()
    assert len(listed) > 100
    other = []
    for line in listed:
        address, _, name = line.split()
        found = symbols.resolve(int(address, 16))
        assert found is not None, line
        assert found.offset == 0, (line, str(found))
        if found.name != name:
            other.append((name, found.name))
    assert len(other) < len(listed) / 10, other  # two names of one address
    (schedule,) = client.shell("grep ' T schedule$' /kallsyms").splitlines()
    assert symbols.name(int(schedule.split()[0], 16) + 4).startswith("schedule+0x4/0x")
    return schedule


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
        symbols = Symbolizer(Sources([kernel], modules=load([str(module)]).modules), tell=told.append)
        seen = records(guest, symbols)
        symbols.learn_modules(client.shell("cat /proc/modules"))
        first = check_kernel(client, symbols)
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

        handlers = client.shell("grep '[tT] [a-z_]*[[:space:]]*.sdei_test.' /kallsyms").splitlines()
        assert len(handlers) > 5
        theirs = {(int(line.split()[0], 16), f"{line.split()[2]}+0x0/") for line in handlers}
        assert {(at, symbols.name(at).partition("/")[0] + "/") for at, _ in theirs} <= theirs

        notes = client.shell("od -An -v -tx1 /sys/kernel/notes")
        symbols.learn_notes(bytes.fromhex("".join(notes.split())))
        assert symbols.name(int(first.split()[0], 16)).startswith("schedule+0x0/")
        assert not told
        if series == "6.12":
            return  # a reset takes as long as a boot: the others try it

        guest.reset()
        guest.wait_shell()
        records(guest, symbols)
        check_kernel(client, symbols)
        assert not told
