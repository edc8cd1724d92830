"""The pytest plugin without a guest: what it loads, its options, markers, and the cache's directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.host.kernel_config import beside as config_of
from qemu_sdei.pytest_plugin.cache import GuestCache, key_of
from qemu_sdei.vm.options import GuestOptions

pytest_plugins = ["pytester"]


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_where_it_is_not_used_it_loads_nothing_that_is_heavy() -> None:
    """Pytest loads it with every project that is tested in the same environment."""
    code = (
        "import sys, pytest, qemu_sdei.pytest_plugin\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('qemu', 'rich', 'asyncio', 'elftools'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {
        "qemu_sdei",
        *(f"qemu_sdei.pytest_plugin{name}" for name in ("", ".fixtures", ".guests_of_test", ".options")),
    }


def test_a_test_without_a_guest_is_run_once_and_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass")
    found = _run(pytester, "--sdei-series", "6.1,6.12", "--sdei-firmware", "spec,tfa")
    found.assert_outcomes(passed=1)
    assert "sdei" not in found.stdout.str().partition("collected")[2]


def test_help_has_all_options_in_one_group(pytester: pytest.Pytester) -> None:
    text = _run(pytester, "--help").stdout.str()
    group = text.partition("qemu-sdei: guests with their firmware")[2].partition("\n\n")[0]
    for word in ("kernel", "series", "firmware", "smp", "timeout", "keep", "trace", "fresh", "cache"):
        assert f"--sdei-{word}" in group


def test_tests_with_a_guest_are_collected_for_each_kernel_and_profile(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(guest): pass\ndef test_other(console): pass")
    found = _run(
        pytester,
        "--collect-only",
        "-q",
        "--sdei-series",
        "6.1,6.12",
        "--sdei-firmware",
        "spec",
        "--sdei-firmware",
        "tfa",
    )
    lines = [line for line in found.outlines if "::" in line]
    assert sorted(line.partition("[")[2] for line in lines if "test_it" in line) == [
        "6.1-spec]", "6.1-tfa]", "6.12-spec]", "6.12-tfa]",
    ]  # fmt: skip
    assert len(lines) == 8


def test_a_fixture_of_the_users_own_with_such_a_name_is_theirs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.fixture\ndef guest(): return 7\ndef test_it(guest): assert guest == 7")
    _run(pytester, "--sdei-series", "6.1,6.12").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sdei-kernel", "a", "--sdei-series", "6.1"), "were both given: give one of them"),
        (("--sdei-smp", "many"), "--sdei-smp many: a number is wanted"),
    ],
)
def test_options_that_cannot_be_are_told_in_one_line(
    pytester: pytest.Pytester, arguments: tuple[str, ...], says: str
) -> None:
    found = _run(pytester, *arguments)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert says in found.stderr.str()
    assert "Traceback" not in found.stderr.str()


def test_the_environment_stands_in_for_an_option(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_SDEI_SMP", "some")
    assert "--sdei-smp some: a number is wanted" in _run(pytester).stderr.str()


def test_a_kernel_that_is_none_is_told_once_and_then_in_a_line(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("Image").write_text("no kernel")
    pytester.makepyfile("def test_1(guest): pass\ndef test_2(guest): pass")
    found = _run(pytester, "--sdei-kernel", "Image")
    found.assert_outcomes(errors=2)
    text = found.stdout.str()
    assert "for an arm64 kernel" in text
    assert text.count("this guest did not come up before: ") >= 1


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("sdei_needs('wifi')", "nobody knows 'wifi'; there are acpi"),
        ("sdei_needs(kernel='new')", "write an order and two numbers"),
        ("sdei_options(colour='red')", "a guest has no option colour"),
    ],
)
def test_markers_that_cannot_be_are_told(pytester: pytest.Pytester, marker: str, says: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(guest): pass")
    assert says in _run(pytester).stdout.str()


def test_a_key_is_of_all_that_makes_a_guest(tmp_path: Path) -> None:
    file = tmp_path / "kernel"
    file.write_text("1")
    options = GuestOptions(smp=2)
    key = key_of(options, [file], "qemu 7.2")
    assert key == key_of(GuestOptions(smp=2, name="other"), [file], "qemu 7.2")
    others = {
        key_of(GuestOptions(smp=3), [file], "qemu 7.2"),
        key_of(options, [file], "qemu 8"),
        key_of(options, [], "qemu 7.2"),
    }
    file.write_text("12")
    others.add(key_of(options, [file], "qemu 7.2"))
    assert len(others | {key}) == 5


def _made(cache: GuestCache, key: str, size: int) -> None:
    with cache.making(key) as path:
        path.mkdir()
        path.joinpath("vm.state").write_bytes(b"x" * size)


def test_what_was_not_used_for_longest_goes_when_there_is_too_much(tmp_path: Path) -> None:
    cache = GuestCache(limit=250_000, directory=tmp_path)
    for number, key in enumerate("ab"):
        _made(cache, key, 100_000)
        os.utime(cache.path(key), (1000 + number, 1000 + number))
    assert cache.find("a") is not None, "it counts as used now"
    _made(cache, "c", 100_000)
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]
    _made(cache, "d", 1_000_000)
    assert [cache.find(key) is not None for key in "abcd"] == [False, False, False, True]


def test_a_guest_that_was_not_made_to_its_end_is_not_there(tmp_path: Path) -> None:
    cache = GuestCache(directory=tmp_path)

    def make() -> None:
        with cache.making("a") as path:
            path.mkdir()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        make()
    assert cache.find("a") is None
    assert not [found for found in tmp_path.rglob("*") if found.is_dir() and found.name.startswith(".a")]


@pytest.mark.parametrize(
    ("kernel", "config"),
    [
        ("vmlinuz-6.1.0-57-arm64", "config-6.1.0-57-arm64"),
        ("Image", ".config"),
        ("Image", "config"),
        ("arch/arm64/boot/Image", ".config"),
    ],
)
def test_a_kernels_configuration_is_found_where_it_lies(tmp_path: Path, kernel: str, config: str) -> None:
    file = tmp_path / kernel
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    tmp_path.joinpath("config-6.12").touch()
    assert config_of(file) is None
    tmp_path.joinpath(config).touch()
    assert config_of(file) == tmp_path / config
