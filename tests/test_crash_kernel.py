"""`scripts/crash-kernel` from an archive in a directory, with sources whose makefile only seems to build a kernel."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import own_kernels
from scripts.kernellib import build, configuration, following
from tests.host.archive import Archive

TOOLS = ("apt-get", "dpkg-deb", "aarch64-linux-gnu-gcc", "flex", "bison", "bc", "xz", "perl", "make")
pytestmark = pytest.mark.skipif(not all(shutil.which(name) for name in TOOLS), reason=f"needs {', '.join(TOOLS)}")
ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0

MAKEFILE = """\
allnoconfig:
	echo '# CONFIG_SMP is not set' >.config
olddefconfig:
	@sed -i 's/^CONFIG_GONE=.*//' .config
vmlinux: {needs}
	@echo '  CC      init/main.o'
	@mkdir -p arch/arm64/boot arch/arm64/include tools/include include/config scripts
	@for file in vmlinux System.map Module.symvers arch/arm64/boot/Image arch/arm64/Makefile; do \\
		echo $$file >$$file; done
	@echo 7.3.4-crash >include/config/kernel.release
	@touch scripts/modpost scripts/modpost.o
Image modules: vmlinux
wait:
	@[ -e waited ] || {{ touch waited; echo '  CC      init/slow.o'; sleep 600; }}
fails:
	@echo 'init/main.c:7:1: error: nothing of this is C' >&2; exit 1
full:
	@echo 'as: init/main.o: No space left on device' >&2; exit 1
"""


class Setting:
    """An archive with linux-source-7.3, a user whose apt knows it, and an empty cache."""

    def __init__(self, tmp_path: Path) -> None:
        self.archive = Archive(tmp_path / "archive")
        self.cache = tmp_path / "cache" / "qemu-sdei"
        self.config = tmp_path / "apt.conf"
        self.config.write_text(
            f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "{tmp_path}/none";\n'
        )
        (tmp_path / "sources.list").write_text(self.archive.source)

    def publish(self, version: str = "7.3.4-1", needs: str = "") -> None:
        """Sources whose vmlinux needs a target of `MAKEFILE`."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as archive:
            for name, text in (
                ("Makefile", MAKEFILE.format(needs=needs)),
                ("drivers/gpu/drm/large.h", "not unpacked"),
                ("drivers/gpu/Kconfig", "unpacked"),
                ("arch/arm64/boot/dts/board.dts", "not unpacked"),
                ("drivers/of/empty_root.dts", "unpacked: it is built in"),
            ):
                member = tarfile.TarInfo(f"linux-source-7.3/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        files = {"usr/src/linux-source-7.3.tar.xz": packed.getvalue()}
        self.archive.add("linux-source-7.3", version, files, arch="all")

    def built(self) -> list[str]:
        return [kernel.directory.name for kernel in own_kernels.built()]

    def left(self) -> list[str]:
        """What is in the directory of kernels, but for its lock."""
        return sorted(path.name for path in (self.cache / own_kernels.FOLDER).glob("*") if path.name != "lock")


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    made = Setting(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(made.config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "CONFIG", tmp_path / "wanted.config")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    build.CONFIG.write_text('CONFIG_SMP=y\nCONFIG_WORDS="a b"\n# CONFIG_OFF is not set\n')
    return made


def run(*words: str) -> int:
    return build.main(["--suite", "stable", "--jobs", "1", *words])


def test_it_is_built_once_and_then_found_without_asking_anybody(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.publish()
    assert run() == 0
    out, err = capsys.readouterr()
    assert "qemu-sdei run --series own-7.3" in out
    assert "downloading linux-source-7.3 7.3.4-1" in err
    found = own_kernels.kernel("own-7.3")
    assert found.image.read_text() == "arch/arm64/boot/Image\n"
    assert found.vmlinux.read_text() == "vmlinux\n"
    assert (found.description.release, found.description.version) == ("7.3.4-crash", "7.3.4-1")
    assert "CONFIG_SMP=y" in (found.directory / "config").read_text().splitlines()
    assert (found.tree / "Module.symvers").is_file()
    assert (found.tree / "scripts/modpost").is_file()
    assert not (found.tree / "scripts/modpost.o").exists()
    assert setting.left() == [found.directory.name]
    shutil.rmtree(setting.archive.directory)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run() == 0
    assert f"7.3.4-crash is built already: {found.directory}" in capsys.readouterr().out


def test_other_options_are_another_kernel_and_comments_are_not(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.publish()
    assert run() == 0
    build.CONFIG.write_text('# in another order\n# CONFIG_OFF is not set\nCONFIG_WORDS="a b"\nCONFIG_SMP=y\n')
    assert run() == 0
    assert "built already" in capsys.readouterr().out
    build.CONFIG.write_text("CONFIG_SMP=y\n")
    assert run() == 0
    assert len(setting.built()) == 2


def test_update_builds_what_the_archive_has_since(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting.publish()
    assert run() == 0
    assert run("--update") == 0
    assert "nothing newer is there" in capsys.readouterr().out
    setting.publish("7.3.9-1")
    shutil.rmtree(setting.cache / "apt-source")  # its lists are half a day old
    assert run("--update") == 0
    assert own_kernels.kernel("own-7.3").description.version == "7.3.9-1"


def test_an_option_that_does_not_come_out_is_named(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting.publish()
    build.CONFIG.write_text("CONFIG_SMP=y\nCONFIG_GONE=y\n")
    assert run() == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "did not come out: CONFIG_GONE (wanted y, got n);" in err
    assert setting.built() == []


@pytest.mark.parametrize(
    ("needs", "what"),
    [
        ("fails", "does not build: init/main.c:7:1: error: nothing of this is C (see "),
        ("full", "does not build: the disk is full: make room, and try again"),
    ],
)
def test_a_build_that_fails_says_why_in_one_line(
    setting: Setting, capsys: pytest.CaptureFixture[str], needs: str, what: str
) -> None:
    setting.publish(needs=needs)
    assert run() == 2
    assert what in capsys.readouterr().err.splitlines()[-1]
    assert setting.built() == []
    # It goes on with the sources that are there: all but what no virtual machine has.
    source = next((setting.cache / own_kernels.FOLDER).glob("*.part")) / "source"
    there = {str(path.relative_to(source)) for path in source.rglob("*.*") if path.is_file()}
    assert {"drivers/of/empty_root.dts", ".config"} <= there
    assert not {"drivers/gpu/drm/large.h", "arch/arm64/boot/dts/board.dts"} & there
    assert (source / "drivers/gpu/Kconfig").is_file()
    makefile = source / "Makefile"
    makefile.write_text(MAKEFILE.format(needs=""))
    assert run() == 0
    assert "going on with 7.3.4-1-" in capsys.readouterr().err


def test_what_cannot_be_had_is_one_line(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.publish()

    def refused(*words: str) -> str:
        assert run(*words) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("crash-kernel: ")
        return line

    assert "no linux-source-9.9 (it has 7.3): give one of these by --version" in refused("--version", "9.9")
    assert "give two numbers, such as 7.3" in refused("--version", "7.3.4")
    assert "give a suite of Debian's" in refused("--suite", "../\033x")
    assert "package lists (nowhere) cannot be had" in refused("--suite", "nowhere")
    assert "give 1 to 1024" in refused("--jobs", "0")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{setting.cache}/a b")
        assert "make takes no space or special character" in refused()
    shutil.rmtree(setting.archive.directory)
    shutil.rmtree(setting.cache)
    assert "package lists (stable) cannot be had" in refused()


def test_a_disk_that_is_too_small_is_said_before_anything_is_downloaded(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.publish()
    monkeypatch.setattr(build, "ROOM", 1 << 62)
    assert run() == 2
    assert "make room, or set XDG_CACHE_HOME" in capsys.readouterr().err
    assert setting.left() == []


def test_an_interrupted_build_is_no_kernel_and_goes_on_the_next_time(setting: Setting, tmp_path: Path) -> None:
    setting.publish(needs="wait")
    program = (
        "import sys; from pathlib import Path; from scripts.kernellib import build\n"
        f"build.CONFIG = Path({str(build.CONFIG)!r}); sys.exit(build.main(['--suite', 'stable', '--jobs', '1']))"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + LIMIT
            while not list(setting.cache.glob("own-kernels/*.part/source/waited")):
                assert process.poll() is None, "it ends before it builds"
                assert time.monotonic() < deadline, "it does not come to its build"
                time.sleep(0.02)
            second = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
            assert (second.returncode, second.stderr) == (
                2,
                "crash-kernel: another scripts/crash-kernel is building: wait for it\n",
            )
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; what is built so far is kept" in err
    assert setting.built() == []
    assert run() == 0
    assert own_kernels.kernel("own-7.3").description.release == "7.3.4-crash"


def test_a_program_that_says_nothing_is_ended(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it fails: sh said nothing for 100 ms"):
        following.run(["sh", "-c", "sleep 600"], "it fails", tmp_path / "log", directory=tmp_path, silence=0.1)


def test_our_own_options_are_read() -> None:
    wanted = configuration.options((ROOT / "guest/crash-kernel.config").read_text())
    for name in ("ARM_SDEI_NMI", "ACPI_AGDI", "KEXEC_FILE", "EDAC_GHES", "DEBUG_INFO_DWARF5"):
        assert wanted[f"CONFIG_{name}"] == "y"
    assert wanted["CONFIG_RANDOMIZE_BASE"] == configuration.OFF
    assert configuration.wrong(wanted, wanted) == []
