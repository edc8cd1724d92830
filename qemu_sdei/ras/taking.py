"""A number from what was said of its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Field, Word


def number_from_bits(item: Field, given: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[int, set[int]]:
    """The number whose bits are as given, the others 0, and the numbers of its validation bits in the structure.

    Args:
        item: the field.
        given: by the attributes of bits.
        values: of the structure, which say what the bits are.

    Raises:
        CperError: there are no such bits, or one cannot be that.
    """
    word = item.word_for(values)
    if word is None:
        by = item.words[0] if item.words is not None else ""
        raise CperError(f"of this {by} its bits have no names: give a number" if by else "its bits have no names")
    return number_of_word(item, word, given)


def number_of_word(item: Field, word: Word, given: Mapping[str, Any]) -> tuple[int, set[int]]:
    """The same for a word that is known. Raises `CperError`."""
    number, own, outer = 0, 0, set()
    for name, value in given.items():
        bits = word[name]
        try:
            number = bits.put(number, bits.taken(value))
        except CperError as error:
            raise error.below(name) from None
        if bits.valid is not None:
            if word.validity:
                own |= 1 << bits.valid
            else:
                outer.add(bits.valid)
    if word.validity and word.validity not in given:
        number = word[word.validity].put(number, own)
    if item.valid is not None and not outer:
        outer.add(item.valid)
    return number, outer
