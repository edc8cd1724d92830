"""What is wrong with a kernel, by what it says."""

from __future__ import annotations

import random

import pytest

from qemu_sdei.fuzzing.troubles import Level, Trouble, troubles, worst
from tests.fuzzing import consoles

FOUND: dict[str, tuple[str, list[tuple[Level, str, tuple[str, ...]]]]] = {
    "nothing": (consoles.LOGGED, []),
    "a warning": (
        consoles.WARNED,
        [(Level.WARNING, "WARNING: CPU: 1 PID: 17 at", ("frobnicate", "frob_work"))],
    ),
    "an oops": (consoles.OOPS, [(Level.OOPS, "Unable to handle kernel paging", ("print_things", "print_section",
                                                                               "irq_work_run"))]),
    "an oops and its panic": (
        consoles.DIED,
        [
            (Level.OOPS, "Unable to handle kernel paging", ("print_things", "print_section", "irq_work_run")),
            (Level.PANIC, "Kernel panic - not syncing: Oops: Fatal", ()),
        ],
    ),
    "a panic": (
        consoles.ASKED,
        [(Level.PANIC, "Kernel panic - not syncing: GHES", ("__ghes_panic", "ghes_in_nmi_queue_one_entry",
          "ghes_sdei_normal_callback", "sdei_event_handler", "__sdei_handler"))],
    ),
    "a lockup": (consoles.LOCKUP, [(Level.STALL, "watchdog: BUG: soft lockup", ("go_through_sections", "handle_errors"
                                                                              ))]),
    "a stall": (consoles.STALL, [(Level.STALL, "rcu: INFO: rcu_preempt detected stalls", ())]),
    "KASAN": (consoles.KASAN, [(Level.OOPS, "BUG: KASAN: slab-out-of-bounds", ("print_things", "print_section"))]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_what_a_kernel_says(case: str) -> None:
    text, expected = FOUND[case]
    found = troubles(text)
    assert [(each.level, each.stack) for each in found] == [(level, stack) for level, _, stack in expected]
    for each, (_, title, _) in zip(found, expected, strict=True):
        assert each.title.startswith(title)
        assert each.lines[0] == each.title


def test_a_panic_is_named_by_the_oops_that_led_to_it() -> None:
    found = worst(troubles(consoles.DIED))
    assert found is not None
    assert found.level is Level.PANIC
    assert found.stack[0] == "print_things"
    assert found.title.startswith("Unable to handle")


def test_the_worst_of_several() -> None:
    found = worst(troubles(consoles.WARNED + consoles.OOPS + consoles.STALL))
    assert found is not None
    assert found.level is Level.OOPS
    assert worst([]) is None


def test_the_same_fault_has_the_same_key_wherever_it_interrupted() -> None:
    """Offsets, CPUs, tasks, addresses and what ran before it differ."""
    other = consoles.OOPS.replace("0x64/0x2a0", "0x68/0x2a4").replace("swapper/0", "sh").replace("CPU: 0", "CPU: 3")
    other = other.replace("default_idle_call", "el0_svc").replace("ffff80008123f000", "ffff80008777f000")
    assert [each.key for each in troubles(other)] == [each.key for each in troubles(consoles.OOPS)]
    stalls = consoles.STALL.replace("rcu_preempt", "rcu_sched")
    assert troubles(stalls)[0].key != troubles(consoles.STALL)[0].key
    assert troubles(consoles.STALL.replace("80.0", "99.0"))[0].key == troubles(consoles.STALL)[0].key
    different = consoles.OOPS.replace("print_things", "other_things")
    assert troubles(different)[0].key != troubles(consoles.OOPS)[0].key


def test_lines_of_others_in_between() -> None:
    """Another CPU prints too, and a prompt does not end its line."""
    lines = consoles.OOPS.splitlines()
    lines.insert(10, "[   40.000950] virtio_net virtio0 eth0: carrier lost")
    lines[0] = f"/ # {lines[0]}"
    assert troubles("\n".join(lines))[0].stack == ("print_things", "print_section", "irq_work_run")


def test_printk_with_callers() -> None:
    text = "".join(line.replace("] ", "][   T88] ", 1) + "\n" for line in consoles.WARNED.splitlines())
    assert troubles(text)[0].key == troubles(consoles.WARNED)[0].key


@pytest.mark.parametrize("seed", range(20))
def test_any_text(seed: int) -> None:
    """What a guest prints does no harm, and is not kept raw."""
    dice = random.Random(seed)
    whole = consoles.WARNED + consoles.DIED + consoles.KASAN + consoles.LOCKUP
    text = list(whole)
    for _ in range(400):
        text[dice.randrange(len(text))] = dice.choice(["\x1b", "\0", "\n", "\r", "é", "\u202e", " ", "[", "x" * 50])
    for each in troubles("".join(text)):
        assert isinstance(each, Trouble)
        assert all(character.isprintable() for line in (each.title, *each.lines, *each.stack) for character in line)


def test_a_flood_is_bounded() -> None:
    found = troubles(
        consoles.WARNED * 50 + "[    1.000000] WARNING: x\n" * 100_000 + "Call trace:\n" + " f+0x1/0x2\n" * 99
    )
    assert len(found) < 30_000
    assert all(len(each.lines) <= 60 and len(each.stack) <= 16 for each in found)
