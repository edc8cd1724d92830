"""The tests of the core find faults that are put into it on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

import qemu_sdei
from tests.sdei.mutants import MUTANTS, SAMPLE, Mutant, patched, row, try_mutant


def test_every_mutant_still_fits_its_source() -> None:
    """A fault that cannot be put in any more proves nothing."""
    folder = Path(qemu_sdei.__file__).parent
    assert len(MUTANTS) >= 30
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        source = (folder / mutant.path).read_text()
        assert patched(mutant, source) != source


@pytest.mark.not_quick
def test_a_sample_is_caught() -> None:
    """One of them, in the normal suite."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == SAMPLE)
    assert try_mutant(mutant).by is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_caught(mutant: Mutant) -> None:
    """All of them."""
    verdict = try_mutant(mutant)
    print(row(verdict))
    assert verdict.by is not None
