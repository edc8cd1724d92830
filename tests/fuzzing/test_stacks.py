"""Where a guest that hangs is, by what QEMU's monitor says."""

from __future__ import annotations

from typing import Any

from qemu_sdei.fuzzing.stacks import SAMPLES, in_common, stuck, trace

BASE = 0xFFFF_8000_8000_0000
NAMES = {0x100: "look_at", 0x200: "go_through", 0x300: "__sdei_asm_handler", 0x400: "cpu_do_idle", 0x500: "do_idle"}


def name(address: int) -> str | None:
    return NAMES.get((address - BASE) & ~0xFF)


class Monitor:
    """QEMU's monitor: vCPUs as lists of code addresses, the innermost first; their frames lie one behind the other."""

    def __init__(self, *vcpus: list[int], junk: str | None = None) -> None:
        self._vcpus = vcpus
        self._junk = junk
        self.asked = 0

    def qmp(self, command: str, **arguments: object) -> Any:
        """See `Machine`."""
        self.asked += 1
        assert command == "human-monitor-command"
        line, vcpu = str(arguments["command_line"]), arguments["cpu_index"]
        assert isinstance(vcpu, int)
        code = self._vcpus[vcpu]
        if line == "info registers":
            return f" PC={code[0]:016x} X00=0000000000000000 X29={BASE + 0x10000:016x}\nPSTATE=800003c5 N--- EL1h\n"
        if self._junk is not None:
            return self._junk
        number = (int(line.split()[1], 16) - BASE - 0x10000) // 16
        back = code[number + 1] + 4 if number + 1 < len(code) else 0
        following = BASE + 0x10000 + 16 * (number + 1)
        return f"{following:016x}: {following:#018x} {back:#018x}\r\n"


LOOP = [BASE + 0x110, BASE + 0x220, BASE + 0x310, BASE + 0x410]
IDLE = [BASE + 0x410, BASE + 0x510]


def test_a_call_trace_ends_where_the_event_came() -> None:
    assert trace(Monitor(LOOP), 0, name) == ("look_at", "go_through")


def test_the_one_that_does_not_idle_is_stuck() -> None:
    assert stuck(Monitor(IDLE, LOOP), 2, name) == ("look_at", "go_through")
    assert stuck(Monitor(IDLE, IDLE), 2, name) == ()


def test_the_innermost_function_that_stays() -> None:
    samples = [("a", "loop", "entry"), ("b", "c", "loop", "entry"), ("loop", "entry"), ("a", "loop", "entry")]
    assert in_common(samples) == ("loop", "entry")
    assert in_common([("a",), ("b",)]) == ()


def test_programs_of_the_guest_are_not_looked_at() -> None:
    assert trace(Monitor([0x40_0000, BASE + 0x110]), 0, name) == ()


def test_what_the_guest_wrote_there_does_no_harm() -> None:
    for junk in ("", "Cannot access memory", "x" * 10_000, f"{0:016x}: {1:#018x} {2:#018x}\n"):
        assert trace(Monitor(LOOP, junk=junk), 0, name) == ("look_at",)
    circle = Monitor([BASE + 0x110] * 1000)
    assert len(trace(circle, 0, name)) <= 16
    assert circle.asked < 40
    assert SAMPLES > 1
