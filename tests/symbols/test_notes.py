"""Build ids in ELF notes, and what VMCOREINFO says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.symbols import notes
from tests.symbols.elves import note


def test_the_build_id_is_found_among_other_notes() -> None:
    other = b"\x06\0\0\0\x05\0\0\0\x01\0\0\0Linux\0\0\0\x01\x02\x03\x04\x05\0\0\0"
    ours = note(bytes.fromhex("d34ebfe0b641cdfdc5460d84a5d1f9380050eb97"))
    assert notes.build_id(other + ours) == "d34ebfe0b641cdfdc5460d84a5d1f9380050eb97"
    assert notes.is_notes(ours)


def test_what_is_cut_or_too_large_has_none() -> None:
    whole = note(bytes(20))
    assert notes.build_id(whole[:-1]) is None
    assert notes.build_id(note(bytes(200))) is None
    assert not notes.is_notes(b"GNU")


@given(st.binary(max_size=200))
def test_noise_has_none_or_hex_digits(data: bytes) -> None:
    found = notes.build_id(data)
    assert found is None or bytes.fromhex(found)


def test_vmcoreinfo_is_read() -> None:
    text = (
        "OSRELEASE=6.1.0-56-arm64\nBUILD-ID=d34ebfe0\nPAGESIZE=4096\n"
        "SYMBOL(_stext)=ffffd9f335610000\nKERNELOFFSET=59f32d600000\n"
    )
    found = notes.vmcoreinfo(text)
    assert (found["OSRELEASE"], found["BUILD-ID"], found["KERNELOFFSET"]) == (
        "6.1.0-56-arm64",
        "d34ebfe0",
        "59f32d600000",
    )
