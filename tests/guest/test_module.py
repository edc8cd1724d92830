"""The client module in stock Debian kernels: what it prints, what a script reads, and what each command does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import SdeiClient, SdeiClientError
from qemu_sdei.host.client_module import build, vermagic
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client
from tests.guest.guests import until

pytestmark = pytest.mark.guest

CPUS = 3
PRIVATE, CRITICAL, SHARED, GHES = 0x100, 0x103, 0x200, 0x324
"""Events of the default profile, `qemu_sdei/data/events.toml`."""
RUN = 400_000_000
"""How long a handler runs where something must happen meanwhile, in nanoseconds."""


@pytest.fixture(scope="module", params=[pytest.param("6.1", marks=pytest.mark.slow), "6.12"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    cache = DebianCache()
    module = build(cache, cache.kernel(request.param))
    with Guest(GuestOptions(series=request.param, smp=CPUS, files={KO: module})) as guest:
        guest.wait_shell()
        assert guest.run("uname -r").output.strip() == vermagic(module)
        guest.run("dmesg -n 1")  # the console belongs to the tests; dmesg has it all
        yield guest
        log = guest.run("dmesg").output
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall|unsafe", log), log


@pytest.fixture
def client(guest: Guest) -> Iterator[Client]:
    client = Client(guest)
    yield client
    guest.run("rmmod sdei_test")


def form(text: str) -> str:
    """The form of a line: each 16-digit number as N."""
    return re.sub(r"\b[0-9a-f]{16}\b", "N", text)


def test_loading_says_what_is_registered(client: Client) -> None:
    client.load("events=0,0x100")
    assert [line for line in client.log() if "SDEI" in line] == [
        "SDEI TEST: Version 1.1, Vendor 0x4b564d",
        "sdei_init: SDEI event (0x0) registered",
        "sdei_init: SDEI event (0x0) enabled",
        "sdei_init: SDEI event (0x100) registered",
        "sdei_init: SDEI event (0x100) enabled",
    ]
    assert client.registered(0) == client.registered(PRIVATE) == [True] * CPUS
    proc = client.proc()
    assert "version 1.1 vendor 0x4b564d" in proc
    assert "event 0x100 registered 1 enabled 1" in proc


def test_event_from_the_host_is_dumped(client: Client) -> None:
    client.load()
    client.guest.inject(0, 1, wait=True)
    ((cpu, lines),) = client.dumps()
    assert cpu == 1
    assert [form(line) for line in lines] == [
        "Event: N  Parameter: N",
        "PC:    N  PSTATE: N  SP: N",
        "Regs:    N N N N",
        *["         N N N N"] * 6,
        "         N N N",
        "Context: N N N N",
        *["         N N N N"] * 3,
        "         N N",
    ]
    event, parameter, pc, pstate, sp, *values = (
        int(word, 16) for word in re.findall(r"\b[0-9a-f]{16}\b", "\n".join(lines))
    )
    assert (event, parameter) == (0, 0xDABFDABF)
    assert values[:18] == values[31:], "what the kernel saved is not what EVENT_CONTEXT gives"

    (record,) = client.records()
    assert (record.cpu, record.event, record.number, record.parameter) == (1, 0, 0, parameter)
    assert (record.pc, record.pstate, record.sp) == (pc, pstate, sp)
    assert list(record.regs) == values[:31]
    assert record.context == tuple(values[31:])
    assert client.count(1) == (1, 1)
    assert client.count(0) == (0, 0)


def test_dumps_of_all_cpus_stay_apart(client: Client) -> None:
    client.load("verbose=1000")
    rounds = 4
    for _ in range(rounds):
        client.do(f"run-for {RUN // 10}")  # so that all of them are in their handlers at the same time
        for cpu in range(CPUS):
            client.guest.inject(0, cpu)
        client.do("run-for 0")
    for cpu in range(CPUS):
        client.guest.inject(0, cpu, wait=True)
    dumps = client.dumps()
    assert sorted({cpu for cpu, _ in dumps}) == list(range(CPUS))
    for _, lines in dumps:
        assert len(lines) == 15
        values = re.findall(r"\b[0-9a-f]{16}\b", "\n".join(lines[2:]))
        assert values[:18] == values[31:]


def test_dumps_are_limited_and_events_still_counted(client: Client) -> None:
    client.load("verbose=0")
    for _ in range(5):
        client.guest.inject(0, 2, wait=True)
    assert client.dumps() == []
    assert client.count(2) == (5, 5)
    assert "dumps 0 suppressed 5 lost 0" in client.proc()


def test_cpus_signal_each_other(client: Client) -> None:
    client.load()
    for cpu in range(CPUS):
        assert client.do(f"signal {cpu}") is None
        client.wait_count(cpu)
    assert [client.count(cpu)[0] for cpu in range(CPUS)] == [1] * CPUS
    assert client.do(f"signal {CPUS}") == "No such device"


def test_masked_cpu_takes_the_event_when_it_is_unmasked(client: Client) -> None:
    client.load()
    assert client.do("mask 1") is None
    assert "masked" in str(client.guest.inject(0, 1).reason)
    assert client.count(1) == (0, 0)
    assert client.do("unmask 1") is None
    assert client.count(1) == (1, 1)

    assert client.do("mask") is None
    assert [pe["masked"] for pe in client.guest.status()["pes"]] == [True] * CPUS
    assert client.do("unmask") is None
    assert [pe["masked"] for pe in client.guest.status()["pes"]] == [False] * CPUS


def test_disabled_event_waits_and_unregistered_one_is_refused(client: Client) -> None:
    client.load("events=0x100")
    assert client.do("disable 0x100") is None
    assert "disabled" in str(client.guest.inject(PRIVATE, 0).reason)
    assert client.count(0, PRIVATE) == (0, 0)
    assert client.do("enable 0x100") is None
    assert client.count(0, PRIVATE) == (1, 1)

    assert client.do("unregister 0x100") is None
    with pytest.raises(NotDeliveredError, match="not registered"):
        client.guest.inject(PRIVATE, 0)
    assert client.do("register 0x100") is None
    assert client.do("enable 0x100") is None
    client.guest.inject(PRIVATE, 0, wait=True)
    assert client.count(0, PRIVATE) == (2, 2)


def test_bad_commands_are_errors_and_change_nothing(client: Client) -> None:
    client.load()
    before = client.proc()
    for command, error in {
        "register 77": "Invalid argument",
        "register 0": "Device or resource busy",
        "enable 0x101": "No such file or directory",
        f"disable {GHES}": "No such file or directory",
        f"unregister {GHES}": "No such file or directory",
        "route 0x200 any": "No such file or directory",
        f"route 0 {CPUS}": "No such device",
        "route 0 1": "Invalid argument",  # private
        "info 77": "Invalid argument",
        "irqs-off 600 1": "No such device",
        "irqs-off 1": "Invalid argument",
        "irqs-off 1 10000000001": "Numerical result out of range",
        "flush now": "Invalid argument",
        "run-for 10000000001": "Numerical result out of range",
        "mask 600": "No such device",
        "signal -1": "Invalid argument",
        "register": "Invalid argument",
        "jump": "Invalid argument",
        "''": "Invalid argument",
        "x" * 200: "Invalid argument",
    }.items():
        assert client.do(command) == error, command
    assert client.proc() == before


def test_many_bad_registrations_do_not_fill_the_table(client: Client) -> None:
    client.load()
    client.shell("for i in $(seq 50); do echo register 77 >/proc/sdei_test/control; done 2>/dev/null; true")
    assert client.do("register 0x101") is None


def test_critical_event_interrupts_a_running_handler(client: Client) -> None:
    client.load("events=0x100,0x103")
    client.do(f"run-for {RUN}")
    client.guest.inject(PRIVATE, 1)
    client.wait_count(1, PRIVATE)
    client.do("run-for 0")
    client.guest.inject(CRITICAL, 1, wait=True)
    assert client.count(1, CRITICAL) == (1, 1)
    assert client.count(1, PRIVATE)[0] == 1
    private, critical = ("".join(lines[:2]) for _, lines in client.dumps())
    assert "0000000000000100" in private
    assert "0000000000000103" in critical


@pytest.mark.parametrize("event", [PRIVATE, SHARED], ids=["private", "shared"])
def test_unregistering_waits_for_the_running_handler(client: Client, event: int) -> None:
    client.load(f"events={event}")
    client.do(f"run-for {RUN}")
    client.guest.inject(event, 2)
    client.wait_count(2, event)
    assert client.do(f"unregister {event}") is None
    assert not any(client.registered(event))
    assert sum(client.count(cpu, event)[1] for cpu in range(CPUS)) == 1
    assert client.do(f"register {event}") is None


def test_all_dumps_are_counted_and_the_newest_records_kept(client: Client) -> None:
    """More events than a CPU keeps records: printed, suppressed and lost dumps are all of them; nothing is twice."""
    client.load("records=8 verbose=1000000")
    events = 20
    # While interrupts are off nothing can be printed, so some are lost. By a shell that is on another CPU.
    control = "/proc/sdei_test/control"
    begun = lost = done = suppressed = 0
    for seconds in (2, 6, 15):  # on a busy host the events take longer
        client.shell(
            f"taskset -p 1 $$; echo irqs-off 1 {seconds}000000000 >{control};"
            f" for i in $(seq {begun + 1} {begun + events}); do echo signal 1 >{control};"
            ' until grep -q "cpu 1 event 0x0 count $i returned $i" /proc/sdei_test/status; do :; done; done;'
            " taskset -p 7 $$"
        )
        begun += events
        printed = client.dumps()
        words = next(line for line in client.proc() if line.startswith("dumps ")).split()
        done, suppressed, lost = (int(word) for word in words[1::2])
        if lost:
            break
    assert (done + lost, suppressed) == (begun, 0)
    assert lost > 0
    assert len(printed) == done
    assert client.count(1) == (begun, begun)
    assert [record.number for record in client.records(1)] == list(range(events - 8, events))
    assert client.records(0) == []


def test_interrupts_are_off_for_as_long_as_asked(client: Client) -> None:
    """An event that comes meanwhile is handled at once, in the middle of it."""
    client.load("verbose=0")
    # All in one command, and by a shell that is on another CPU: the console too may wait for what that CPU has to do.
    control = "/proc/sdei_test/control"
    output = client.shell(
        f"taskset -p 1 $$ >/dev/null; echo irqs-off 1 {5 * RUN} >{control}; echo irqs-off 1 1 >{control};"
        f" echo signal 1 >{control}; until grep -q 'cpu 1 event 0x0 count 1' /proc/sdei_test/status; do :; done;"
        f" echo irqs-off 1 1 >{control}; taskset -p 7 $$ >/dev/null"
    )
    assert re.findall("write error: (.*)", output) == ["Device or resource busy"] * 2
    (record,) = client.records(1)
    assert record.irqs_masked
    assert not record.user
    until("the thread ends", lambda: client.do("irqs-off 1 1") is None)


def test_shared_event_goes_where_it_is_routed(client: Client) -> None:
    client.load("events=0x200 verbose=0")
    for cpu in (2, 0, 1):
        assert client.do("disable 0x200") is None
        assert client.do(f"route 0x200 {cpu}") is None
        assert client.do("enable 0x200") is None
        client.guest.inject(SHARED, 0, wait=True)
        assert client.count(cpu, SHARED) == (1, 1)
    info = SdeiClient(client.guest.run).info(SHARED)
    assert (info.shared, info.registered, info.enabled, info.routed, info.affinity) == (True, True, True, True, 1)


def test_what_the_firmware_says_of_events(client: Client) -> None:
    typed = SdeiClient(client.guest.run)
    typed.load([])
    assert not typed.info(0).registered
    typed.register(0)
    zero = typed.info(0)
    assert (zero.registered, zero.enabled, zero.running) == (True, False, False)
    assert (zero.shared, zero.critical, zero.signalable, zero.routed) == (False, False, True, None)
    critical = typed.info(CRITICAL)
    assert (critical.registered, critical.critical, critical.signalable) == (False, True, False)
    with pytest.raises(SdeiClientError, match="register 0x4d") as error:
        typed.register(77)
    assert error.value.errno == "Invalid argument"


def test_unloading_under_events_leaves_nothing_registered(client: Client) -> None:
    for _ in range(5):
        client.load("events=0,0x100,0x200")
        client.do(f"run-for {RUN // 4}")
        client.guest.inject(PRIVATE, 1)
        client.guest.inject(SHARED, 2)
        client.guest.inject(0, 0)
        client.unload()
        assert not any(client.registered(0) + client.registered(PRIVATE) + client.registered(SHARED))
    assert client.guest.run("ls /proc/sdei_test").status != 0


def test_event_that_cannot_be_registered_fails_the_load(client: Client) -> None:
    result = client.guest.run(f"dmesg -c >/dev/null; insmod {KO} events=0,77")
    assert result.status != 0
    assert "sdei_init: SDEI event (0x4d) not registered: error -22" in client.log()
    assert not any(client.registered(0))


def test_cpu_that_comes_back_takes_events_again(client: Client) -> None:
    client.load()
    client.shell("echo 0 >/sys/devices/system/cpu/cpu2/online")
    assert client.registered(0) == [True, True, False]
    assert client.do("mask 2") == "No such device or address"
    client.shell("echo 1 >/sys/devices/system/cpu/cpu2/online")
    client.guest.inject(0, 2, wait=True)
    assert client.count(2) == (1, 1)


def test_firmware_without_sdei_is_named() -> None:
    cache = DebianCache()
    module = build(cache, cache.kernel("6.1"))
    with Guest(GuestOptions(series="6.1", smp=1, sdei=False, files={KO: module})) as guest:
        guest.wait_shell()
        result = guest.run(f"insmod {KO}")
        assert result.status != 0
        assert "No such device" in result.output
        assert "SDEI TEST: the firmware offers no SDEI to this kernel" in guest.run("dmesg").output
