"""Cases for a fuzzer: the same ones by seed and number, and worth showing to a kernel."""

from __future__ import annotations

from collections import Counter

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import block, parse_block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.malform import malformed
from qemu_sdei.ras.mutate import Case, Shape, case, simpler
from tests.ras.samples import SAMPLES

MANY = [case(11, number) for number in range(300)]


def test_seed_and_number_make_a_case() -> None:
    assert case(11, 17) == MANY[17]
    assert case(11, 17, Shape(size=4096)) == MANY[17]
    assert case(12, 17) != MANY[17]
    assert len({each.data for each in MANY}) > 290


def test_a_case_is_the_same_in_each_version_of_python() -> None:
    """Its choices come from what `random.Random` promises for ever."""
    found = case(5, 8)
    assert found.edits == (
        "block_status.error_data_entry_count=overflow",
        "block_status.error_data_entry_count=underflow",
        "entry[0].error_data_length=truncate",
    )
    assert found.block[:20].hex() == "120000000000000000000000b400000002000000"


def test_each_is_a_well_formed_block_with_edits() -> None:
    for each in MANY:
        whole = parse_block(each.block)
        assert whole.pack() == each.block
        assert len(each.block) <= 4096
        assert 20 <= len(each.data) <= 4096
        assert malformed(each.block, each.edits).startswith(each.data.rstrip(b"\0"))


def test_all_kinds_of_sections_and_of_edits_come() -> None:
    found: Counter[str] = Counter()
    for each in MANY:
        found.update(part.section.kind.name for part in parse_block(each.block).entries)
        for edit in each.edits:
            name, _, value = edit.partition("=")
            found[value if value.isalpha() else name[:1]] += 1
    for name in (*SAMPLES, "raw", "overflow", "underflow", "cycle", "truncate", "@"):
        assert found[name], name
    assert found["arm"] > found["firmware"]
    assert any(not each.edits for each in MANY), "some are as they should be"
    assert any(parse_block(each.block).raw for each in MANY)


def test_few_ask_the_kernel_to_panic() -> None:
    assert 0 < sum(each.asks_to_panic for each in MANY) < 20
    assert not any(case(3, number, Shape(fatal=0)).block[16] == 1 for number in range(200))
    assert all(case(3, number, Shape(fatal=100)).block[16] == 1 for number in range(20))


def test_memory_of_another_size() -> None:
    small = Shape(size=256)
    for number in range(100):
        assert len(case(2, number, small).data) <= 256


def test_addresses_differ_from_case_to_case() -> None:
    """Linux takes an error that it has seen for the same one, and says nothing."""
    alike = Counter(each.block for each in MANY)
    assert alike.most_common(1)[0][1] <= 3, "only what has no address, and nothing else to say"


def test_what_is_simpler() -> None:
    whole = block([entry(SAMPLES["memory"]), entry(SAMPLES["arm"]), entry(SAMPLES["pcie"])])
    found = Case(whole.pack(), ("entry[0].revision=overflow", "section[2].port_type=+1", "data_length=+1"))
    fewer = list(simpler(found))
    assert [len(each.edits) for each in fewer[:3]] == [2, 2, 2]
    assert all(each.block == found.block for each in fewer[:3])
    last, middle, first = fewer[3:]
    assert last.edits == ("entry[0].revision=overflow", "data_length=+1")
    assert middle.edits == ("entry[0].revision=overflow", "section[1].port_type=+1", "data_length=+1")
    assert first.edits == ("section[1].port_type=+1", "data_length=+1")
    kept = parse_block(middle.block)
    assert (kept.count, [each.section.kind.name for each in kept.entries]) == (2, ["memory", "pcie"])
    assert kept == block([entry(SAMPLES["memory"]), entry(SAMPLES["pcie"])])


def test_simplest_is_reached() -> None:
    for found in MANY[:60]:
        seen = found
        while more := next(iter(simpler(seen)), None):
            seen = more
            assert parse_block(seen.block).pack() == seen.block
        assert not seen.edits
        assert len(parse_block(seen.block).entries) <= 1


def test_edits_of_somebody_else_are_refused() -> None:
    with pytest.raises(CperError):
        Case(MANY[0].block, ("gremlin=1",)).data  # noqa: B018
