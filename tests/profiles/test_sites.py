"""Places in the guest's code that rules ask for: written, read, and found in a kernel that lies elsewhere each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.profiles import sites
from qemu_sdei.profiles.rule import MAX_TEXT, Rule
from qemu_sdei.profiles.sites import GRANULE, Site
from qemu_sdei.profiles.values import number

BASE = 0xFFFF_8000_0800_0000
ANCHOR = (BASE + 0x2_1234, BASE + 0x2_1263)
ADDRESSES = st.integers(0, (1 << 64) - 1)
RANGES = st.tuples(ADDRESSES, ADDRESSES).map(lambda pair: (min(pair), max(pair)))
NAMES = st.from_regex(r"[A-Za-z_.$][A-Za-z0-9_.$]{0,20}", fullmatch=True)


@given(RANGES, st.just("") | NAMES, st.none() | RANGES)
def test_what_is_written_is_read(there: tuple[int, int], name: str, anchor: tuple[int, int] | None) -> None:
    site = Site(*there, name, anchor)
    assert sites.read(sites.written(site), number) == (site,)


@given(NAMES)
def test_a_name_by_itself(name: str) -> None:
    (site,) = sites.read(name, number)
    assert site.unplaced
    assert sites.written(site) == site.name == name


@given(st.integers(-(1 << 20), 1 << 20), st.integers(0, 0x2F))
def test_each_call_tells_where_the_kernel_is(steps: int, inside: int) -> None:
    distance = steps * GRANULE
    assert sites.distance_of(ANCHOR[0] + inside + distance, ANCHOR) == distance


@pytest.mark.parametrize("pc", [0x4008_1234, BASE, ANCHOR[0] - 4, ANCHOR[1] + 4])
def test_another_call_tells_nothing(pc: int) -> None:
    assert sites.distance_of(pc, ANCHOR) is None


def test_what_comes_back_behind_a_functions_last_instruction_is_that_functions() -> None:
    site = Site(0x1000, 0x100F, "f")
    assert [site.has(address, None) for address in (0x1000, 0x1004, 0x1010, 0x1014)] == [False, True, True, False]
    assert Site(0x1000, 0x100F).has(0x1000, None), "an address is that address"
    assert not Site(0x1000, 0x100F, "f", ANCHOR).has(0x1004, None), "where the kernel is, nobody knows"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CPU_OFF pc=1..2..3 returns=DENIED", "is not a number"),
        ("CPU_OFF pc=9..2 returns=DENIED", "ends before it begins"),
        ("CPU_OFF caller=f@ returns=DENIED", "is not a number"),
        ("CPU_OFF caller=f-g returns=DENIED", "is not a number"),
        ("CPU_OFF caller=a+b@0x1 returns=DENIED", "is no function's name"),
        ("CPU_OFF caller=f@1~x returns=DENIED", "is not a number"),
        ("delivery caller=f loses=event", "caller cannot stand at delivery"),
        (f"CPU_OFF pc={','.join('f' * 17)} returns=DENIED", "more than 16 places"),
    ],
)
def test_what_is_no_place(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Rule.of_text(text)


def test_a_rule_is_placed_and_keeps_the_rest() -> None:
    rule = Rule.of_table({"on": "CPU_OFF", "pc": ["f", 16], "caller": "g", "returns": "DENIED", "why": "because"})
    assert rule.unplaced == ["f", "g"]
    placed = rule.placed(lambda name: [Site(1, 2, name), Site(5, 6, name, ANCHOR)])
    assert placed.unplaced == []
    assert (placed.why, placed.actions) == ("because", rule.actions)
    calls = f"~{ANCHOR[0]:#x}..{ANCHOR[1]:#x}"
    assert placed.text == (
        f"CPU_OFF pc=f@0x1..0x2,f@0x5..0x6{calls},0x10 caller=g@0x1..0x2,g@0x5..0x6{calls} returns=DENIED"
    )
    assert Rule.of_text(placed.text).values == placed.values
    with pytest.raises(UsageError, match=f"at most {MAX_TEXT}"):
        rule.placed(lambda name: [Site(5, 6, name * 60, ANCHOR)] * 8)
