"""Snapshots with random damage."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.constants import Function
from tests.examples import examples
from tests.sdei.machine import PRIVATE, PRIVATE_2, PRIVATE_CRITICAL, SHARED, SHARED_2, Machine, busy

DOCUMENT: Any = busy().dispatcher.snapshot()

JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 64, 10**5000, 1.5, "", "x", [], {}, [[]]]),
    st.sampled_from([PRIVATE, PRIVATE_2, PRIVATE_CRITICAL, SHARED, SHARED_2, 0x999]),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a document."""
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


PLACES = places(DOCUMENT)


def in_order(document: Any) -> Any:
    """A document with its lists of events sorted: their order means nothing."""
    document = copy.deepcopy(document)
    for pe in document["pes"]:
        pe["events"].sort(key=lambda entry: entry["event"])
    document["shared"].sort(key=lambda entry: entry["event"])
    return document


def damage_at(document: Any, path: tuple[Any, ...], how: str, junk: Any) -> None:
    """Change one place, if earlier damage left it there."""
    *way, last = path
    node = document
    try:
        for key in way:
            node = node[key]
        value = node[last]
    except (KeyError, IndexError, TypeError):
        return
    if how == "delete" and not isinstance(node, str):
        del node[last]
    elif how == "copy" and isinstance(node, list):
        node.insert(last, copy.deepcopy(value))
    elif how == "copy" and isinstance(node, dict):
        node[f"{last}2"] = value
    elif not isinstance(node, str):
        node[last] = copy.deepcopy(junk)


@settings(max_examples=examples(300, 1500))
@given(
    damages=st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "replace", "delete", "copy"]), JUNK),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 1 << 32),
)
def test_fuzz(damages: list[tuple[tuple[Any, ...], str, Any]], seed: int) -> None:
    """Refused with a reason and no change, or taken over exactly; and what was taken over does not break."""
    document = copy.deepcopy(DOCUMENT)
    for path, how, junk in damages:
        damage_at(document, path, how, junk)
    machine = Machine(4, power=False)
    before = machine.dispatcher.snapshot()
    try:
        machine.dispatcher.restore(document)
    except ProtocolError:
        assert machine.dispatcher.snapshot() == before
        return
    assert in_order(machine.dispatcher.snapshot()) == in_order(document)
    numbers = random.Random(seed)
    for _ in range(30):
        pe = numbers.randrange(4)
        if machine.dispatcher.status()["pes"][pe]["on"]:
            machine(pe, numbers.choice(list(Function)), numbers.choice([0, PRIVATE, SHARED, 0x1000]), 0x1000, 0, 0, 0)
            machine.regs[pe][1] = 5
