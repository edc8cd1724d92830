"""The build step: the shipped blobs are those of the sources, and what it says when it cannot build."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from qemu_sdei import guestbuild, guestcompile
from qemu_sdei.errors import UsageError
from qemu_sdei.guestbuild import Layout

pytestmark = pytest.mark.not_quick  # it compiles

SELFTEST = next(program for program in guestbuild.PROGRAMS if program.name == "selftest")
BENCH = next(program for program in guestbuild.PROGRAMS if program.name == "bench")
NO_COMPILER = {"PATH": "/nonexistent"}
needs_compiler = pytest.mark.skipif(guestcompile.find_compiler() is None, reason="no compiler for AArch64")


def copy_of_tree(root: Path) -> Layout:
    """Sources and blobs as they are in the checkout, in a folder of their own."""
    layout = Layout(guest=root / "guest", build=root / "build", data=root / "data")
    ours = Layout()
    shutil.copytree(ours.guest, layout.guest, ignore=shutil.ignore_patterns("build", "module"))
    layout.data.mkdir()
    for name in ("blobs.json", *(f"{program.name}.bin" for program in guestbuild.PROGRAMS)):
        shutil.copy(ours.data / name, layout.data)
    return layout


def test_committed_blobs_are_built_from_the_sources() -> None:
    assert guestbuild.check() == []


def test_blobs_are_small_enough_to_ship() -> None:
    for name, record in guestbuild.read_records(Layout().data).items():
        assert record.size == (Layout().data / f"{name}.bin").stat().st_size
        assert record.size < 128 << 10


@needs_compiler
def test_same_bytes_in_any_folder(tmp_path: Path) -> None:
    images = []
    for folder in (tmp_path / "a", tmp_path / "a folder of another length"):
        folder.mkdir()
        layout = copy_of_tree(folder)
        guestbuild.build([SELFTEST], layout=layout, force=True)
        images.append((layout.data / "selftest.bin").read_bytes())
    assert images[0] == images[1]


@needs_compiler
def test_only_what_changed_is_rebuilt(tmp_path: Path) -> None:
    layout = copy_of_tree(tmp_path)
    with (layout.guest / "bench" / "main.c").open("a") as source:
        source.write("/* changed */\n")
    lines: list[str] = []
    guestbuild.build(layout=layout, report=lines.append)
    assert [line.split(",")[0] for line in lines if "up to date" in line] == [
        f"{program.name}: up to date" for program in guestbuild.PROGRAMS if program.name != "bench"
    ]
    assert any(line.startswith("bench: built") for line in lines)
    assert guestbuild.check([BENCH], layout=layout) == []


@needs_compiler
def test_compiler_error_is_shown(tmp_path: Path) -> None:
    layout = copy_of_tree(tmp_path)
    with (layout.guest / "bench" / "main.c").open("a") as source:
        source.write("int broken(void) { return undeclared_name; }\n")
    before = (layout.data / "bench.bin").read_bytes()
    with pytest.raises(UsageError, match="undeclared_name"):
        guestbuild.build([BENCH], layout=layout)
    assert (layout.data / "bench.bin").read_bytes() == before


def test_no_compiler_is_fine_while_nothing_changed(tmp_path: Path) -> None:
    layout = copy_of_tree(tmp_path)
    guestbuild.build(layout=layout, environ=NO_COMPILER)
    lines: list[str] = []
    assert guestbuild.check(layout=layout, environ=NO_COMPILER, report=lines.append) == []
    assert all("not rebuilt" in line and "no compiler" in line for line in lines)


def test_no_compiler_and_changed_sources_says_what_to_install(tmp_path: Path) -> None:
    layout = copy_of_tree(tmp_path)
    with (layout.guest / "lib" / "time.c").open("a") as source:
        source.write("/* changed */\n")
    with pytest.raises(
        UsageError, match=r"selftest, bench, conformance, compare: out of date.*install gcc-aarch64-linux-gnu"
    ):
        guestbuild.build(layout=layout, environ=NO_COMPILER)
    assert [line.split(":")[0] for line in guestbuild.check(layout=layout, environ=NO_COMPILER)] == [
        "selftest",
        "bench",
        "conformance",
        "compare",
    ]


def test_check_finds_a_blob_that_was_changed(tmp_path: Path) -> None:
    layout = copy_of_tree(tmp_path)
    with (layout.data / "selftest.bin").open("ab") as blob:
        blob.write(b"\0")
    assert [line.split(":")[0] for line in guestbuild.check(layout=layout, environ=NO_COMPILER)] == ["selftest"]


@pytest.mark.parametrize("content", ["", "[]", '{"selftest": {"sha256": 1}}', '{"selftest": null}', "{"])
def test_damaged_blobs_json_means_rebuild(tmp_path: Path, content: str) -> None:
    layout = copy_of_tree(tmp_path)
    (layout.data / "blobs.json").write_text(content)
    with pytest.raises(UsageError, match="out of date"):
        guestbuild.build([SELFTEST], layout=layout, environ=NO_COMPILER)


def test_sources_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no guest sources"):
        guestbuild.build(layout=Layout(guest=tmp_path / "guest", build=tmp_path, data=tmp_path))


def fake_compiler(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f"#!/bin/sh\necho '{version}'\n")
    script.chmod(0o755)


def test_compiler_from_the_variable(tmp_path: Path) -> None:
    fake_compiler(tmp_path, "aarch64-none-elf-gcc", "some gcc 1")
    fake_compiler(tmp_path, "myclang", "clang version 99")
    by_prefix = guestcompile.find_compiler({"PATH": "/bin", "QEMU_SDEI_CROSS": f"{tmp_path}/aarch64-none-elf-"})
    assert by_prefix is not None
    assert by_prefix.version == "some gcc 1"
    by_name = guestcompile.find_compiler({"PATH": f"{tmp_path}{os.pathsep}/bin", "QEMU_SDEI_CROSS": "myclang"})
    assert by_name is not None
    assert by_name.is_clang
    with pytest.raises(UsageError, match="QEMU_SDEI_CROSS=no-such-"):
        guestcompile.find_compiler({"PATH": "/bin", "QEMU_SDEI_CROSS": "no-such-"})


def test_compiler_from_path(tmp_path: Path) -> None:
    environ = {"PATH": f"{tmp_path}{os.pathsep}/nonexistent"}
    fake_compiler(tmp_path, "clang", "clang version 99")
    assert guestcompile.find_compiler(environ) is None  # useless without its linker
    fake_compiler(tmp_path, "ld.lld", "LLD")
    clang = guestcompile.find_compiler(environ)
    assert clang is not None
    assert clang.is_clang
    for name in ("aarch64-none-elf-gcc", "aarch64-none-elf-gcc-ar", "aarch64-linux-gnu-gcc-12"):
        fake_compiler(tmp_path, name, name)
    gcc = guestcompile.find_compiler(environ)
    assert gcc is not None
    assert gcc.version == "aarch64-none-elf-gcc"


@pytest.mark.parametrize("elf", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\0", b"MZ" + bytes(100)])
def test_linker_output_that_is_no_elf(elf: bytes) -> None:
    with pytest.raises(UsageError, match="linker's output"):
        guestcompile.flatten(elf)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert guestbuild.main(["no-such-guest"]) == 2
    assert "there are monitor, selftest, bench" in capsys.readouterr().err
    assert guestbuild.main(["--check", "selftest"]) == 0
