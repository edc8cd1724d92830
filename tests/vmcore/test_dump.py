"""What is read from a crash dump, and that one which lies gives one line and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.vmcore.dump import Crash, Dump, crash
from tests.vmcore.samples import INFO, Log, vmcore

PANIC = Log(
    [
        "sysrq: Trigger a crash",
        "Kernel panic - not syncing: sysrq triggered crash",
        "CPU: 1 PID: 77 Comm: sh Kdump: loaded Not tainted 6.1.0-test #1",
        "Bye!",
    ]
)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "vmcore"
    path.write_bytes(data)
    return path


def test_a_dump_names_kernel_task_and_registers(tmp_path: Path) -> None:
    dump = Dump.read(write(tmp_path, vmcore(PANIC)))
    assert (dump.release, dump.build_id, dump.crash_time) == ("6.1.0-test", INFO["BUILD-ID"], 1796048466)
    assert dump.crash == Crash("sysrq triggered crash", 1, 77, "sh")
    assert [(one.pid, one.pc) for one in dump.cpus] == [(0, 0xFFFF_8000_0000_2000), (77, 0xFFFF_8000_0000_2004)]
    assert dump.crashed is dump.cpus[1]
    assert dump.cpus[1].x == tuple(range(31))
    assert [record.text for record in dump.log] == list(PANIC.lines)
    assert dump.log[2].lines() == ["[    2.001000] CPU: 1 PID: 77 Comm: sh Kdump: loaded Not tainted 6.1.0-test #1"]


def test_a_vcpu_that_saved_nothing_moves_no_other(tmp_path: Path) -> None:
    """VCPU 0 was off: the first registers are those of vCPU 1."""
    dump = Dump.read(write(tmp_path, vmcore(PANIC, pids=(77, 5))))
    assert dump.crashed is dump.cpus[0]
    assert Dump.read(write(tmp_path, vmcore(PANIC, pids=(3, 5)))).crashed is None


@pytest.mark.parametrize(("pids", "which"), [((7, 0, 0, 9), 1), ((0, 0, 9), None), ((7, 0, 9), 1)])
def test_an_idle_cpu_is_named_only_where_no_other_can_be_meant(
    tmp_path: Path, pids: tuple[int, ...], which: int | None
) -> None:
    """All CPUs of it have told their registers, or one of them has not."""
    log = Log(
        [
            "smp: Brought up 1 node, 4 CPUs",
            "Kernel panic - not syncing: asked for",
            "CPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.1.0-test #1",
        ]
    )
    dump = Dump.read(write(tmp_path, vmcore(log, pids=pids)))
    assert dump.crashed is (None if which is None else dump.cpus[which])


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 333])
def test_a_log_that_went_round_has_its_newest_records(tmp_path: Path, count: int) -> None:
    lines = [f"record {number} {'x' * (number * 7 % 40)}" for number in range(count)]
    read = [record.text for record in Dump.read(write(tmp_path, vmcore(Log(lines)))).log]
    assert read
    assert read == lines[-len(read) :]
    assert len(read) >= min(count, 12)


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (
            [
                "Internal error: Oops: 96000044 [#1] SMP",
                "CPU: 3 UID: 0 PID: 9 Comm: a b Tainted: G  W  6.12",
                "Kernel panic - not syncing: Oops: Fatal exception",
            ],
            Crash("Oops: Fatal exception", 3, 9, "a b"),
        ),
        (["Kernel panic - not syncing: no more"], Crash("no more", None, None, None)),
        (["all is well"], None),
    ],
)
def test_who_panicked(log: list[str], found: Crash | None) -> None:
    assert crash(log) == found


def test_an_older_kernel_has_no_log_to_read(tmp_path: Path) -> None:
    info = {name: value for name, value in INFO.items() if name != "SYMBOL(prb)"}
    dump = Dump.read(write(tmp_path, vmcore(PANIC, info=info)))
    assert (dump.log, dump.crash, len(dump.cpus)) == ((), None, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a vmcore: an empty file"),
        (bytes(5000), "no ELF file; was it copied to its end?"),
        (b"KDUMP   " + bytes(5000), "compressed by makedumpfile"),
        (b"\x7fELF", "is cut short"),
        (b"\x7fELF\2\1\1" + bytes(60), "is not a vmcore of arm64"),
        (vmcore(PANIC)[:3000], "is cut short"),
        (vmcore(PANIC)[:-1], "is cut short: it has"),
        (vmcore(PANIC, info={"SYMBOL(prb)": "1"}), "does not say NUMBER"),
        (vmcore(PANIC, info=INFO | {"SYMBOL(prb)": "ffff900000000000"}), "has no memory at"),
        (vmcore(PANIC, info=INFO | {"SYMBOL(prb)": "zz"}), "VMCOREINFO is damaged"),
        (vmcore(PANIC, info=INFO | {"SIZE(printk_info)": "99999999999"}), "VMCOREINFO is damaged"),
        (vmcore(PANIC, info=INFO | {"OFFSET(prb_desc.state_var)": "20"}), "what it says of the kernel log cannot be"),
        (vmcore(PANIC, info=INFO | {"NUMBER(VA_BITS)": "64"}), "addresses of 64 bits"),
        (vmcore(PANIC, ram=b"\xff" * 0x1_0000), "has no memory at|is damaged"),
    ],
)
def test_what_is_no_dump_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Dump.read(write(tmp_path, data))
    assert "\n" not in str(caught.value)


WHOLE = vmcore(Log([*PANIC.lines] * 9))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=40))
def test_damage_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at if at % 3 else at % 0x2800] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        assert len(Dump.read(path).log) <= 16


def test_a_sparse_file_of_any_size_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, vmcore(PANIC))
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    assert Dump.read(path).release == "6.1.0-test"
