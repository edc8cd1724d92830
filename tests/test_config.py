"""Guest configuration: sizes, names, and `guest.json` from whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.config import GuestConfig, check_name, format_size, parse_size
from qemu_sdei.errors import ProtocolError, UsageError
from tests.examples import JSON_VALUES

GOOD = GuestConfig(name="guest", nr_cpus=2, cpu="cortex-a72", ram_size=1 << 30, services=("/a.py",))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1G", 1 << 30),
        ("512M", 512 << 20),
        ("512", 512 << 20),
        ("1048568k", 1048568 << 10),
        (" 2g ", 2 << 30),
        ("3GiB", 3 << 30),
    ],
)
def test_sizes_are_read_as_qemu_does(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_unit_may_be_spelled_out() -> None:
    assert parse_size("3GiB") == parse_size("3GB") == 3 << 30


@pytest.mark.parametrize("text", ["", "x", "-1G", "1T", "1.5G", "1 G", "G", "1B", "iB", "9" * 40, "٣"])
def test_other_sizes_are_told(text: str) -> None:
    with pytest.raises(UsageError, match="memory size") as error:
        parse_size(text)
    assert "\n" not in str(error.value)


@given(st.integers(1, 1 << 48))
def test_a_formatted_size_of_whole_kilobytes_is_read_back(kilobytes: int) -> None:
    assert parse_size(format_size(kilobytes << 10)) == kilobytes << 10


@pytest.mark.parametrize("name", ["a", "guest-2", "A.b_c", "0" * 32])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", "-n", "a/b", "a b", "0" * 33, "ä", "a\n", "a\0"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        check_name(name)


def test_configuration_survives_the_file() -> None:
    assert GuestConfig.from_json(GOOD.to_json()) == GOOD


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(GOOD.to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "{}",
        "[" * 100_000,
        "\xff",
        "x" * (2 << 20),
        changed(name="../x"),
        changed(name=7),
        changed(nr_cpus=0),
        changed(nr_cpus=513),
        changed(nr_cpus=True),
        changed(nr_cpus=2.0),
        changed(ram_size=1),
        changed(ram_size=(1 << 30) + 1),
        changed(ram_size=1 << 60),
        changed(ram_base=-1),
        changed(services="x"),
        changed(services=[1]),
        changed(boot=[]),
        changed(sdei_version=1.1),
        changed(sdei_vendor="x"),
        changed(sdei_vendor=True),
        changed(sdei_signal=1),
        changed(sdei_slots=4),
        changed(sdei_slots=[4]),
        changed(sdei_slots=[4, True]),
        changed(sdei="no"),
        changed(surprise=1),
    ],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="guest configuration"):
        GuestConfig.from_json(text)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(GOOD.to_json()))), JSON_VALUES))
def test_any_values_give_a_configuration_or_a_protocol_error(changes: dict[str, Any]) -> None:
    try:
        config = GuestConfig.from_json(changed(**changes))
    except ProtocolError:
        return
    assert GuestConfig.from_json(config.to_json()) == config


def test_the_former_name_of_the_events_file_is_read() -> None:
    """A guest that was started before the package was upgraded has it in its guest.json."""
    config = GuestConfig(name="guest", nr_cpus=2, cpu="cortex-a72", ram_size=128 << 20, events="/mine.toml")
    former = config.to_json().replace('"events"', '"profile"')
    assert former != config.to_json()
    assert GuestConfig.from_json(former) == config
