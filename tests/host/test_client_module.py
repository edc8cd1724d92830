"""Building the client module: what is cached, what is refused and in which words. No Debian kernel is needed here."""

from __future__ import annotations

import glob
import importlib
import os
import select
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host import client_module as module
from qemu_sdei.host.debian import DebianCache, KernelFiles

RELEASE = "6.1.0-99-arm64"
VERSION = "6.1.999-1"


@dataclass
class FakeKernel:
    release: str = RELEASE
    version: str = VERSION
    suite: str | None = None


class FakeCache:
    """Debian's archive with the packages that a test puts into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.packages: dict[tuple[str, str, str], Path] = {}
        self.asked: list[str] = []

    def download(self, package: str, version: str, architecture: str) -> Path:
        self.asked.append(f"{package}={version}:{architecture}")
        try:
            return self.packages[package, version, architecture]
        except KeyError:
            raise UsageError(f"no {package}") from None

    def add(self, package: str, architecture: str, depends: str, files: dict[str, str]) -> None:
        root = self.directory / "debs" / package
        for name, text in {
            **files,
            "DEBIAN/control": f"Package: {package}\nVersion: {VERSION}\nArchitecture: {architecture}\n"
            f"Maintainer: nobody <nobody@example.org>\nDescription: test\n{depends}",
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        deb = self.directory / f"{package}.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
        self.packages[package, VERSION, architecture] = deb


def build(cache: FakeCache, kernel: FakeKernel | None = None) -> Path:
    return module.build(cast(DebianCache, cache), cast(KernelFiles, kernel or FakeKernel()))


# What kbuild does for us, without a kernel: an object that says for which release it is.
KBUILD = r"""
modules:
	test -f $(M)/Kbuild -a -f $(M)/main.c
	printf '__attribute__((section(".modinfo"))) char m[] = "license=GPL\\0vermagic={release} SMP";' > $(M)/fake.c
	$(CC) -g -c -o $(M)/sdei_test.ko $(M)/fake.c
"""


def kernel_tree(
    path: Path, *, release: str = RELEASE, makefile: str = KBUILD, config: str = "CONFIG_ARM64=y\n"
) -> Path:
    (path / "include/generated").mkdir(parents=True)
    (path / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{release}"\n')
    (path / "Makefile").write_text(makefile.replace("{release}", release))
    (path / ".config").write_text(config)
    return path


def ended(pid: int) -> bool:
    """Whether a process ends; 10 s for the kernel to take a killed one away."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle):
        return bool(select.select([handle], [], [], 10)[0])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of the test's own, so that it can be seen that nothing stays there."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FakeCache:
    path = tmp_path / "cache"
    path.mkdir()
    return FakeCache(path)


def add_headers(cache: FakeCache, makefile: str = KBUILD) -> None:
    """The three packages, laid out and named as Debian's."""
    cache.add(
        f"linux-headers-{RELEASE}",
        "arm64",
        f"Depends: linux-headers-6.1.0-99-common (= {VERSION}), linux-kbuild-6.1 (>= {VERSION}), gcc-12\n",
        {f"usr/src/linux-headers-{RELEASE}/Makefile": "include /usr/src/linux-headers-6.1.0-99-common/Makefile\n"},
    )
    cache.add(
        "linux-headers-6.1.0-99-common",
        "all",
        "",
        {"usr/src/linux-headers-6.1.0-99-common/Makefile": makefile.replace("{release}", RELEASE)},
    )
    cache.add("linux-kbuild-6.1", "amd64", "", {"usr/lib/linux-kbuild-6.1/scripts/x": ""})


def test_sources_are_complete() -> None:
    sources = module.sources()
    kbuild = sources["Kbuild"].decode()
    for name in sources:
        if name.endswith(".c"):
            assert f" {name[:-2]}.o" in kbuild
    parts = ("main", "handler", "dump", "events", "cpus", "crash", "proc")
    assert {"Kbuild", "sdei_test.h", *(f"{part}.c" for part in parts)} <= set(sources)


def test_the_wheel_carries_the_sources() -> None:
    """An installed qemu-sdei builds the module too."""
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["qemu_sdei"]
    package = root / "qemu_sdei"
    shipped = {file for pattern in patterns for file in glob.glob(pattern, root_dir=package, recursive=True)}  # noqa: PTH207 - setuptools
    assert {f"data/module/{name}" for name in module.sources()} <= shipped


def test_build_downloads_the_kernels_own_version_and_keeps_the_result(cache: FakeCache, temporary: Path) -> None:
    add_headers(cache)
    built = build(cache)
    assert module.vermagic(built) == RELEASE
    assert b".debug_info" not in built.read_bytes()
    assert cache.asked == [
        f"linux-headers-{RELEASE}={VERSION}:arm64",
        f"linux-headers-6.1.0-99-common={VERSION}:all",
        f"linux-kbuild-6.1={VERSION}:amd64",
    ]
    assert not list(temporary.iterdir())
    assert sorted(file.name for file in built.parent.iterdir()) == ["complete", "sdei_test.ko"]

    cache.asked.clear()
    assert build(cache) == built
    assert not cache.asked

    # What is not what was built, or cannot be told, is built again.
    good = built.read_bytes()
    for damage in (lambda: built.write_bytes(good[:-1] + b"x"), (built.parent / "complete").unlink):
        damage()
        assert module.vermagic(build(cache)) == RELEASE
        assert cache.asked
        cache.asked.clear()


def test_a_kept_module_needs_no_tools(cache: FakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_headers(cache)
    built = build(cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build(cache) == built


def test_changed_sources_and_other_versions_are_built_anew(cache: FakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    add_headers(cache)
    built = build(cache)
    changed = {**module.sources(), "main.c": b"/* changed */\n"}
    monkeypatch.setattr(module, "sources", lambda: changed)
    other = build(cache)
    assert other != built
    with pytest.raises(UsageError, match=r"6\.1\.1000-1"):
        build(cache, FakeKernel(version="6.1.1000-1"))


def test_missing_headers_are_named_in_one_line(cache: FakeCache) -> None:
    with pytest.raises(UsageError) as caught:
        build(cache)
    message = str(caught.value)
    assert f"linux-headers-{RELEASE} {VERSION} (arm64)" in message
    assert "\n" not in message


def test_missing_tools_are_named_in_one_line(cache: FakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="without a GCC for AArch64 and make and dpkg-deb") as caught:
        build(cache)
    assert "\n" not in str(caught.value)
    assert not cache.asked


def test_compile_error_is_one_line_and_nothing_is_kept(cache: FakeCache, temporary: Path) -> None:
    add_headers(cache, "modules:\n\t@echo main.c:7:1: warning: w >&2; echo main.c:8:1: error: boom >&2; exit 1\n")
    with pytest.raises(UsageError) as caught:
        build(cache)
    assert str(caught.value) == f"the client module does not build for {RELEASE}: main.c:8:1: error: boom"
    assert not list(temporary.iterdir())
    assert not list(cache.directory.rglob("*.ko"))


def test_headers_of_another_release_are_refused(cache: FakeCache) -> None:
    add_headers(cache, KBUILD.replace("{release}", "6.1.0-98-arm64"))
    with pytest.raises(UsageError, match=r"made it for 6\.1\.0-98-arm64"):
        build(cache)


def test_package_that_is_no_package(cache: FakeCache, tmp_path: Path) -> None:
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"\0" * 100)
    cache.packages[f"linux-headers-{RELEASE}", VERSION, "arm64"] = broken
    with pytest.raises(UsageError, match=r"broken\.deb cannot be read") as caught:
        build(cache)
    assert "\n" not in str(caught.value)


def test_a_build_that_hangs_is_ended(
    cache: FakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 2.0)
    pid = tmp_path / "pid"
    tree = kernel_tree(tmp_path / "tree", makefile=f"modules:\n\tsleep 600 & echo $$! > {pid}; wait\n")
    with pytest.raises(UsageError, match="did not end within"):
        module.build_for(tree, tmp_path / "x.ko")
    assert ended(int(pid.read_text()))
    assert not list(temporary.iterdir())


def test_build_for_a_tree_ignores_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARCH", "CC", "O", "M", "MAKEFLAGS"):
        monkeypatch.setenv(name, "nonsense")
    target = tmp_path / "new" / "client.ko"
    assert module.build_for(kernel_tree(tmp_path / "tree"), target) == target
    assert module.vermagic(target) == RELEASE


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("missing", "not a kernel build tree"),
        ("no config", "not a kernel build tree"),
        ("x86", "another architecture"),
        ("space", "no space or special character"),
    ],
)
def test_build_for_refuses_what_is_no_arm64_tree(tmp_path: Path, spoil: str, words: str) -> None:
    tree = tmp_path / ("a tree" if spoil == "space" else "tree")
    if spoil != "missing":
        kernel_tree(tree, config="CONFIG_X86_64=y\n" if spoil == "x86" else "# comment\nCONFIG_ARM64=y\n")
    if spoil == "no config":
        (tree / ".config").unlink()
    with pytest.raises(UsageError, match=words) as caught:
        module.build_for(tree, tmp_path / "x.ko")
    assert "\n" not in str(caught.value)


def test_target_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        module.build_for(kernel_tree(tmp_path / "tree"), tmp_path / "file" / "x.ko")


def test_vermagic_of_anything(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"\x7fELF nothing of it")
    assert module.vermagic(file) == ""


def test_the_former_name_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"qemu_sdei\.host\.client_module"):
        former = importlib.import_module("qemu_sdei.machine.module")
    assert former.build_for is module.build_for


# ---- a kernel of the user's own


def test_a_build_trees_module_is_built_again_only_when_the_tree_was(tmp_path: Path) -> None:
    tree = kernel_tree(tmp_path / "linux")
    told: list[str] = []
    first = module.build_tree(tmp_path / "cache", tree, told.append)
    assert module.vermagic(first) == RELEASE
    assert module.build_tree(tmp_path / "cache", tree, told.append) == first
    assert len(told) == 1
    (tree / "Module.symvers").write_text("new\n")
    assert module.build_tree(tmp_path / "cache", tree, told.append) != first
    assert len(told) == 2
    assert first.is_file()  # a guest may be about to read it


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            "warning: the compiler differs\n"
            "aarch64-linux-gnu-gcc: error: unrecognized command-line option '-fmin-function-alignment=8'\n"
            "make[2]: *** [scripts/Makefile.build:243: /tmp/x/main.o] Error 1",
            "unrecognized command-line option '-fmin-function-alignment=8' (the kernel wants a newer compiler",
        ),
        (
            "make[1]: *** [scripts/Makefile.modpost:145: Module.symvers] Error 1\n"
            "modpost: /lib/libc.so.6: version `GLIBC_2.38' not found (required by modpost)",
            "GLIBC_2.38' not found (required by modpost) (the kernel's build programs are for a newer Debian",
        ),
        ("main.c:3:10: fatal error: x.h: No such file\nmake: *** [main.o] Error 1", "main.c:3:10: fatal error: x.h"),
        ("make: *** No rule to make target 'modules'.  Stop.", "No rule to make target"),
        ("something else\nmake: *** [x] Error 2", "something else"),
        ("\x1b[31mfoo.c:1: error: evil\x1b[0m", r"\x1b[31mfoo.c:1: error: evil"),
    ],
)
def test_the_line_with_the_reason_is_told(printed: str, told: str, tmp_path: Path) -> None:
    lines = "".join(f'\t@echo "{line}" >&2\n' for line in printed.replace("`", "\\`").split("\n"))
    tree = kernel_tree(tmp_path / "linux", makefile=f"modules:\n{lines}\t@false\n")
    with pytest.raises(UsageError, match="does not build for") as error:
        module.build_for(tree, tmp_path / "x.ko")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_headers_that_keep_their_objects_elsewhere_are_found(tmp_path: Path) -> None:
    """Since 6.13 Debian's Makefile says where they are, and an include of it alone would lose that."""
    cache = FakeCache(tmp_path)
    common, kbuild = "linux-headers-6.1.0-99-common", "linux-kbuild-6.1"
    cache.add(
        f"linux-headers-{RELEASE}",
        "arm64",
        f"Depends: {common} (= {VERSION}), {kbuild} (= {VERSION})\n",
        {
            f"usr/src/linux-headers-{RELEASE}/Makefile": f"export KBUILD_OUTPUT = /usr/src/linux-headers-{RELEASE}\n"
            f"include /usr/src/{common}/Makefile\n",
            f"usr/src/linux-headers-{RELEASE}/.config": "CONFIG_ARM64=y\n",
        },
    )
    makefile = f"{KBUILD.replace('{release}', RELEASE)}\ttest -f $(KBUILD_OUTPUT)/.config\n"
    cache.add(common, "all", "", {f"usr/src/{common}/Makefile": makefile})
    cache.add(kbuild, module.KBUILD_ARCHITECTURE, "", {"usr/lib/x": ""})
    assert module.vermagic(build(cache)) == RELEASE
