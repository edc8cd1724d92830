"""The scenario library, on Debian's kernels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.guest.guests import check_nothing_left

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]
pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--pyargs", "qemu_sdei.scenarios", *arguments)


def test_one_of_them(pytester: pytest.Pytester, runtime: Path) -> None:
    """From the package, without a line of the user's own."""
    found = run(pytester, "--sdei-fresh", "-k", "test_without_sdei")
    found.assert_outcomes(passed=1, deselected=found.parseoutcomes()["deselected"])
    assert re.search(r"^No SDEI at all: it boots, and complains of nothing +ok$", found.stdout.str(), re.MULTILINE)
    check_nothing_left(runtime)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_all_of_them(series: str, pytester: pytest.Pytester, runtime: Path) -> None:
    """Debian's kernels fail in none."""
    found = run(pytester, "--sdei-series", series).parseoutcomes()
    assert set(found) <= {"passed", "skipped"}, found
    assert found["passed"] >= 28
    check_nothing_left(runtime)


@pytest.mark.slow
def test_a_kernel_without_a_client_module(pytester: pytest.Pytester, runtime: Path, linux: Path) -> None:
    """What needs the module is not applicable, and the table says what to give."""
    found = run(pytester, "--sdei-kernel", str(linux), "-k", "test_idle or test_masked")
    found.assert_outcomes(skipped=2, deselected=found.parseoutcomes()["deselected"])
    assert "- no client module of this kernel: --sdei-client FILE: " in found.stdout.str()
    check_nothing_left(runtime)
