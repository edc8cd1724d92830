"""Options that name addresses of the guest's kernel: `--symbols`, `--symbols-force`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_sdei.cli.output import say
from qemu_sdei.errors import SdeiError

if TYPE_CHECKING:
    from qemu_sdei.rundir import Running
    from qemu_sdei.symbols.sources import Sources
    from qemu_sdei.symbols.symbolizer import Symbolizer


def add_symbol_options(parser: argparse.ArgumentParser) -> None:
    """Add `--symbols` and `--symbols-force`."""
    parser.add_argument(
        "--symbols",
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="show code addresses as function+0x1c/0x80 [module], with the symbols of FILE: a vmlinux, a "
        "kernel Image, a System.map, a module (.ko), a copy of the guest's /proc/kallsyms or "
        "/proc/modules, or a directory with such files. FILE@0xADDRESS gives the load address. May be "
        "repeated. For a running guest the default is the kernel that it booted (the vmlinux of "
        "its build tree, if it lies in one). `none`: show numbers",
    )
    parser.add_argument(
        "--symbols-force",
        action="store_true",
        help="use symbols even if they are of another build than the guest's kernel",
    )


def symbols_of(
    args: argparse.Namespace, guest: Running | None = None, *, tell: Callable[[str], None] | None = None
) -> Symbolizer | None:
    """Names for addresses as the options of `add_symbol_options` say; None: addresses stay numbers.

    Args:
        args: the command's options.
        guest: a running guest. Its kernel's own symbols are used where the user names none, and its build id is
            compared where they do.
        tell: gets sentences for the user, such as why addresses stay numbers; by default they go to standard error.

    Raises:
        UsageError: a file cannot be read, or has no symbols.
    """
    from qemu_sdei.symbols.symbolizer import Symbolizer

    tell = tell or (lambda sentence: say(f"qemu-sdei: symbols: {sentence}", error=True))
    sources = sources_of(args, guest)
    return None if sources is None else Symbolizer(sources, force=args.symbols_force, tell=tell)


def sources_of(args: argparse.Namespace, guest: Running | None = None) -> Sources | None:
    """What the options of `add_symbol_options` name, or a running guest's kernel; None: nothing. Raises `UsageError`
    as `symbols_of`.
    """
    from qemu_sdei.host import given_kernels, own_kernels
    from qemu_sdei.symbols.sources import Sources, image_build_id, load, load_image

    words = args.symbols
    if "none" in words or (not words and guest is None):
        return None
    image = None if guest is None else _kernel_of(guest)
    if words:
        sources = load(words)
        if image is not None and sources.build_id is None:
            sources.build_id = image_build_id(image)
    else:
        better = None if image is None else own_kernels.vmlinux_of(image) or given_kernels.vmlinux_of(image)
        if image is not None and better is not None:
            sources = load([str(better)])
            sources.build_id = sources.build_id or image_build_id(image)
            return sources
        kernel = None if image is None else load_image(image)
        if kernel is None:
            return None
        sources = Sources([kernel])
    return sources


def _kernel_of(guest: Running) -> Path | None:
    """The kernel that a guest was booted with; None: a program of ours, or nobody knows."""
    from qemu_sdei import untrusted_files
    from qemu_sdei.config import MAX_CONFIG, GuestConfig
    from qemu_sdei.symbols.sources import booted_file

    try:
        config = GuestConfig.from_json(untrusted_files.read(guest.path / "guest.json", MAX_CONFIG))
        return booted_file(config.boot)
    except SdeiError:
        return None
