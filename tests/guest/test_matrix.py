"""Kernels x boot x machines: each boots to its shell, finds its firmware, and takes an event on its last vCPU.

A run of all of them (`scripts/test --all tests/guest/test_matrix.py`) prints docs/reference/matrix.md anew. Each
machine differs from the first in one thing, which is not the product of all; what a CPU model does with each event, on
each vCPU, is in test_cpus.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest

from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, module_for
from tests.guest.test_cpus import MODELS, SERIES, booted

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.usefixtures("linux")]
"""The normal suite boots enough machines of these kinds."""

DOCUMENT: Final = Path(__file__).parents[2] / "docs/reference/matrix.md"
BOOTS: Final = ("dt", "acpi")


class Machine(NamedTuple):
    """What is not as in the first one."""

    cpu: str = "cortex-a72"
    smp: int = 2
    memory: str = "1G"


MACHINES: Final = [
    Machine(),
    *(Machine(cpu=cpu) for cpu in MODELS if cpu != "cortex-a72"),
    *(Machine(smp=smp) for smp in (1, 6, 16)),
    Machine(smp=64, memory="2G"),
    *(Machine(memory=memory) for memory in ("192M", "4G", "16G")),
]
SHOWN: Final = [machine for machine in MACHINES if machine.smp <= 16]
"""Of the rest it depends on the host more than on us whether they boot in time."""
COLUMNS: Final = [(series, boot) for series in SERIES for boot in BOOTS]


@pytest.fixture(scope="module")
def seconds() -> Iterator[dict[tuple[Machine, str, str], float]]:
    """Seconds from the start to the shell; when all are there, the document is written."""
    found: dict[tuple[Machine, str, str], float] = {}
    yield found
    if all((machine, *column) in found for machine in SHOWN for column in COLUMNS):
        DOCUMENT.write_text(document(found))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("machine", "series", "boot"),
    [
        pytest.param(machine, series, boot, id=f"{name}-{series}-{boot}")
        for machine in MACHINES
        for name in [f"{machine.cpu}-{machine.smp}-{machine.memory}"]
        for series, boot in COLUMNS
    ],
)
def test_boots_and_takes_an_event(
    machine: Machine, series: str, boot: Literal["acpi", "dt"], seconds: dict[tuple[Machine, str, str], float]
) -> None:
    began = time.monotonic()
    options = GuestOptions(
        **machine._asdict(),
        series=series,
        boot=boot,
        files={KO: module_for(series)},
        start_timeout=100,
        boot_timeout=400,  # 64 vCPUs on two cores
    )
    with booted(options) as client:
        took = time.monotonic() - began
        log = client.shell("dmesg")
        for line in (
            "psci: probing for conduit method from " + ("ACPI." if boot == "acpi" else "DT."),
            "psci: PSCIv1.1 detected in firmware.",
            f"smp: Brought up 1 node, {machine.smp} CPU",
            "sdei: SDEIv1.1 (0x4b564d) detected in firmware.",
        ):
            assert line in log, f"{line!r} is not in the kernel's log:\n{log}"
        client.load("verbose=0")
        last = machine.smp - 1
        client.guest.inject(0, last, wait=True, timeout=60)
        assert client.count(last) == (1, 1)
    seconds[machine, series, boot] = took


def document(found: dict[tuple[Machine, str, str], float]) -> str:
    """The page: a row a machine, seconds to the shell in each column."""
    cache = DebianCache()
    names = {series: f"{cache.kernel(series).version}" for series in SERIES}
    lines = [
        "# Matrix: what was booted",
        "",
        "Written by `scripts/test --all tests/guest/test_matrix.py`. Each cell is a guest that booted to its shell, "
        "found PSCI and SDEI, handled an injected event on its last vCPU by the client module, and powered itself off; "
        "the figure is the seconds from its start to its shell, once, on two host cores. Machines differ from the "
        "first row in one thing; every vCPU of every CPU model is in `tests/guest/test_cpus.py`. 64 vCPUs are run too, "
        "and not shown: on two host cores they took 80 to 130 s one time, and were not up within 200 s another.",
        "",
        "| `--cpu` | `--smp` | `--memory` | "
        + " | ".join(f"{names[series]}, {boot}" for series, boot in COLUMNS)
        + " |",
        "|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for machine in SHOWN:
        cells = " | ".join(f"{found[machine, series, boot]:.1f}" for series, boot in COLUMNS)
        lines.append(f"| {machine.cpu} | {machine.smp} | {machine.memory} | {cells} |")
    medians = " | ".join(
        f"{statistics.median(found[machine, series, boot] for machine in SHOWN):.1f}" for series, boot in COLUMNS
    )
    lines.append(f"| median | | | {medians} |")
    return "\n".join(lines) + "\n"
