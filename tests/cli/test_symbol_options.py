"""`--symbols` as the commands have it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from qemu_sdei.boot.config import BootConfig
from qemu_sdei.cli.symbol_options import add_symbol_options, symbols_of
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.rundir import Running
from tests.cli.conftest import Command
from tests.symbols import elves
from tests.symbols.kallsyms_maker import image
from tests.symbols.test_image_symbols import SYMBOLS
from tests.trace.records import META, Maker

VERSION = 0xC400_0020
SMC = elves.LINUX["__arm_smccc_smc"][0]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_symbol_options(parser)
    return parser.parse_args(words)


@pytest.fixture
def guest(tmp_path: Path) -> Running:
    """A guest's run directory; its kernel was `Image` beside it."""
    path = tmp_path / "guest"
    path.mkdir()
    boot = {"kind": "linux", "kernel": str(tmp_path / "Image")}
    assert BootConfig(kind="linux", kernel=boot["kernel"]).kernel == boot["kernel"]
    (path / "guest.json").write_text(GuestConfig("guest", 2, "max", 1 << 30, boot).to_json())
    symbols = [*SYMBOLS[:-1], (0xF300, "T__arm_smccc_smc"), (0xF330, "Tnext")]
    kernel = image(symbols, since_6_4=True)
    (tmp_path / "Image").write_bytes(kernel + elves.note(b"\x22" * 20))
    return Running("guest", path, None)


def test_without_symbols_and_without_a_guest_addresses_stay_numbers() -> None:
    assert symbols_of(parsed()) is None


def test_a_guest_has_the_symbols_of_the_kernel_that_it_was_booted_with(guest: Running) -> None:
    symbols = symbols_of(parsed(), guest)
    assert symbols is not None
    symbols.learn_call(0xFFFF_D9F3_3561_F310, VERSION)
    assert symbols.name(0xFFFF_D9F3_3561_1024) == "event_number_1_and_a_long_word_of_1+0x4/0x20"


def test_none_means_none(guest: Running) -> None:
    assert symbols_of(parsed("--symbols", "none"), guest) is None


def test_a_guest_whose_kernel_is_gone_has_none(guest: Running) -> None:
    (guest.path.parent / "Image").unlink()
    assert symbols_of(parsed(), guest) is None
    (guest.path / "guest.json").write_text("{")
    assert symbols_of(parsed(), guest) is None


@pytest.mark.parametrize("force", [False, True])
def test_a_build_id_that_is_not_the_guests_is_said(
    force: bool, guest: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vmlinux").write_bytes(elves.linux(build_id=b"\x33" * 20))
    words = ["--symbols", str(tmp_path / "vmlinux"), *(["--symbols-force"] if force else [])]
    symbols = symbols_of(parsed(*words), guest)
    assert symbols is not None
    symbols.learn_call(SMC + 0x10, VERSION)
    assert (symbols.name(SMC) == "__arm_smccc_smc+0x0/0x30") == force
    err = capsys.readouterr().err
    assert err.count("\n") == (0 if force else 1)
    assert ("333333333333" in err and "222222222222" in err) != force


def test_sentences_go_where_the_command_wants_them(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(elves.linux())
    told: list[str] = []
    symbols = symbols_of(parsed("--symbols", str(tmp_path / "vmlinux")), tell=told.append)
    assert symbols is not None
    symbols.name(SMC)
    assert len(told) == 1


def test_a_file_that_is_none_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    for word in (str(tmp_path / "noise"), str(tmp_path / "nothing")):
        with pytest.raises(UsageError):
            symbols_of(parsed("--symbols", word))


def traced(path: Path, offset: int) -> Path:
    """A trace as JSON lines: the kernel calls, and then an interrupt comes while it schedules."""
    maker = Maker()
    call = maker.call(0, "SDEI_VERSION", 1 << 48) | {"pc": SMC + 0x10 + offset}
    schedule = elves.LINUX["schedule"][0] + offset
    frame = {"kind": "kick", "pc": schedule + 4, "next_pc": schedule + 4, "pstate": 0x5, "el": 1, "answered": True}
    records = [META, call, maker.make("frame", 0, **frame, then="handler")]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("words", [[], ["--filter", "frame"], ["--last", "1"]])
def test_a_trace_names_functions_also_if_the_call_that_says_where_is_left_out(
    words: list[str], tmp_path: Path, command: Command
) -> None:
    trace = str(traced(tmp_path / "trace", 0x19F3_2D60_0000))
    (tmp_path / "vmlinux").write_bytes(elves.linux())
    result = command("trace", trace, "--symbols", str(tmp_path / "vmlinux"), *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert "pc=schedule+0x4/0x80" in result.stdout
    result = command("trace", trace, "--symbols", str(tmp_path / "vmlinux"), "--json", *words)
    assert json.loads(result.stdout.splitlines()[-1])["pc_symbol"] == "schedule+0x4/0x80"


def test_a_trace_without_names_has_the_reason_once(tmp_path: Path, command: Command) -> None:
    trace = str(traced(tmp_path / "trace", 0x19F3_2D60_0400))
    (tmp_path / "vmlinux").write_bytes(elves.linux())
    result = command("trace", trace, "--symbols", str(tmp_path / "vmlinux"))
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "another kernel" in result.stderr
    assert "schedule" not in result.stdout


def test_symbols_that_are_none_end_a_trace_with_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "noise").write_bytes(b"\x1b]0;noise")
    result = command("trace", str(traced(tmp_path / "trace", 0)), "--symbols", str(tmp_path / "noise"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
