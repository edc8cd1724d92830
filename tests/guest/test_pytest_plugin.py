"""The pytest plugin with guests: the page's own example, guests of one saved state, reports, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from tests.guest.guests import check_nothing_left, page_example, plain

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]
pytest_plugins = ["pytester"]


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_the_example_of_the_page(pytester: pytest.Pytester, runtime: Path) -> None:
    code = page_example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    pytester.makepyfile(code)
    _run(pytester).assert_outcomes(passed=3)
    check_nothing_left(runtime)


@pytest.mark.slow  # the page's example has guests of a saved state too
def test_guests_of_one_saved_state_are_not_the_same(pytester: pytest.Pytester, runtime: Path) -> None:
    """Clock and random numbers are their own; a fault of one test's firmware is not there in the next."""
    pytester.makepyfile(
        """
        import time

        SEEN = set()

        def _look(guest):
            assert abs(int(guest.run("date +%s").output) - time.time()) < 30
            found = guest.run("head -c 16 /dev/urandom | xxd -p").output
            assert len(found.strip()) == 32 and found not in SEEN
            SEEN.add(found)

        def test_1(guest):
            _look(guest)

        def test_2(guest, firmware):
            _look(guest)
            firmware.on("CPU_ON").returns("DENIED")

        def test_3(guest, firmware):
            _look(guest)
            assert not firmware.status()["rules"]

        def test_4(module_guest, firmware):
            firmware.on("CPU_ON").returns("DENIED")

        def test_5(module_guest, firmware, events):
            assert not firmware.status()["rules"]
            assert module_guest.run("cd /sys/devices/system/cpu/cpu1; echo 0 >online; echo 1 >online").status == 0
            assert events.expect(type="call", function="CPU_ON")["result"] == 0
        """
    )
    _run(pytester).assert_outcomes(passed=5)


@pytest.mark.slow
def test_a_failure_tells_of_its_guest_and_keeps_it(pytester: pytest.Pytester, runtime: Path) -> None:
    pytester.makepyfile(
        """
        def test_it(session_guest, console):
            session_guest.run("echo from the test >/dev/kmsg")
            console.expect("from the test")
            console.expect("never printed", 0.2)
        """
    )
    found = _run(pytester, "--sdei-keep", "kept", "--junitxml", "junit.xml", "-o", "junit_family=xunit1")
    found.assert_outcomes(failed=1)
    text = found.stdout.str()
    for words in (
        "'never printed' was not printed within 0.2 s",
        ": explain",
        ": console",
        ": trace",
        ": command line",
    ):
        assert words in text
    assert "observed.py" not in text.partition("short test summary")[0], "frames of ours are hidden"
    (path,) = re.findall(r"qemu-sdei restore (\S+)", text)
    with Guest.saved(path, trust=True) as guest:
        assert plain(guest.run("echo on").output) == "on\n"
    junit = pytester.path.joinpath("junit.xml").read_text()
    assert re.search(r'name="sdei.release" value="\d+\.\d+', junit)
    check_nothing_left(runtime)


def test_what_a_test_does_to_its_guest(pytester: pytest.Pytester, runtime: Path) -> None:
    """It closes it, raises in a callback, forks: the next one has a guest of its own, and a child that comes back from
    a test runs no other one.
    """
    pytester.makepyfile(
        """
        import os, sys

        def _guest(start):
            guest = start("bench", append="mode=idle")
            guest.expect("idle: ready")
            return guest

        def test_closes(bare_metal_guest):
            _guest(bare_metal_guest).close()

        def test_raises_in_a_callback_and_forks(bare_metal_guest):
            def fail(data):
                raise RuntimeError("in a callback")

            guest = _guest(bare_metal_guest)
            guest.attach(fail)
            assert guest.inject(0, 0, wait=True, timeout=20).outcome == "completed"
            child = os.fork()
            if not child:
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
            assert guest.inject(0, 0, wait=True, timeout=20).outcome == "completed"

        def test_is_run_once():
            os.mkdir("here")
        """
    )
    found = _run(pytester)
    found.assert_outcomes(passed=3)
    check_nothing_left(runtime)
