"""Random numbers from the firmware (DEN0098): what each call answers, and which registers bring the bits."""

from __future__ import annotations

import pytest

from qemu_sdei.services.trng import RND64, UUID, Code, Function, Trng
from qemu_sdei.smccc.regs import X0, new_regs

_PATTERN = bytes(range(1, 25))


def _call(function: int, argument: int = 0, entropy: bytes = _PATTERN) -> tuple[int, ...]:
    def give(count: int) -> bytes:
        return entropy[:count]

    regs = new_regs()
    regs[X0], regs[X0 + 1] = function, argument
    found = Trng(give).handlers()[function](0, regs)
    assert isinstance(found, int | tuple)
    return found if isinstance(found, tuple) else (found,)


def test_version_is_1_0_and_the_uuid_is_our_own() -> None:
    assert _call(Function.VERSION) == (0x1_0000,)
    words = _call(Function.GET_UUID)
    assert b"".join(word.to_bytes(4, "little") for word in words) == UUID.bytes
    assert words[0] != 0xFFFF_FFFF  # that would be NOT_SUPPORTED


@pytest.mark.parametrize("function", [*Function, RND64])
def test_features_knows_what_is_there(function: int) -> None:
    assert _call(Function.FEATURES, function) == (0,)


@pytest.mark.parametrize("function", [0x8400_0054, 0xC400_0050, 0x8400_0000, 0])
def test_features_denies_what_is_not(function: int) -> None:
    assert _call(Function.FEATURES, function) == (Code.NOT_SUPPORTED,)


@pytest.mark.parametrize(("function", "width"), [(Function.RND, 32), (RND64, 64)])
def test_bits_fill_the_last_register_first_and_no_more_than_was_asked_for(function: int, width: int) -> None:
    for bits in range(1, 3 * width + 1):
        code, *words = _call(function, bits)
        assert code == 0
        value = words[0] << 2 * width | words[1] << width | words[2]
        assert all(0 <= word < 1 << width for word in words)
        assert value == int.from_bytes(_PATTERN[: (bits + 7) // 8], "little") & (1 << bits) - 1


@pytest.mark.parametrize(
    ("function", "bits"), [(Function.RND, 0), (Function.RND, 97), (RND64, 0), (RND64, 193), (RND64, 1 << 63)]
)
def test_a_number_of_bits_that_cannot_be_is_refused_and_gives_none(function: int, bits: int) -> None:
    assert _call(function, bits) == (Code.INVALID_PARAMETERS, 0, 0, 0)


def test_the_upper_half_of_a_32_bit_argument_is_not_looked_at() -> None:
    assert _call(Function.RND, 1 << 32 | 8)[0] == 0


def test_a_host_without_entropy_says_so() -> None:
    def none(count: int) -> bytes:
        raise OSError("none left")

    regs = new_regs()
    regs[X0 + 1] = 64
    assert Trng(none).handlers()[RND64](0, regs) == (Code.NO_ENTROPY, 0, 0, 0)
