"""A saved guest of somebody else: nothing of this host is run, opened or given away because its directory says so."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import untrusted_files as saved_files
from qemu_sdei.errors import UntrustedError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.saving import saved as module
from qemu_sdei.saving.saved import Saved
from qemu_sdei.vm.description import Description
from tests.cli.conftest import Command, command, raw_command

__all__ = ["command", "raw_command"]

CORPUS = Path(__file__).parent.parent / "guest" / "saved"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A guest that was saved with checksums, a bare-metal one of ours."""
    with tarfile.open(CORPUS / "2-window-4-idle.tar.xz") as archive:
        archive.extractall(tmp_path)
    (found,) = tmp_path.iterdir()
    Saved.read(found).check()
    return found


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file, and make its checksum right: who changes one can change the other."""
    data = json.loads(file.read_bytes())
    change(data)
    file.write_text(json.dumps(data))
    meta = file.with_name(module.META)
    if file != meta:
        edit(meta, lambda data: data["files"].update({file.name: saved_files.sha256(file, 1 << 62)}))


def options(directory: Path, **values: Any) -> None:
    edit(directory / "saved.json", lambda data: data["options"].update(values))
    same = {name: value for name, value in values.items() if name in ("services", "events")}
    edit(directory / "guest.json", lambda data: data.update(same))


WANTS: list[tuple[dict[str, Any], str]] = [
    ({"qemu": "/tmp/evil"}, "program: QEMU /tmp/evil"),
    ({"qemu_args": ["-chardev", "file,id=x,path=/etc/x"]}, "program: options for QEMU, .*file,id=x,path=/etc/x"),
    ({"services": ["/tmp/evil.py"]}, "program: service /tmp/evil.py"),
    ({"drives": ["/etc/shadow,format=raw"]}, "drive: /etc/shadow"),
    ({"shares": ["/root:home"]}, "share: /root:home"),
    ({"net": True}, "network: .*loopback"),
    ({"forwards": ["2222:22"]}, "network: .*2222:22"),
    ({"memory_path": "/home"}, "directory: /home"),
    ({"uefi_vars": "/home/vars.fd"}, "file: /home/vars.fd, for UEFI's variables"),
]


@pytest.mark.parametrize(("wish", "shown"), WANTS, ids=lambda value: next(iter(value)) if type(value) is dict else "")
def test_what_it_wants_is_shown_and_refused(
    directory: Path, wish: dict[str, Any], shown: str, command: Command
) -> None:
    options(directory, **wish)
    with pytest.raises(UntrustedError, match="--trust") as error:
        Guest.saved(directory)
    (want,) = error.value.wants
    assert Guest.saved(directory, trust=True).options
    said = command("restore", str(directory))
    assert said.returncode == 2
    assert said.stdout == ""
    first, last = said.stderr.splitlines()
    assert first == f"qemu-sdei: {directory} wants {want}"
    assert re.search(shown, first)
    assert last.startswith("qemu-sdei: error: ")
    assert "--trust" in last


def test_a_qemu_that_the_user_names_is_not_the_directorys(directory: Path) -> None:
    options(directory, qemu="/tmp/evil")
    assert Guest.saved(directory, qemu="/usr/bin/mine").options.qemu == "/usr/bin/mine"


@pytest.mark.parametrize("boot", [{"kind": "flat", "kernel": "/etc/shadow"}, {"initrd": "/etc/shadow"}])
def test_files_that_a_reset_would_show_to_the_guest(directory: Path, boot: dict[str, Any]) -> None:
    edit(directory / "guest.json", lambda data: data["boot"].update(boot))
    with pytest.raises(UntrustedError) as error:
        Guest.saved(directory)
    assert error.value.wants == ["file: /etc/shadow, which a reset loads into the guest"]


def test_a_kernel_is_one_that_run_takes(directory: Path, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password\n")
    os.mkfifo(tmp_path / "fifo")
    for name, why in (("secret", "a text file"), ("fifo", "not a regular file")):
        edit(directory / "guest.json", lambda d, n=name: d["boot"].update(kind="linux", kernel=str(tmp_path / n)))  # type: ignore[misc]
        assert Saved.read(directory).wants() == []
        own = RunDirectory.create("g")
        with pytest.raises(UsageError, match=why):
            Saved.read(directory).furnish(own)
        own.remove()


def test_what_the_backend_reads_is_what_the_options_say(directory: Path) -> None:
    """guest.json is the backend's, saved.json is what was looked at: code or files of only the first are refused."""
    for name, value in (("services", ["/tmp/evil.py"]), ("profile", "/tmp/x.toml"), ("sdei", False)):
        before = (directory / "guest.json").read_bytes()
        edit(directory / "guest.json", lambda data, n=name, v=value: data.update({n: v}))  # type: ignore[misc]
        with pytest.raises(UsageError, match="are of different ones"):
            Guest.saved(directory, trust=True)
        (directory / "guest.json").write_bytes(before)
    edit(directory / "guest.json", lambda data: data.update(trace="/tmp/written", ram_path="/tmp/written-too"))
    config = Saved.read(directory).config
    assert (config.trace, config.ram_path) == (None, None)


def test_a_directory_without_checksums_is_refused(directory: Path) -> None:
    """Version 1 had none; no release wrote it."""
    edit(directory / "saved.json", lambda data: (data.pop("files"), data.update(version=1)))
    with pytest.raises(UsageError, match="was saved by another version of this program"):
        Guest.saved(directory, trust=True)


def test_a_file_without_a_checksum_beside_those_with_one(directory: Path) -> None:
    (directory / "initrd.img").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"initrd\.img is damaged"):
        Saved.read(directory).check()


FILES = ("saved.json", "guest.json", "state.json", "vm.state", "monitor.bin", "initrd.img", "console.log")


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/passwd")


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def giant(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 43)


def all_of_it(directory: Path, own: RunDirectory) -> None:
    """What is done with the files before QEMU is started."""
    saved = Saved.read(directory)
    saved.check()
    saved.furnish(own)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", [fifo, link, device, giant], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_plain_file(directory: Path, runtime: Path, name: str, what: Callable[[Path], None]) -> None:
    what(directory / name)
    if (name, what) == ("console.log", giant):
        return  # only its end is read
    own = RunDirectory.create("g")
    try:
        with pytest.raises(UsageError, match=rf"{name} cannot be read: it (is a link|is not a regular|has \d+ bytes)"):
            all_of_it(directory, own)
    finally:
        own.remove()


@pytest.mark.timeout(20)
def test_only_the_end_of_an_endless_console_is_read(directory: Path, runtime: Path) -> None:
    giant(directory / "console.log")
    own = RunDirectory.create("g")
    Saved.read(directory).furnish(own)
    assert (own / "console.log").stat().st_size == 32 << 20
    own.remove()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("kernel", 5), ("kernel", ["a"]), ("root", ["/dev/vda"]), ("drives", "abc"), ("drives", [1]), ("smp", True)),
        *(("sdei_slots", [1]), ("sdei_slots", ["1", "2"]), ("boot", "uefi"), ("net", 1), ("memory", None)),
        *(("boot_timeout", float("nan")), ("start_timeout", float("inf")), ("start_timeout", -1), ("trace", "/x")),
    ],
)
def test_options_of_a_wrong_kind(directory: Path, name: str, value: object) -> None:
    options(directory, **{name: value})
    with pytest.raises(UsageError, match=f"options are (damaged: {name}|those of another version)"):
        Guest.saved(directory, trust=True)


@pytest.mark.parametrize("nonce", ["", 5, None, ["a"], "(a+)+$", "\x1b[31m"])
def test_a_nonce_is_one(directory: Path, nonce: object) -> None:
    edit(directory / "saved.json", lambda data: data.update(nonce=nonce))
    with pytest.raises(UsageError, match="nonce is damaged"):
        Guest.saved(directory)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", [fifo, link, giant], ids=lambda make: make.__name__)
def test_the_description_of_a_running_guest(tmp_path: Path, what: Callable[[Path], None]) -> None:
    """`attach` reads run.json of a directory that only its user can write; it waits for nothing all the same."""
    what(tmp_path / "run.json")
    with pytest.raises(UsageError, match=r"cannot be taken over: .*run\.json cannot be read"):
        Description.read(tmp_path)
