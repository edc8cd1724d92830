"""The journal's file: what counts in it, wherever its writer was killed."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.backend.loop.journal import Journal, Record
from qemu_sdei.monitor.layout import HEAD_WORDS


def head(value: int) -> memoryview:
    words = memoryview(bytearray(8 * HEAD_WORDS)).cast("Q")
    words[0] = words[-1] = value
    return words


def kept(path: Path) -> list[tuple[int, int, int, int]]:
    """Of each record that whoever comes next finds: kind, CPU, sequence number, first and last word if they agree."""
    found = [(kind, cpu, seq, body) for kind, cpu, seq, body, _ in Journal(path).records()]
    assert all(body[0] == body[-1] for *_, body in found)
    return [(kind, cpu, seq, body[0]) for kind, cpu, seq, body in found]


def test_what_was_appended_is_there_for_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert [journal.append(Record.INPUT, n, 1 << 40 | n, head(n)) for n in range(3)] == [1, 2, 3]
    assert kept(tmp_path / "journal") == [(Record.INPUT, n, 1 << 40 | n, n) for n in range(3)]


def test_a_checkpoint_empties_it_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    """Between the store that makes the checkpoint count and the one that begins to count records anew."""
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(Record.INPUT, 0, 7, head(7))
    count = path.read_bytes()[16:24]
    journal.checkpoint({"a": 1})
    with path.open("r+b") as file:
        file.seek(16)
        file.write(count)
    after = Journal(path)
    assert (after.count, after.load(), list(after.records())) == (0, {"a": 1}, [])
    after.append(Record.INPUT, 1, 8, head(8))
    assert kept(path) == [(Record.INPUT, 1, 8, 8)]
