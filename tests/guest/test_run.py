"""`qemu-sdei run`, `inject`, `status` and `list` as a user runs them, with a Linux guest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.trace.latency import STAGES
from tests.guest.guests import check_nothing_left, command, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


def run(runtime: Path, *words: str) -> tuple[int, str, str]:
    with command(runtime, *words) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        pytest.param(["uname", "-m"], 0, "aarch64\n", marks=pytest.mark.slow),
        pytest.param(["echo one; echo two >&2; printf three; exit 42"], 42, "one\nthree", marks=pytest.mark.smoke),
        pytest.param(["sh", "-c", "kill -9 $$"], 137, "", marks=pytest.mark.slow),
        (["printf", "%s|", "a b", "$HOME", "'"], 0, "a b|$HOME|'|"),
        pytest.param(["no-such-program"], 127, None, marks=pytest.mark.slow),
        pytest.param(["cat /proc/cpuinfo | grep -c ^processor"], 0, "2\n", marks=pytest.mark.slow),
    ],
)
def test_a_commands_output_and_status_are_its_own(
    runtime: Path, words: list[str], status: int, output: str | None
) -> None:
    code, out, _ = run(runtime, "run", "-q", "--", *words)
    assert code == status
    if output is not None:
        assert out == output
    check_nothing_left(runtime)


def test_topology(runtime: Path) -> None:
    ids = "cat /sys/devices/system/cpu/cpu[0-9]/topology/physical_package_id"
    code, out, _ = run(runtime, "run", "-q", "--smp", "6,sockets=2,cores=3", "--", ids)
    assert (code, out.split()) == (0, ["0", "0", "0", "1", "1", "1"])


def test_json(runtime: Path) -> None:
    code, out, _ = run(runtime, "run", "-q", "--json", "--", "echo hi; false")
    assert code == 1
    assert json.loads(out) == {"status": 1, "output": "hi\n", "stdout": "hi\n", "stderr": ""}


def test_the_kernel_log_is_shown_on_demand(runtime: Path) -> None:
    code, out, err = run(runtime, "run", "-v", "--", "echo", "hi")
    assert (code, out) == (0, "hi\n")
    assert "psci: PSCIv1.1 detected in firmware." in err
    assert "sdei: SDEIv1.1 (0x4b564d) detected in firmware." in err
    assert "\x1e" not in err


def test_a_file_of_the_host(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\necho from the host\n")
    (tmp_path / "script").chmod(0o755)
    code, out, _ = run(runtime, "run", "-q", "--file", f"{tmp_path}/script:root/x", "--", "./x")
    assert (code, out) == (0, "from the host\n")


def test_a_panic_is_255_with_the_last_console_lines(runtime: Path) -> None:
    code, _, err = run(runtime, "run", "-q", "--", "echo c >/proc/sysrq-trigger")
    assert code == 255
    assert "Kernel panic - not syncing: sysrq triggered crash" in err
    assert "Call trace:" in err
    check_nothing_left(runtime)


def test_a_panic_that_nothing_follows_is_255_too(runtime: Path) -> None:
    crash = "echo begun; echo c >/proc/sysrq-trigger"
    code, out, err = run(runtime, "run", "-q", "--on-panic", "continue", "--", crash)
    assert code == 255
    assert out.startswith("begun\n")
    assert "Kernel panic - not syncing: sysrq triggered crash" in err
    check_nothing_left(runtime)


def test_a_guest_that_powers_itself_off_is_no_success(runtime: Path) -> None:
    code, _, err = run(runtime, "run", "-q", "--", "poweroff -f; sleep 100")
    assert code == 1
    assert "guest-shutdown" in err


def test_a_command_that_takes_too_long(runtime: Path) -> None:
    code, _, err = run(runtime, "run", "-q", "--timeout", "8", "--", "sleep 1000")
    assert code == 1
    assert "waited for 8 s" in err
    check_nothing_left(runtime)


def test_a_boot_that_stalls_is_told(runtime: Path) -> None:
    # Nobody starts the guest's CPUs.
    code, _, err = run(runtime, "run", "-q", "--boot-timeout", "3", "--qemu-arg=-S", "--", "true")
    assert code == 1
    assert "printed nothing for 3 s while waiting for the command to start" in err
    check_nothing_left(runtime)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("--qemu-arg=-no-such-option", "-no-such-option: invalid option"),
        ("--qemu-arg=-device nothing", "'nothing' is not a valid device model name"),
        ("--cpu=cortex-a72,colour=red", "Property 'cortex-a72-arm-cpu.colour' not found"),
    ],
)
def test_what_qemu_does_not_take_is_told_in_its_words(runtime: Path, word: str, reason: str) -> None:
    code, _, err = run(runtime, "run", "-q", word, "--", "true")
    assert code == 2
    (line,) = err.splitlines()
    assert "QEMU does not take" in line
    assert reason in line
    check_nothing_left(runtime)


SCRIPT = """
import sys
version = guest.run("uname -r").output
assert guest.expect("nothing|guest#", timeout=30)
print("kernel", version, end="")
print(guest.status()["pes"][1]["power"], len(sys.argv) > 0, __name__)
sys.exit(3)
"""


def test_a_script_beside_the_guest(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    code, out, err = run(runtime, "run", "-q", "--script", str(tmp_path / "script.py"))
    assert code == 3, err
    assert out.startswith("kernel 6.")
    assert out.endswith("on True __main__\n")
    check_nothing_left(runtime)


def test_a_script_that_fails_shows_where(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("\n\nguest.nothing()\n")
    code, _, err = run(runtime, "run", "-q", "--script", str(tmp_path / "script.py"))
    assert code == 1
    assert 'script.py", line 3' in err
    assert "AttributeError" in err
    check_nothing_left(runtime)


def test_other_terminals_see_and_reach_a_guest(runtime: Path) -> None:
    with command(runtime, "run", "-q", "--name", "seen", "--", "echo up; sleep 1000") as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"up\n"
        (listed,) = json.loads(run(runtime, "list", "--json")[1])["guests"]
        assert (listed["name"], listed["pid"], listed["vcpus"]) == ("seen", guest.pid, 2)
        assert "seen" in run(runtime, "list")[1]

        status = json.loads(run(runtime, "status", "seen", "--json")[1])
        assert [pe["power"] for pe in status["pes"]] == ["on", "on"]
        assert status["pes"][0]["calls"]["CPU_ON"] == 1
        plain = run(runtime, "status", "seen", "-v")[1]
        assert "SDEI_PRIVATE_RESET" in plain
        assert "software" in plain

        code, _, err = run(runtime, "inject", "seen", "--vcpu", "1", "--event", "software")
        assert code == 1
        assert "event 0x0 (software) is not registered on PE 1" in err
        code, _, err = run(runtime, "inject", "seen", "--vcpu", "1", "--event", "0x7777")
        assert code == 2
        assert "there is no event 0x7777" in err
        assert run(runtime, "inject", "seen", "--vcpu", "9", "--event", "0")[0] == 2
        assert run(runtime, "inject", "seen", "--vcpu", "0", "--event", "no-such-name")[0] == 2

        assert run(runtime, "run", "-q", "--name", "seen", "--", "true")[0] == 2
        guest.terminate()
        guest.communicate(timeout=30)
        assert guest.returncode == 128 + 15
    check_nothing_left(runtime)


def test_events_that_are_handled_are_counted_and_measured(runtime: Path) -> None:
    """The embedded bare-metal guest handles them: a stock kernel has no client of its own."""
    script = "guest.expect('idle: ready'); print('up', flush=True); import time; time.sleep(1000)"
    (runtime / "script.py").write_text(script)
    words = ["run", "-q", "--name", "flat", "--kernel", "builtin:bench", "--append", "mode=idle"]
    with command(runtime, *words, "--script", str(runtime / "script.py")) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"up\n"
        inject = ["inject", "flat", "--vcpu", "1", "--event", "0"]
        code, out, err = run(runtime, *inject, "--wait")
        assert code == 0, err
        assert "completed; handler entered after" in out
        answer = json.loads(run(runtime, *inject, "--wait", "--count", "50", "--json")[1])
        assert answer["outcomes"] == {"completed": 50}
        latency = answer["latency_us"]["complete"]
        assert 0 < latency["min"] <= latency["median"] <= latency["p99"] <= latency["max"]
        stages = answer["latencies"]["stages"]
        assert set(stages) == set(STAGES)
        # An event that finds its vCPU at EL3 already has no way there to be measured.
        assert all(40 <= figures["count"] <= 50 for figures in stages.values()), stages
        assert all(figures["min"] >= -figures["max_error_us"] for figures in stages.values())
        assert stages["in_guest"]["clocks"] == ["guest"]
        shown = run(runtime, *inject, "--wait", "--count", "3", "--histogram")[1]
        assert "trigger to entry" in shown
        assert "█" in shown
        answer = json.loads(run(runtime, *inject, "--count", "20", "--rate", "200", "--json")[1])
        assert sum(answer["outcomes"].values()) == 20

        def all_done() -> bool:
            status = json.loads(run(runtime, "status", "flat", "--json")[1])
            return bool(status["counts"]["delivered"] == status["counts"]["completed"] >= 54)

        until("every event completes", all_done)
        guest.terminate()
        guest.communicate(timeout=30)
    (runtime / "script.py").unlink()
    check_nothing_left(runtime)


def test_output_that_nobody_reads_is_no_error(runtime: Path) -> None:
    process = command(runtime, "run", "-q", "--", "while :; do echo line; done", stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    check_nothing_left(runtime)
