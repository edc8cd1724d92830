"""What is given to `GuestOptions` is of the types that it declares, or a sentence says what belongs there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import GuestOptions


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"services": "mine.py"}, "services is 'mine.py', but must be a list of texts or paths: services=['mine.py']"),
        ({"drives": "disk.img"}, "drives is 'disk.img', but must be a list of texts: drives=['disk.img']"),
        ({"command": "uname -r"}, "must be a list of texts or None: command=['uname -r']"),
        ({"qemu_args": [1]}, "qemu_args is [1], but must be a list of texts"),
        ({"smp": "4"}, "smp is '4', but must be a whole number"),
        ({"smp": True}, "smp is True, but must be a whole number"),
        ({"ras": "yes"}, "ras is 'yes', but must be True or False"),
        ({"boot_timeout": "60"}, "boot_timeout is '60', but must be a number"),
        ({"kernel": 6}, "kernel is 6, but must be text or a path or None"),
        ({"boot": None}, "boot is None, but must be one of 'auto', 'acpi', 'dt'"),
        ({"files": ["a"]}, "files is ['a'], but must be a dict of texts to paths"),
        ({"sdei_slots": 3}, "sdei_slots is 3, but must be 2 whole numbers or None"),
        ({"append": b"x" * 100}, "..., but must be text"),
    ],
)
def test_another_type_is_refused_in_words(words: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        GuestOptions(**words)
    assert said in str(refused.value)
    assert str(refused.value).startswith("GuestOptions: ")
    assert len(str(refused.value)) < 200


def test_what_fits_is_taken() -> None:
    GuestOptions(
        smp=4,
        memory=1 << 30,
        drives=["a.img"],
        services=(Path("mine.py"),),
        command=["uname"],
        files={"/x": Path("x")},
        sdei_slots=(1, 2),
        boot_timeout=5,
        kdump="6.12",
        client=True,
    )
