"""Services from users' files: the one in the documentation works, and slips are named with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc import JournalMode, Registry
from qemu_sdei.smccc.regs import X0, new_regs
from qemu_sdei.smccc.userfile import load_services

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "own-service.md"

SERVICE = """
from qemu_sdei.smccc import FunctionRange, Service

class One(Service):
    ranges = (FunctionRange(3, 0, 0),)
"""


def load(tmp_path: Path, text: str | bytes) -> list[str]:
    """The services' names of a file with this text."""
    path = tmp_path / "mine.py"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [service.title for service in load_services(path)]


def test_the_service_in_the_documentation(tmp_path: Path) -> None:
    """The code block of docs/howto/own-service.md, loaded and called as described there."""
    (code,) = re.findall(r"```python\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    path = tmp_path / "adder.py"
    path.write_text(code)
    (service,) = load_services(path)
    assert service.journal is JournalMode.OUTCOME
    registry = Registry()
    registry.register(service)
    handler = registry.lookup(0xC300_0000)
    assert handler is not None
    regs = new_regs()
    for first, second, total in ((2, 3, 5), ((1 << 64) - 1, 2, 1)):
        regs[X0], regs[X0 + 1], regs[X0 + 2] = 0xC300_0000, first, second
        assert handler(0, regs) == (total,)


def test_several_services_in_one_file(tmp_path: Path) -> None:
    """In their order; imported classes, base classes and other things are left alone."""
    text = (
        SERVICE
        + "from dataclasses import dataclass\n"
        + "from qemu_sdei.smccc.arch import ArchService\n"
        + "class _Base(Service):\n    pass\n"
        + "class Two(_Base):\n    name = 'second'\n    ranges = (FunctionRange(3, 1, 1),)\n"
        + "Alias = Two\n"
        + "@dataclass\nclass NotAService:\n    x: 'int' = 1\n"
    )
    assert load(tmp_path, text) == ["One", "second"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"mine\.py: it defines no subclass of"),
        ("from qemu_sdei.smccc import Service\n", "it defines no subclass of"),
        ("x = (\n", r"mine\.py:1: '\(' was never closed"),
        ("x = 1\n  y = 2\n", r"mine\.py:2: unexpected indent"),
        (b"x = '\xff\xfe'\n", "mine.py"),
        (b"x = 1\0\n", r"mine\.py.*null bytes"),
        ("import os\nimport nonesuch_module\n", r"mine\.py:2: ModuleNotFoundError: No module named 'nonesuch_module'"),
        ("\n\n1 / 0\n", r"mine\.py:3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", r"mine\.py:2: SystemExit: bye"),
        ("raise ValueError('two\\nlines')\n", r"mine\.py:1: ValueError: two lines"),
        ("raise ValueError\n", r"mine\.py:1: ValueError$"),
        (SERVICE + "    def __init__(self, x):\n        pass\n", r"mine\.py: TypeError: .*missing 1 required"),
        (SERVICE + "    def __init__(self):\n        self.x = self.y\n", r"mine\.py:7: AttributeError"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, message: str) -> None:
    """One line each."""
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith("service file ")
    assert "\n" not in str(caught.value)


def test_unreadable(tmp_path: Path) -> None:
    """No such file, a directory."""
    with pytest.raises(UsageError, match=r"none\.py: No such file"):
        load_services(tmp_path / "none.py")
    with pytest.raises(UsageError, match="Is a directory"):
        load_services(tmp_path)


def test_two_files_that_want_the_same(tmp_path: Path) -> None:
    """The registry names both services."""
    for name in ("first.py", "second.py"):
        (tmp_path / name).write_text(SERVICE.replace("One", name[:-3].title()))
    registry = Registry()
    registry.register(*load_services(tmp_path / "first.py"))
    with pytest.raises(UsageError, match=r"Second .*overlaps service First"):
        registry.register(*load_services(tmp_path / "second.py"))
