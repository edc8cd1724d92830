"""Whatever bytes come in: an answer, or a `TableError` with its place, and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.parse import parse, parse_file, split_file
from qemu_sdei.acpi.show import compare, show
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.verify import verify
from tests.acpi.samples import TABLES
from tests.examples import examples

GOOD = [table.to_bytes() for table in TABLES.values()]
every_table = pytest.mark.parametrize("name", TABLES)


def use(data: bytes, *, look: bool = True) -> Table | None:
    """Do all that can be done with `data` (printing it, which is slow, only to `look`); the table, if it is one."""
    findings = verify(data)
    for finding in findings:
        assert str(finding)
        assert finding.offset is None or 0 <= finding.offset <= max(len(data), 40)
    table = parsed(data)
    if isinstance(table, TableError):
        assert table.offset is not None, f"{table} has no offset"
        assert table.field, f"{table} has no field"
        assert 0 <= table.offset <= max(len(data), 40)
        assert findings, f"parse refuses what verify finds nothing wrong with: {table}"
        return None
    again = table.to_bytes()
    # What is not kept is computed: length and checksums.
    if not findings:
        assert again == data
    assert len(again) == len(data)
    assert sum(a != b for a, b in zip(again, data, strict=True)) <= 2
    assert parse(again) == table
    if look:
        show(data)
    return table


def parsed(data: bytes) -> Table | TableError:
    try:
        return parse(data)
    except TableError as error:
        return error


@every_table
def test_each_byte_changed(name: str) -> None:
    data = TABLES[name].to_bytes()
    for at in range(len(data)):
        for value in (data[at] ^ 1 << at % 8,) if len(data) > 200 else (data[at] ^ 1 << at % 8, 0xFF):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            use(changed, look=at % 16 == 0)
            if changed != data and name != "FACS":
                assert verify(changed), f"{name}: a changed byte at {at} is not found"


@every_table
def test_each_length(name: str) -> None:
    data = TABLES[name].to_bytes()
    for size in range(len(data)):
        assert use(data[:size]) is None
        assert verify(data[:size])
        # The same with a header that has the length right: the fields end in the middle.
        if size >= 36 and data[:4] != b"RSD ":
            use(data[:4] + size.to_bytes(4, "little") + data[8:size])
    for extra in (1, 3, 4, 28, 100):
        assert use(data + bytes(extra)) is None
        longer = len(data) + extra
        if data[:4] != b"RSD ":
            use(data[:4] + longer.to_bytes(4, "little") + data[8:] + bytes(extra))


def test_a_large_table_full_of_faults_is_gone_through_once() -> None:
    """Time that grew with the square of its size would be hours here."""
    count = 4000
    source = bytes.fromhex("0900 0000 0000 ff ff") + bytes(56)
    body = count.to_bytes(4, "little") + source * count
    data = b"HEST" + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body
    findings = verify(data)
    assert len(findings) > 8 * count
    assert {finding.offset for finding in findings if finding.field == f"sources[{count - 1}].enabled"} == {
        len(data) - 64 + 7
    }


@every_table
def test_many_bytes_changed_at_once(name: str) -> None:
    rng = random.Random(name)
    for _ in range(60):
        data = bytearray(TABLES[name].to_bytes())
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        use(bytes(data))


@settings(max_examples=examples(150))
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    use(data)
    files(data)


@settings(max_examples=examples(150))
@given(
    st.sampled_from([data[:4] for data in GOOD] + [b"RSD PTR ", b"OEMX"]),
    st.binary(min_size=28, max_size=28),
    st.binary(max_size=200),
)
def test_any_body_behind_a_sound_header(signature: bytes, head: bytes, body: bytes) -> None:
    size = 36 + len(body)
    use(signature[:4] + size.to_bytes(4, "little") + head + body)


@settings(max_examples=examples(120))
@given(st.integers(0, 13), st.integers(0, 0xFFFF), st.binary(max_size=160), st.integers(0, 5))
def test_any_error_source(kind: int, number: int, rest: bytes, count: int) -> None:
    body = count.to_bytes(4, "little") + kind.to_bytes(2, "little") + number.to_bytes(2, "little") + rest
    data = b"HEST" + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body
    use(data)


@settings(max_examples=examples(120))
@given(st.lists(st.one_of(st.sampled_from(GOOD), st.binary(max_size=60)), max_size=5), st.integers(0, 400))
def test_any_file(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    files(data)
    files(data[:size])


@settings(max_examples=examples(100))
@given(st.text("SDEI @0x123456789abcdef:\n .", max_size=200))
def test_any_acpidump_text(text: str) -> None:
    files(b"SDEI @ 0x0000000000000000\n" + text.encode())


@settings(max_examples=examples(50))
@given(st.sampled_from(GOOD), st.sampled_from(GOOD))
def test_any_two_tables_can_be_compared(first: bytes, second: bytes) -> None:
    assert bool(compare(first, second)) == (first != second)


def files(data: bytes) -> None:
    try:
        tables = split_file(data)
    except TableError:
        with pytest.raises(TableError):
            parse_file(data)
        return
    assert tables
    for table in tables:
        verify(table)
    try:
        parse_file(data)
    except TableError:
        return
