"""Random calls and frames, 100,000 of them; eleven million with the slow ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.sdei.engine import Engine
from tests.fuzz.fuzzer import Fuzzer, FuzzError

CALLS = 100_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 11))
def test_a_million_calls(tmp_path: Path, seed: int) -> None:
    fuzzer = Fuzzer(seed, tmp_path)
    fuzzer.run(CALLS)
    assert fuzzer.calls == CALLS


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1001, 1011))
def test_ten_million_calls(tmp_path: Path, seed: int) -> None:
    Fuzzer(seed, tmp_path).run(10 * CALLS)


@pytest.mark.not_quick
def test_it_goes_everywhere(tmp_path: Path) -> None:
    """A fuzzer that never gets into a handler finds nothing. (The first of the million.)"""
    fuzzer = Fuzzer(1, tmp_path)
    fuzzer.run(CALLS)
    assert fuzzer.calls == CALLS
    seen = {what for what, _ in fuzzer.coverage}
    assert {"DISPATCH", "COMPLETE", "PE_RESET", "hostile", "interrupt", "restart", "reset", "snapshot"} <= seen


def test_a_fault_is_found_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed fails in the same step."""
    monkeypatch.setattr(Engine, "_hand_over", lambda self, p: None)
    messages = []
    for attempt in range(2):
        (tmp_path / str(attempt)).mkdir()
        with pytest.raises(FuzzError, match=r"again: python -m tests\.fuzz\.fuzzer --seed 1") as failure:
            Fuzzer(1, tmp_path / str(attempt)).run(CALLS)
        messages.append(str(failure.value))
    assert messages[0] == messages[1]
