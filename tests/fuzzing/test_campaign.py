"""A run against a kernel that is made of a few lines: which faults it finds, how small it makes them, what it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.errors import LostGuestError, UsageError
from qemu_sdei.fuzzing.campaign import Campaign, Limits
from qemu_sdei.fuzzing.findings import Finding
from qemu_sdei.fuzzing.results import Results, Totals
from qemu_sdei.fuzzing.verdicts import Observed
from qemu_sdei.ras.libcper import from_json
from qemu_sdei.ras.malform import malformed
from qemu_sdei.ras.mutate import Shape, case
from tests.fuzzing import consoles

SEED = 9
FINE = Observed("", taken=True)
Kernel = Callable[[bytes], Observed]


class Toy:
    """A guest whose kernel is a function. One that has gone wrong says nothing until it is restored."""

    shape = Shape(size=2048)
    kernel = "Toy 1.0 \x1b[31m"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.shown: list[bytes] = []
        self.restored = 0
        self.fresh = True
        self._dead = False

    def show(self, data: bytes, *, alone: bool = False) -> Observed:
        """See `Shown`."""
        assert not self._dead, "a guest that was lost is shown nothing"
        assert self.fresh or not alone
        self.shown.append(data)
        self.fresh = False
        seen = self._kernel(data)
        self._dead = not seen.alive
        return seen

    def restore(self) -> None:
        """See `Shown`."""
        self.restored += 1
        self.fresh = True
        self._dead = False


def too_long(data: bytes) -> Observed:
    """A kernel that believes the first section's length."""
    if int.from_bytes(data[44:48], "little") > 0x10_0000:
        return Observed(consoles.DIED, alive=False, completed=False)
    return FINE


def run(toy: Toy, results: Results, count: int) -> Campaign:
    campaign = Campaign(toy, results, fatal=0)
    campaign.run(Limits(count))
    return campaign


def fresh(directory: Path | None = None) -> Results:
    return Results(Totals(SEED, "memory"), directory=directory)


def test_a_fault_is_found_once_and_made_as_simple_as_it_can_be() -> None:
    toy = Toy(too_long)
    results = fresh()
    campaign = run(toy, results, 300)
    (finding,) = results.findings
    assert finding.alone
    assert (finding.verdict, finding.stack[0]) == ("panic", "print_things")
    assert finding.hits > 1
    simplest = finding.case.case()
    assert len(simplest.edits) == 1
    assert not too_long(simplest.data).alive
    assert campaign.executed == results.totals.cases == sum(results.totals.counts.values()) == 300
    assert results.totals.counts["panic"] == finding.hits
    assert results.totals.counts["logged"] == 300 - finding.hits
    assert toy.restored == results.totals.restored


def test_cases_are_those_of_seed_and_number_whatever_happens_to_the_guest() -> None:
    calm, wild = Toy(lambda data: FINE), Toy(too_long)
    run(calm, fresh(), 40)
    run(wild, fresh(), 40)
    assert calm.shown == [case(SEED, number, Shape(2048, fatal=0)).data for number in range(40)]
    assert set(calm.shown) <= set(wild.shown)


def test_a_kernel_without_faults() -> None:
    toy = Toy(lambda data: Observed("", taken=len(data) > 100))
    results = fresh()
    run(toy, results, 50)
    assert results.findings == []
    assert set(results.totals.counts) == {"ignored", "logged"}
    assert toy.restored == 0


def test_the_case_before_is_blamed_where_it_alone_does_it() -> None:
    """Work that the kernel has put off breaks it when the next case is shown."""
    before: list[bytes] = []

    def kernel(data: bytes) -> Observed:
        late = before[-1:] and int.from_bytes(before[-1][44:48], "little") > 0x10_0000
        before.append(data)
        return Observed(consoles.OOPS) if late else FINE

    class Late(Toy):
        def show(self, data: bytes, *, alone: bool = False) -> Observed:
            seen = super().show(data, alone=alone)
            if not alone:
                return seen
            return kernel(b"")  # what was put off is waited for

        def restore(self) -> None:
            super().restore()
            before.clear()

    results = fresh()
    run(Late(kernel), results, 150)
    finding = results.findings[0]
    assert finding.alone
    assert not too_long(finding.case.case().data).alive
    assert case(SEED, finding.number, Shape(2048, fatal=0)).edits != finding.original.edits


def test_what_does_not_come_again_is_kept_as_it_is() -> None:
    numbers = iter(range(10_000))
    toy = Toy(lambda data: Observed(consoles.WARNED) if next(numbers) == 7 else FINE)
    results = fresh()
    run(toy, results, 30)
    (finding,) = results.findings
    assert not finding.alone
    assert (finding.number, finding.since, finding.hits) == (7, 0, 1)
    assert finding.case == finding.original


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    whole = fresh()
    run(Toy(too_long), whole, 120)
    run(Toy(too_long), fresh(kept), 70)
    again = Results.read(kept)
    assert again.totals.next == 70
    run(Toy(too_long), again, 50)
    read = Results.read(kept)
    assert read.totals.counts == whole.totals.counts
    assert [each.key for each in read.findings] == [each.key for each in whole.findings]
    assert [each.hits for each in read.findings] == [each.hits for each in whole.findings]
    assert read.totals.cases == 120


def test_a_run_that_is_broken_off_keeps_what_it_found(tmp_path: Path) -> None:
    class Ends(Toy):
        def restore(self) -> None:
            super().restore()
            if self.restored == 12:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Ends(too_long), fresh(tmp_path), 1000)
    assert Results.read(tmp_path).findings

    class Lost(Toy):
        def show(self, data: bytes, *, alone: bool = False) -> Observed:
            if len(self.shown) == 30:
                raise LostGuestError("QEMU is gone")
            return super().show(data, alone=alone)

    with pytest.raises(LostGuestError):
        run(Lost(lambda data: FINE), fresh(tmp_path / "other"), 100)
    assert Results.read(tmp_path / "other").totals.next == 30


def test_findings_are_files_that_say_what_to_do_again(tmp_path: Path) -> None:
    results = fresh(tmp_path)
    run(Toy(too_long), results, 100)
    finding = Finding.read(tmp_path / "finding-1.json")
    assert finding == results.findings[0]
    assert "\x1b" not in finding.kernel
    record = json.loads((tmp_path / "finding-1.record.json").read_text())
    made = from_json(record).pack()
    shown = finding.case.case()
    assert malformed(made, shown.edits).ljust(20, b"\0")[:2048] == shown.data


DAMAGED: dict[str, Callable[[dict[str, object]], object]] = {
    "another format": lambda found: found.update(format="something"),
    "another version": lambda found: found.update(version=2),
    "an unknown field": lambda found: found.update(gremlin=1),
    "a field that is missing": lambda found: found.pop("stack"),
    "a text for a number": lambda found: found.update(number="7"),
    "no verdict": lambda found: found.update(verdict="fine"),
    "no base64": lambda found: found.update(case={"block": "!", "edits": [], "size": 100}),
    "no block": lambda found: found.update(case={"block": "AAAA", "edits": [], "size": 100}),
    "an edit that cannot be": lambda found: found["case"].update(edits=["x=1"]),  # type: ignore[attr-defined]
    "a huge size": lambda found: found["case"].update(size=1 << 40),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_findings(damage: str, tmp_path: Path) -> None:
    run(Toy(too_long), fresh(tmp_path), 100)
    path = tmp_path / "finding-1.json"
    document = json.loads(path.read_text())
    DAMAGED[damage](document)
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError) as error:
        Finding.read(path)
    assert "finding-1.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{" * 1000, "\0", '{"format": "qemu-sdei-ras-fuzz", "version": 1}'])
def test_damaged_runs(text: str, tmp_path: Path) -> None:
    (tmp_path / "campaign.json").write_text(text)
    with pytest.raises(UsageError, match=r"campaign\.json"):
        Results.read(tmp_path)


def test_counts_that_cannot_be(tmp_path: Path) -> None:
    run(Toy(lambda data: FINE), fresh(tmp_path), 3)
    path = tmp_path / "campaign.json"
    whole = json.loads(path.read_text())
    for wrong in ({"counts": {"logged": -1}}, {"counts": {"\x1b[2J": 1}}, {"next": -5}, {"seconds": 1e300}):
        path.write_text(json.dumps({**whole, **wrong}))
        with pytest.raises(UsageError):
            Results.read(tmp_path)


def test_it_ends_after_the_time_too() -> None:
    results = fresh()
    campaign = Campaign(Toy(lambda data: FINE), results)
    campaign.run(Limits(None, 1e-9))
    assert results.totals.cases == 0
