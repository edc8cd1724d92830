"""Services from a user's Python file (`--service FILE`)."""

from __future__ import annotations

import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc.service import Service


def load_services(path: Path | str) -> list[Service]:
    """Run the file and make one instance of each `Service` subclass that it defines, in the order of their definition.

    A class whose name begins with an underscore is taken for somebody's base class and left alone.

    Raises:
        UsageError: no such file, not Python, an exception while it ran, or no service in it; one line, with file and
        line number.
    """
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"service file {path}: {error.strerror or error}") from error
    name = f"qemu_sdei_service_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    try:
        code = compile(source, str(path), "exec")
    except SyntaxError as error:
        raise UsageError(f"service file {path}:{error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise UsageError(f"service file {path}: not Python source: {error}") from error
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        exec(code, module.__dict__)
        services = [
            value()
            for key, value in module.__dict__.items()
            if isinstance(value, type)
            and issubclass(value, Service)
            and value.__module__ == name
            and key == value.__name__
            and not key.startswith("_")
            and not inspect.isabstract(value)
        ]
    except (Exception, SystemExit) as error:
        raise UsageError(f"service file {_location(path, error)}: {_one_line(error)}") from error
    if not services:
        raise UsageError(f"service file {path}: it defines no subclass of qemu_sdei.smccc.Service")
    return services


def _location(path: Path, error: BaseException) -> str:
    """`file:line` of the file's own innermost line that was running."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
