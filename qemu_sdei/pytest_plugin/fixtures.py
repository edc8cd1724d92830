"""The fixtures. What they need is imported when a test asks for one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from qemu_sdei.pytest_plugin import options as words
from qemu_sdei.pytest_plugin.guests_of_test import remember

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.guest_firmware import GuestFirmware
    from qemu_sdei.guest.kdump_stages import Kdump
    from qemu_sdei.guest.ras import GuestRas
    from qemu_sdei.pytest_plugin.observed import ConsoleSince, Events
    from qemu_sdei.pytest_plugin.starting import Starter
    from qemu_sdei.vm.options import GuestOptions

GUESTS: Final = ("guest", "module_guest", "session_guest")
"""Fixtures that are a guest, in the order in which `firmware`, `events` and `console` look for the test's own."""
_MB: Final = 1 << 20


@pytest.fixture(scope="session")
def sdei_starter(pytestconfig: pytest.Config) -> Starter:
    """Who starts guests, for this process."""
    from qemu_sdei.pytest_plugin import cache
    from qemu_sdei.pytest_plugin.starting import Starter

    megabytes = words.value(pytestconfig, "cache")
    limit = cache.DEFAULT_LIMIT if megabytes is None else megabytes * _MB
    return Starter(fresh=words.value(pytestconfig, "fresh"), limit=limit, cores=words.value(pytestconfig, "cores"))


@pytest.fixture(scope="session")
def sdei_variant() -> dict[str, Any]:
    """Kernel and firmware profile of this round; set for each test where the command line has several."""
    return {}


@pytest.fixture(scope="session")
def sdei_guest_options() -> dict[str, Any]:
    """Fields of `GuestOptions` for all guests; override it in your conftest.py."""
    return {}


def _options(request: pytest.FixtureRequest, **more: Any) -> GuestOptions:
    """Of the guest of a request: command line, conftest, markers (the nearest wins), what its fixtures want."""
    found = dict(request.getfixturevalue("sdei_guest_options"))
    for marker in reversed(list(request.node.iter_markers("sdei_options"))):
        found |= marker.kwargs
    return words.guest_options(request.config, request.getfixturevalue("sdei_variant"), found | more)


def _skip_without(request: pytest.FixtureRequest, options: GuestOptions) -> None:
    """Skip the test if a guest of these options lacks what it needs."""
    for marker in request.node.iter_markers("sdei_needs"):
        from qemu_sdei.pytest_plugin.needs import missing

        lack = missing(marker, options)
        if lack is not None:
            pytest.skip(lack)


@contextlib.contextmanager
def _running(request: pytest.FixtureRequest, **more: Any) -> Iterator[Guest]:
    from qemu_sdei.errors import SdeiError
    from qemu_sdei.pytest_plugin.starting import with_trace

    __tracebackhide__ = True
    starter: Starter = request.getfixturevalue("sdei_starter")
    failed = request.config.stash.setdefault(_DOES_NOT_START, {})
    options = _options(request, **more)
    if request.scope == "function":
        _skip_without(request, options)
    options = with_trace(options, words.value(request.config, "trace"), request.node.nodeid)
    shown = repr(options)
    if shown in failed:
        pytest.fail(f"this guest did not come up before: {failed[shown]}", pytrace=False)
    with starter.room(options):
        try:
            guest = starter.start(options)
        except SdeiError as error:
            failed[shown] = str(error).splitlines()[0]
            pytest.fail(str(error), pytrace=False)
        try:
            yield guest
        finally:
            guest.close()


_DOES_NOT_START: Final = pytest.StashKey[dict[str, str]]()


def _of_test(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a test's other fixtures want of its guest."""
    names = request.fixturenames
    return ({"ras": True} if "ras" in names else {}) | ({"kdump": True} if "crash" in names else {})


@pytest.fixture
def guest(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Iterator[Guest]:
    """A guest for this test alone, at its shell. `@pytest.mark.sdei_options(smp=4)` says what it is to be."""
    with _running(request, **_of_test(request)) as found, remember(request, found):
        yield found


@pytest.fixture(scope="module")
def _module_guest(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Iterator[Guest]:
    with _running(request) as found:
        yield found


@pytest.fixture
def module_guest(request: pytest.FixtureRequest, _module_guest: Guest) -> Iterator[Guest]:
    """One guest for all tests of a file."""
    _skip_without(request, _module_guest.options)
    with remember(request, _module_guest):
        yield _module_guest


@pytest.fixture(scope="session")
def _session_guest(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Iterator[Guest]:
    with _running(request) as found:
        yield found


@pytest.fixture
def session_guest(request: pytest.FixtureRequest, _session_guest: Guest) -> Iterator[Guest]:
    """One guest for all tests (of each process of xdist)."""
    _skip_without(request, _session_guest.options)
    with remember(request, _session_guest):
        yield _session_guest


@pytest.fixture
def bare_metal_guest(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Iterator[Callable[..., Guest]]:
    """Starts a bare-metal guest: `bare_metal_guest("bench", append="mode=idle", smp=2)`; a name of ours, or a file."""
    from qemu_sdei import blobs
    from qemu_sdei.vm.options import BUILTIN, FLAT

    with contextlib.ExitStack() as stack:

        def start(image: str, **more: Any) -> Guest:
            __tracebackhide__ = True
            kernel = f"{BUILTIN}{image}" if image in blobs.guests() else f"{FLAT}{image}"
            found = stack.enter_context(
                _running(request, **{"memory": "128M", "helper": False} | more, kernel=kernel, series=None)
            )
            stack.enter_context(remember(request, found))
            return found

        yield start


def _own_guest(request: pytest.FixtureRequest) -> Guest:
    """The guest that a test has asked for; `guest` where it has asked for none."""
    name = next((name for name in GUESTS if name in request.fixturenames), "guest")
    found: Guest = request.getfixturevalue(name)
    return found


@pytest.fixture
def firmware(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Iterator[GuestFirmware]:
    """What the guest's firmware does wrong on purpose: `firmware.on("CPU_OFF").nth(1).returns("DENIED")`. After the
    test it is as it was before.
    """
    from qemu_sdei.errors import SdeiError

    found = _own_guest(request).firmware
    before = found.status()
    yield found
    with contextlib.suppress(SdeiError):  # the guest may be gone
        if found.status()["rules"] != before["rules"]:
            found.clear()
            if before["rules"]:
                found.add(*(rule["rule"] for rule in before["rules"]))


@pytest.fixture
def events(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> Events:
    """What the firmware saw since the test began: `events.expect(type="call", function="CPU_OFF", vcpu=1)`."""
    from qemu_sdei.pytest_plugin.observed import Events

    return Events(_own_guest(request))


@pytest.fixture
def console(request: pytest.FixtureRequest, sdei_variant: dict[str, Any]) -> ConsoleSince:
    """What the guest printed since the test began: `console.expect("Hardware Error")`."""
    from qemu_sdei.pytest_plugin.observed import ConsoleSince

    return ConsoleSince(_own_guest(request))


@pytest.fixture
def ras(guest: Guest) -> GuestRas:
    """Hardware errors for the test's own guest, which takes them from its firmware: `ras.inject(Memory(...))`."""
    return guest.ras


@pytest.fixture
def crash(guest: Guest) -> Callable[..., Kdump]:
    """Crashes the test's own guest, which has a capture kernel, and waits for its vmcore: `crash().vmcore`."""

    def now(command: str = "echo c >/proc/sysrq-trigger", timeout: float = 60.0) -> Kdump:
        __tracebackhide__ = True
        guest.write(command + "\n")
        return guest.wait_vmcore(timeout)

    return now
