"""Stock Linux under hardware errors: docs/reference/linux-ras.md is what comes, and a guest can be asked about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.cli import main
from qemu_sdei.errors import ExpectationError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.ras_observing import Signal
from qemu_sdei.host import own_kernels
from qemu_sdei.ras import kinds
from tests.guest import linux_ras, rasdaemon
from tests.guest.guests import until
from tests.guest.linux_ras import Case, Outcome

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

OWN = "own-7.3"
LIMIT = "60"
"""Seconds for each step of a command: for one that hangs, and not for a busy host."""
MEMORY = kinds.Memory(memory_error_type="Multi-bit ECC")
FEW = (
    Case("arm", "recoverable"),
    Case("pcie", "corrected"),
    Case("unknown", "corrected"),
    Case("memory", "recoverable", "v1-critical"),
)
"""Cases of the default suite: one of each way that the kernel goes."""


def as_far_as_printed(came: Outcome, known: Outcome) -> Outcome:
    """What came, with what is known where Linux printed nothing: it prints two uncorrected errors in five seconds."""
    return came if came.said else replace(came, said=known.said)


def test_the_table_has_all_cases() -> None:
    cases = list(linux_ras.cases())
    assert list(linux_ras.table("6.1")) == cases
    # Corrected errors over the threshold were not tried there.
    assert list(linux_ras.table("6.12")) == [case for case in cases if case != Case("memory", "corrected threshold")]


def test_the_page_is_printed_from_the_table() -> None:
    page = Path(linux_ras.__file__).parents[2] / "docs" / "reference" / "linux-ras.md"
    assert page.read_text() == linux_ras.page(), "python -m tests.guest.linux_ras page >docs/reference/linux-ras.md"


@pytest.mark.timeout(240)
def test_a_recoverable_error_takes_its_page_from_a_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The acceptance: from another process of the user's, by the command; then the same from Python, and elsewhere."""
    with Guest(linux_ras.options("6.12", tmp_path / "events.toml")) as guest:
        trial = linux_ras.prepared(guest)
        pid = int(rasdaemon.helper(guest).run("sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!").output)
        inject = ["ras", "inject", guest.name, "memory", "--severity", "recoverable", "--timeout", LIMIT]
        assert main([*inject, "--pid", str(pid), "--expect-sigbus", f"{pid}:4"]) == 0
        assert not guest.run(f"cat /proc/{pid}/maps").output.startswith("0"), "it was killed"
        assert f"SIGBUS with si_code 4 (BUS_MCEERR_AR) to process {pid}\n" in capsys.readouterr().out

        # The page is not the process's: it is told what came in place of the signal.
        elsewhere = [*inject, "--address", "0x60000000", "--expect-sigbus", "1:4", "--timeout", "4"]
        assert main(elsewhere) == 1
        assert "came to process 1: no process got one" in capsys.readouterr().err

        victim = guest.ras.victim()
        report = guest.ras.inject(MEMORY, severity="recoverable", pid=victim.pid, virtual=victim.virtual, timeout=60)
        report.expect(
            log="Memory failure: .*dirty LRU page: Recovered",
            trace=f"memory_failure_event:pfn={report.page.frame:#x}" if report.page else "",
            sigbus=(victim.pid, 4),
            offline=True,
            timeout=60,
        )
        assert report.observed().signals == [Signal(victim.pid, 4, victim.virtual, 12)]
        assert report.observed().corrupted == 4

        early = guest.ras.victim(early=True, still=True)
        report = guest.ras.inject(MEMORY, severity="recoverable", pid=early.pid, virtual=early.virtual, timeout=60)
        report.expect(sigbus=(early.pid, 5), timeout=60)

        known = linux_ras.table("6.12")
        for case in FEW:
            assert as_far_as_printed(trial(case), known[case]) == known[case], case

        guest.migrate()
        assert as_far_as_printed(trial(FEW[0]), known[FEW[0]]) == known[FEW[0]], "the helper has moved with the guest"


@pytest.mark.timeout(240)
def test_a_fatal_error_is_a_panic_that_is_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Guest(linux_ras.options("6.12", tmp_path / "events.toml")) as guest:
        guest.wait_shell()
        words = ["ras", "inject", guest.name, "memory", "--severity", "fatal", "--address", "0x60000000"]
        assert main([*words, "--timeout", LIMIT, "--expect-panic", "Fatal hardware"]) == 0, capsys.readouterr().err
        assert guest.expect_panic(30).message == "GHES: Fatal hardware error"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "series",
    [
        "6.1",
        "6.12",
        pytest.param(OWN, marks=pytest.mark.skipif(own_kernels.find(OWN) is None, reason=own_kernels.not_built(OWN))),
    ],
)
def test_all_cases(series: str, tmp_path: Path) -> None:
    wrong = {}
    with Guest(linux_ras.options(series, tmp_path / "events.toml")) as guest:
        trial = linux_ras.prepared(guest)
        known = linux_ras.table(series)
        for case in known:
            if (came := as_far_as_printed(trial(case), known[case])) != known[case]:
                wrong[case] = came
    assert not wrong


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rasdaemon_has_a_row_for_it(tmp_path: Path) -> None:
    """Debian's own: it records AER and EDAC, and of these a stock kernel on arm64 has AER."""
    options = replace(linux_ras.options("6.12", tmp_path / "events.toml"), files=rasdaemon.files(tmp_path))
    with Guest(options) as guest:
        linux_ras.prepared(guest)
        rasdaemon.start(guest)
        guest.ras.inject(linux_ras.SECTIONS["pcie"], severity="corrected", timeout=60).expect(
            trace="aer_event", timeout=60
        )
        until("a row of it", lambda: rasdaemon.rows(guest, tmp_path, "aer_event"), 60)
        rows = rasdaemon.rows(guest, tmp_path, "aer_event")
        assert (rows[0]["dev_name"], rows[0]["err_type"]) == ("0000:00:01.0", "Corrected")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_errors_without_pause_are_all_dealt_with(tmp_path: Path) -> None:
    """Each source on its own: none is lost, and the kernel goes on."""
    with Guest(linux_ras.options("6.12", tmp_path / "events.toml")) as guest:
        linux_ras.prepared(guest)
        for source in ("v2-normal", "v2-critical", "v1-normal", "v1-critical"):
            for number in range(200):
                section = kinds.Memory(physical_address=0x5000_0000 + number * 4096)
                report = guest.ras.inject(section, source=source, observe=False, timeout=30)
                assert report.outcome == "completed"
        with pytest.raises(ExpectationError, match="is in use as before"):
            guest.ras.inject(MEMORY, address=0x5100_0000).expect(offline=0x51000, timeout=0.1)
