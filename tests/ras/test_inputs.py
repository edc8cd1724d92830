"""Records in the forms in which people have them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.inputs import MAX_INPUT, records
from qemu_sdei.ras.libcper import to_json
from qemu_sdei.ras.record import record
from tests.examples import examples
from tests.ras.samples import SAMPLES, refusal

BLOCK = block([entry(SAMPLES["memory"], "recoverable")])
RECORD = record([entry(SAMPLES["pcie"], "fatal")])


@pytest.mark.parametrize("made", [BLOCK, RECORD], ids=["block", "record"])
def test_each_form_is_known_by_itself(made: object) -> None:
    assert made in (BLOCK, RECORD)
    data = BLOCK.pack() if made is BLOCK else RECORD.pack()
    found = BLOCK if made is BLOCK else RECORD
    lines = "\n".join(data.hex()[at : at + 60] for at in range(0, 2 * len(data), 60))
    encoded = base64.b64encode(data)
    for form in (
        data, lines.encode(), data.hex(" ").upper().encode(), b"0x" + data.hex().encode() + b"\n", encoded,
        encoded[:40] + b"\n  " + encoded[40:] + b"\r\n", json.dumps(to_json(found)).encode(),
        b"\n " + json.dumps([to_json(found)], indent=2).encode(),
    ):  # fmt: skip
        assert records(form) == [found]


def test_several() -> None:
    assert records(RECORD.pack() * 3) == [RECORD] * 3
    assert [each.pack() for each in records(BLOCK.pack() * 2)] == [BLOCK.pack()] * 2
    assert records(json.dumps([to_json(BLOCK), to_json(RECORD)]).encode()) == [BLOCK, RECORD]


def test_many_long_records_are_refused_early() -> None:
    long = {"dataEntries": [{}], "sections": [{"Memory": {}, "otherBytes": {"length": 1 << 20}}]}
    with pytest.raises(CperError, match="more than"):
        records(json.dumps([long] * 100).encode())


WRONG = {
    "nothing": (b"", "there is nothing in it"),
    "blanks": (b" \n", "there is nothing in it"),
    "an empty list": (b"[]", "there is nothing in it"),
    "text": (b"error: no such file\n", "it is no record and no status block, neither as bytes nor in hexadecimal"),
    "half a record in hexadecimal": (RECORD.pack().hex()[:200].encode(), "offset 0x60, record_id: cut short"),
    "base64 of a damaged block": (base64.b64encode(BLOCK.pack()[:-1]), "offset 0xc, data_length: it says 152 bytes"),
    "JSON": (b"{", "it is not JSON"),
    "JSON of something else": (b"{}", "sections: it is not there"),
    "the second of a list": (json.dumps([to_json(BLOCK), 5]).encode(), "[1]: it is not an object"),
    "too much": (bytes(MAX_INPUT + 1), f"{MAX_INPUT + 1} bytes are too many"),
    "JSON without end": (b"[" * 100_000, "it is not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_none_is_said(case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(CperError) as error:
        records(data)
    assert str(error.value).startswith(message)


@settings(max_examples=examples(100, 1000))
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_anything_is_taken_or_refused(data: bytes) -> None:
    refusal(lambda: records(data))
