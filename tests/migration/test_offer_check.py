"""What a host accepts of a guest that is offered to it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import ProtocolError, SdeiError, UsageError
from qemu_sdei.guest.receive import Listening
from qemu_sdei.migration import offer_check
from qemu_sdei.migration.offer import make_offer
from qemu_sdei.migration.offer_check import Allowed, consider
from qemu_sdei.migration.remote_address import Tls
from qemu_sdei.uefi import variables
from qemu_sdei.vm.guest_json import guest_config, monitor_image
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import prepare
from tests.uefi.test_files import firmware, locked_as_qemu_does

TRUSTED = Allowed(everything=True)
HERE = GuestOptions()
SERVICE = "services = []\n"


def offered(directory: Path, **more: Any) -> dict[str, Any]:
    """What the source says of a guest with these options, as it arrives."""
    directory.mkdir(exist_ok=True)
    options = GuestOptions(**{"kernel": "builtin:bench", "append": "mode=idle", "memory": "64M", **more})
    plan = prepare(options)
    config = guest_config(plan, "a", plan.initrd)
    (directory / rundir.MONITOR).write_bytes(monitor_image(plan))
    offer = make_offer(options, plan, config, directory, "abc", {"type": "virt-7.2", "version": "7.2.1"})
    return {"cmd": "offer", **json.loads(json.dumps(offer.facts))}


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever QEMU is here: it has the offered machine type (but for the test of just that)."""
    monkeypatch.setattr(offer_check, "_machine_type", lambda data, qemu: str(data["type"]))


def take(offer: dict[str, Any], directory: Path, allowed: Allowed = TRUSTED) -> offer_check.Considered:
    return consider(offer, HERE, directory, "b", allowed)


def test_a_guest_with_uefi_brings_its_image(tmp_path: Path) -> None:
    """Unless it is here; its variables are a file that it may use or not, and one that its own QEMU has still."""
    image = tmp_path / "uefi.fd"
    image.write_bytes(firmware())
    kept = tmp_path / "vars.fd"
    variables.create(kept)
    words = {"hypervisor": True, "uefi": image, "kernel": "none", "append": "", "memory": "512M"}
    offer = offered(tmp_path / "there", **words, uefi_vars=kept)
    assert offer["kernel"] == ""
    assert offer["files"].keys() == {"monitor", "uefi"}
    fd = locked_as_qemu_does(kept, 101)
    found = take(offer, tmp_path / "here")
    os.close(fd)
    assert "uefi" not in found.needed
    plan, config, _ = found.build()
    assert (plan.uefi, config.boot["uefi"], plan.options.kernel) == (str(image), str(image), "none")
    assert str(kept) in " ".join(plan.devices.arguments)

    stranger = Allowed()
    with pytest.raises(UsageError, match=f"the guest uses {kept}, which is not allowed here"):
        take(offer, tmp_path / "here", stranger)
    there = take(offer, tmp_path / "here", Allowed(paths=(tmp_path,)))
    assert there.needed["uefi"].path == tmp_path / "here" / "uefi.fd"
    (tmp_path / "here").mkdir(exist_ok=True)
    there.needed["uefi"].path.write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"UEFI image .*: it is none"):
        there.build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda offer: offer["options"].update(hypervisor=False), "--uefi and --disk need --hypervisor"),
        (lambda offer: offer["options"].update(stage2=False), "leave out --no-stage2"),
        (lambda offer: offer["config"]["boot"].update(uefi=None), "has not the files|without a kernel"),
        (lambda offer: offer["files"].pop("uefi"), "has not the files"),
        (lambda offer: offer["files"]["uefi"].update(size=65 << 20), "file uefi is not described as it should be"),
        (lambda offer: offer.update(flat=True), "UEFI boots none"),
    ],
)
def test_uefi_that_cannot_be(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    image = tmp_path / "uefi.fd"
    image.write_bytes(firmware())
    offer = offered(tmp_path, hypervisor=True, uefi=image, kernel="none", append="", memory="512M")
    change(offer)
    with pytest.raises(SdeiError, match=message):
        take(offer, tmp_path).build()


def test_the_same_guest(tmp_path: Path) -> None:
    """Paths, memory and machine type are as at the source; nothing need be sent that is here."""
    here = tmp_path / "here"
    here.mkdir()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    offer = offered(tmp_path / "there", drives=[str(disk)], smp=4, topology="sockets=2,cores=2", sdei_slots=(2, 3))
    taken = take(offer, here)
    assert not taken.needed
    plan, config, monitor = taken.build()
    assert (config.name, config.nr_cpus, config.sdei_slots) == ("b", 4, (2, 3))
    assert config.ram_size == plan.ram_size == offer["config"]["ram_size"]
    assert plan.devices.arguments[:2] == ("-machine", "virt-7.2")
    assert any(str(disk) in word for word in plan.devices.arguments)
    assert monitor == monitor_image(plan)
    assert taken.nonce is None


def test_kernel_is_sent(tmp_path: Path) -> None:
    """Not to a stranger whose path is here by chance, and to nobody if it is another one here."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"\0" * 5000)
    offer = offered(tmp_path / "there", kernel=f"flat:{kernel}")
    assert not take(offer, tmp_path).needed
    (needed,) = take(offer, tmp_path, Allowed()).needed.values()
    assert (needed.path, needed.size) == (tmp_path / "kernel.img", 5000)
    kernel.write_bytes(b"\1" * 5000)
    assert list(take(offer, tmp_path).needed) == ["kernel"]


ALL = {"std": 3, "std-hyp": 1, "vendor-hyp": 0, "vendor-hyp-2": 0}


def test_services_that_a_guest_finds_must_be_here(tmp_path: Path) -> None:
    offer = offered(tmp_path / "there")
    take(offer, tmp_path)  # an older source says nothing of it
    for found in (ALL, ALL | {"std": 0}, {"std": 1}, {}):
        take(offer | {"selection": found}, tmp_path)
    above = offered(tmp_path / "above", hypervisor=True)
    take(above | {"selection": ALL | {"vendor-hyp": 3, "vendor-hyp-2": 3}}, tmp_path)
    for lacks, words in (
        ({"vendor-hyp": 2}, "vendor-hyp=ptp"),
        ({"std": 7}, "std=0x4"),
        ({"std-hyp": 1 << 63}, "std-hyp=0x8000000000000000"),
        ({"x\x1b[31m": 1}, "a register=0x1"),
    ):
        with pytest.raises(UsageError, match=f"services that the firmware here does not have: {words};"):
            take(offer | {"selection": ALL | lacks}, tmp_path)


def test_services_must_be_here(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    offer = offered(tmp_path / "there", services=[str(service)])
    assert take(offer, tmp_path).options.services == (str(service),)
    with pytest.raises(UsageError, match=r"service.py, which is not allowed here: --allow .*service.py"):
        take(offer, tmp_path, Allowed())
    service.write_text(SERVICE + "# changed\n")
    with pytest.raises(UsageError, match=r"service.py is not here, or is another one"):
        take(offer, tmp_path)


@pytest.mark.parametrize(
    ("more", "allowed", "words"),
    [
        ({"net": True}, Allowed(), "--allow net"),
        ({"forwards": ["2222:22"]}, Allowed(), "--allow net"),
        ({"qemu_args": ["-device", "x"]}, Allowed(net=True), "--allow qemu-args"),
        ({"shares": ["{tmp}/share"]}, Allowed(), "--allow .*share"),
        ({"shares": ["{tmp}/share:x"]}, Allowed(paths=(Path("/nowhere"),)), "--allow .*share"),
        ({"drives": ["{tmp}/disk"]}, Allowed(), "--allow .*disk"),
        ({"drives": ["{tmp}/disk,cache=none"]}, Allowed(paths=(Path("/"),)), "--allow qemu-args"),
    ],
)
def test_strangers(more: dict[str, Any], allowed: Allowed, words: str, tmp_path: Path) -> None:
    """What of this host a guest may use is the receiver's to say."""
    (tmp_path / "disk").write_bytes(bytes(4096))
    (tmp_path / "share").mkdir()
    filled = {
        name: [entry.format(tmp=tmp_path) for entry in value] if isinstance(value, list) else value
        for name, value in more.items()
    }
    offer = offered(tmp_path / "there", **filled)
    with pytest.raises(UsageError, match=words):
        take(offer, tmp_path, allowed)
    take(offer, tmp_path)
    take(offer, tmp_path, Allowed(paths=(tmp_path,), net=True, qemu_args=True))


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    """A link below an allowed directory does not allow what it leads to."""
    good, secret = tmp_path / "good", tmp_path / "secret"
    good.mkdir()
    secret.write_bytes(bytes(4096))
    (good / "disk").symlink_to(secret)
    offer = offered(tmp_path / "there", drives=[str(good / "disk")])
    with pytest.raises(UsageError, match="secret, which is not allowed"):
        take(offer, tmp_path, Allowed(paths=(good,)))


def change(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(offer: dict[str, Any]) -> None:
        for name in path[:-1]:
            offer = offer[name]
        offer[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        change("extra", value=1),
        change("document", value=99),
        change("document", value="1"),
        change("options", value=[]),
        change("options", "extra", value=1),
        change("options", "smp", value="2"),
        change("options", "smp", value=True),
        change("options", "smp", value=3),
        change("options", "smp", value=10**9),
        change("options", "topology", value="x=1"),
        change("options", "cpu", value="no-such-cpu"),
        change("options", "cpu", value="cortex-a57"),
        change("options", "cpu", value="x" * 5000),
        change("options", "drives", value=["relative"]),
        change("options", "drives", value=["/no/such/disk"]),
        change("options", "drives", value=[1]),
        change("options", "drives", value=["/dev/null"] * 100),
        change("options", "drives", value=["/dev/null\n"]),
        change("options", "shares", value=["/no/such/directory"]),
        change("options", "forwards", value=["22"]),
        change("options", "boot", value="acpi"),
        change("options", "boot", value="x"),
        change("options", "sdei", value=False),
        change("options", "sdei_version", value="9.9.9"),
        change("options", "sdei_slots", value=[1]),
        change("options", "services", value=["/etc/passwd"]),
        change("options", "boot_timeout", value=float("nan")),
        change("options", "boot_timeout", value=float("inf")),
        change("options", "boot_timeout", value=10**7),
        change("options", "boot_timeout", value=-1),
        change("options", "on_panic", value="x"),
        change("options", "qemu_args", value=["\x1b[31m"]),
        change("options", "services", value=["a.py"]),
        change("kernel", value="builtin:no_such_guest"),
        change("kernel", value="builtin:../../etc/passwd"),
        change("kernel", value="/etc/passwd"),
        change("kernel", value=1),
        change("append", value="x" * 3000),
        change("append", value="another"),
        change("flat", value=0),
        change("reboot", value=None),
        change("shell", value="../x"),
        change("config", value={}),
        change("config", "nr_cpus", value=3),
        change("config", "ram_size", value=1 << 50),
        change("config", "ram_size", value=(64 << 20) + 4096),
        change("config", "boot", value=[]),
        change("config", "boot", "append", value="x"),
        change("config", "sdei", value=False),
        change("config", "virtualization", value=True),
        change("machine", value=None),
        change("selection", value=None),
        change("selection", value=[]),
        change("selection", value={"std": "3"}),
        change("selection", value={"std": True}),
        change("selection", value={"std": -1}),
        change("selection", value={"std": 1 << 64}),
        change("selection", value={str(number): 0 for number in range(100)}),
        change("machine", "window_version", value=99),
        change("files", value={}),
        change("files", "kernel", value={}),
        change("files", "monitor", value=1),
        change("files", "monitor", "size", value=1 << 40),
        change("files", "monitor", "size", value=-1),
        change("files", "monitor", "sha256", value="x"),
        change("files", "monitor", "path", value=1),
    ],
)
def test_damaged(damage: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    """Refused with a reason, before anything is made."""
    offer = offered(tmp_path / "there")
    good = copy.deepcopy(offer)
    damage(offer)
    here = tmp_path / "here"
    here.mkdir()
    with pytest.raises(SdeiError):
        take(offer, here).build()
    assert not list(here.iterdir())
    take(good, here).build()


def test_monitor_of_another_version(tmp_path: Path) -> None:
    """It is sent: what has run goes on with the same one after a reset."""
    offer = offered(tmp_path / "there")
    offer["files"]["monitor"] |= {"sha256": "0" * 64}
    taken = take(offer, tmp_path)
    (tmp_path / "monitor.offered").write_bytes(b"another")
    assert list(taken.needed) == ["monitor"]
    assert taken.build()[2] == b"another"


def test_machine_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    offer = offered(tmp_path / "there")
    for kind in ("virt-99.0", "virt", "virt-7.2,x=y", None):
        offer["qemu"]["type"] = kind
        with pytest.raises((UsageError, ProtocolError)) as refusal:
            take(offer, tmp_path)
        assert kind != "virt-99.0" or "virt-99.0 of QEMU 7.2.1, which" in str(refusal.value)


def test_own_options_count(tmp_path: Path) -> None:
    """Where RAM lies and which QEMU runs is this host's to say."""
    offer = offered(tmp_path / "there")
    own = replace(HERE, memory_path=tmp_path)
    assert consider(offer, own, tmp_path, "b", TRUSTED).options.memory_path == tmp_path
    with pytest.raises(UsageError, match="cannot be used"):
        consider(offer, replace(HERE, memory_path=tmp_path / "no"), tmp_path, "b", TRUSTED)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("0.0.0.0:1", None, None, ()), "is not loopback"),
        (("[::]:1", None, None, ()), "is not loopback"),
        (("lab2:1", None, None, ()), "is not loopback"),
        (("127.0.0.1", None, None, ()), "write HOST:PORT"),
        (("127.0.0.1:1", None, "x", ()), "both given"),
        ((None, Tls("c", "k", "a"), None, ()), "TLS is for --listen"),
        ((None, None, None, ("net",)), "--allow is for --listen"),
        ((None, None, "x" * 120, ()), "too long"),
    ],
)
def test_where_to_listen(arguments: Any, words: str) -> None:
    """Nothing listens beyond loopback without TLS; what contradicts itself is told."""
    with pytest.raises(UsageError, match=words):
        Listening.of(*arguments)
    assert Listening.of("0.0.0.0:1", Tls("c", "k", "a"), None, ("net",)).tcp == ("0.0.0.0", 1)


def test_whatever_it_was_started_with_goes_along(tmp_path: Path) -> None:
    """Events and services files too; a guest that wants a file that was not offered is refused."""
    events, service = tmp_path / "events.toml", tmp_path / "service.py"
    words = ["number = 0", 'name = "software"', 'type = "private"', 'priority = "normal"', "signalable = true"]
    events.write_text("[[event]]\n" + "\n".join(words) + "\n")
    service.write_text(SERVICE)
    offer = offered(tmp_path / "there", events=str(events), services=[str(service)])
    assert {"monitor", "profile", "service0"} <= offer["files"].keys()
    take(offer, tmp_path)
    for name, value in (("events", None), ("boot", {**offer["config"]["boot"], "initrd": "/initrd"})):
        other = {**offer, "config": {**offer["config"], name: value}}
        with pytest.raises(ProtocolError, match="has not the files that such a guest has"):
            take(other, tmp_path)
