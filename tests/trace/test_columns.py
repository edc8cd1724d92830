"""Records as text: one line each, readable, whatever a guest has put into them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.printable import printable
from qemu_sdei.trace.columns import Columns, mood
from tests.examples import examples
from tests.trace.records import META, START, Maker, Record, one_of_each

SHOWN = """\
[  -]     0.000020: backend:     what=started pid=4711 program=qemu-sdei 0.1.0
[  -]     0.000030: boot:        the machine was reset, epoch=1
[001]     0.000040: power:       ? -> off
[000]     0.000050: call:        SDEI_EVENT_REGISTER event=0x0/software entry=0xffff800080010000 argument=0x5 flags=0x0 affinity=0x0 -> SUCCESS pc=0xffff800080012344
[000]     0.000060: call:        SDEI_EVENT_ENABLE event=0x77 -> DENIED (-3) pc=0xffff800080012344
[000]     0.000070: call:        PSCI_VERSION -> 0x10001 pc=0xffff800080012344
[001]     0.000080: call:        CPU_OFF -> parks pc=0xffff800080012344
[000]     0.000090: call:        SDEI_EVENT_COMPLETE status=0x0 -> resumes pc=0xffff800080012344
[000]     0.000100: call:        SDEI_VERSION -> (no answer) pc=0xffff800080012344
[000]     0.000110: transition:  event=0x0/software unregistered -> registered by REGISTER (DEN0054 6.1)
[001]     0.000120: trigger:     event=0x0/software by=host -> pending
[  -]     0.000130: trigger:     event=0x104/watchdog by=interrupt -> refused: event 0x104 is not registered
[001]     0.000140: undelivered: event=0x0/software reason=masked: vCPU 1 has masked events
[001]     0.000150: frame:       kick -> handler pc=0xffff800080012344 EL1
[000]     0.000160: frame:       exception vector=0x400 esr=0xbe000000 -> handler pc=0xffff800080012344 EL1
[000]     0.000010: frame:       operations CPU_OFF -> parks pc=0xffff800080012344 EL1
[001]     0.000170: transition:  event=0x0/software enabled -> running by DISPATCH (DEN0054 6.1)
[001]     0.000180: transition:  event=0x0/software running -> enabled by COMPLETE (DEN0054 6.1)
[001]     0.000190: injection:   event=0x0/software -> completed ticket=t-1
[000]     0.000200: counted:     SDEI_VERSION count=1000 in 200 us
[000]     0.000210: kernel:      another kernel has begun without a reset, kernels=2
[  -]     0.000220: migration:   paused: for a migration to 'demo-2'
[000]     0.000230: reject:      frame 0 has changed since it was posted
[000]     0.000240: unknown:     nobody serves id=0x8600ff01
[  -]     0.000250: note:        name=heartbeat seconds=3
[  -]     0.000260: dropped:     12 records are missing here: the reader was too slow
[000]     0.000270: ftrace:      insmod-85 d..1. function: sdei_event_enable <-x
[001]     0.000280: ras:         error of source 'memory' (corrected, 172 bytes, told by sdei) -> reported
[  -]     0.000290: firmware:    firmware profile slow, rules=1: each call takes 3 ms
[001]     0.000300: misbehaved:  firmware profile tfa rule 4: loses=event deaf=yes
[000]     0.000310: notification: abort address=0x40000000 elr=0x40201000 spsr=0x3c5 -> made
[001]     0.000320: priorities:  at CPU_ON priority 0xa0 is active (ICC_AP1R0_EL1 0x4000000): an interrupt was acknowledged and never ended -> the firmware ends it
"""  # noqa: E501


def test_each_kind_has_its_line() -> None:
    columns = Columns(META["events"], START)
    assert "".join(columns.line(record) + "\n" for record in one_of_each()) == SHOWN


def test_symbols_take_the_place_of_addresses() -> None:
    columns = Columns(META["events"], START, lambda address: f"invoke_sdei_fn+{address & 0xFF:#x}")
    register = next(r for r in one_of_each() if r.get("function") == "SDEI_EVENT_REGISTER")
    line = columns.line(register)
    assert "entry=invoke_sdei_fn+0x0 " in line
    assert line.endswith("pc=invoke_sdei_fn+0x44")
    assert Columns().line({**register, "pc_symbol": "el1t_64_irq+0x7c"}).endswith("pc=el1t_64_irq+0x7c")


def test_a_result_that_is_a_value_is_hexadecimal_and_no_refusal() -> None:
    """As EVENT_CONTEXT returns addresses of the kernel."""
    call = Maker().call(0, "SDEI_EVENT_CONTEXT", -191_516_891_078_624, index=12)
    assert "-> 0xffff51d0ffbd2020 pc=" in Columns().line(call)
    assert mood(call) == "plain"


def test_a_time_that_is_in_doubt_says_so() -> None:
    record = Maker().kick(0)
    assert "+-" not in Columns().line(record)
    assert Columns().line({**record, "at_error_ns": 5_000_000_000}).endswith("(+-5 s)")


def test_a_time_before_the_trace_began_is_negative() -> None:
    assert "[000]   -10.999990: frame:" in Columns((), START + 11_000_000_000).line(Maker().kick(0))


def test_moods() -> None:
    moods = {printable(Columns().line(record))[19:]: mood(record) for record in one_of_each()}
    assert set(moods.values()) == {"bad", "refused", "event", "quiet", "plain"}
    wanted = {"DENIED": "refused", "exception": "bad", "DISPATCH": "event", "masked": "refused", "SUCCESS": "plain"}
    for word, expected in wanted.items():
        assert {mood for line, mood in moods.items() if word in line} == {expected}


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(one_of_each()), st.dictionaries(st.text(max_size=8), anything, max_size=4), st.data())
@settings(max_examples=examples(40, 1000))
def test_whatever_fields_a_record_has_it_is_one_harmless_line(
    record: Record, more: dict[str, Any], data: st.DataObject
) -> None:
    """Of a file that somebody sent; `open_trace` has looked at the common fields only."""
    common = {"n", "type", "vcpu", "time_ns", "counter", "at_ns", "at_error_ns"}
    own = sorted(record.keys() - common)
    replaced = data.draw(st.dictionaries(st.sampled_from(own or ["x"]), anything, max_size=3))
    gone = data.draw(st.sets(st.sampled_from(own or ["x"]), max_size=2))
    damaged = {key: value for key, value in {**record, **replaced, **more}.items() if key not in gone}
    damaged |= {key: record[key] for key in common}
    line = Columns(META["events"], START).line(damaged)
    assert line == printable(line)
    assert line.isprintable()
    assert re.match(r"\[(  -|\d{3})\]  +-?\d+\.\d{6}: \w+:", line)
    assert mood(damaged) in {"bad", "refused", "event", "quiet", "plain"}


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\u202egnp", "\x9b31m"], ids=ascii)
def test_a_name_of_the_guest_s_does_nothing_to_a_terminal(name: str) -> None:
    line = Columns().line(Maker().make("ftrace", 0, task=name, pid=1, flags="", event=name, text=name, guest_ns=0))
    assert line.isprintable()
    assert name not in line
