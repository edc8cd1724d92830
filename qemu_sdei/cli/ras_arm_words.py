"""An Arm processor error in the words of QEMU's `scripts/ghes_inject.py arm`: they build the same section."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from qemu_sdei.errors import UsageError

_TYPES: Final = {
    "cache": 1 << 1,
    "tlb": 1 << 2,
    "bus": 1 << 3,
    "micro-arch": 1 << 4,
    "microarch": 1 << 4,
    "vendor": 1 << 4,
}
_FLAGS: Final = {"first": 1, "last": 2, "propagated": 4, "overflow": 8}
_PEI_VALID: Final = {"mult": 1, "flags": 2, "info": 4, "virt": 8, "phy": 16}
_VALID: Final = {"mpidr": 1, "affinity": 2, "running": 4, "vendor": 8}
_DEST: Final = "arm_"
_PEI_SIZE, _CONTEXT_HEAD = 32, 8
_AARCH64_GENERAL, _AARCH64_EL1 = 4, 5


def add(parser: argparse.ArgumentParser) -> None:
    """Add the words."""
    group = parser.add_argument_group(
        "Arm processor, in the words of QEMU's ghes_inject.py",
        "Several values, with spaces between them, make several error informations or contexts.",
    )

    def number(*names: str, **more: Any) -> None:
        dest = _DEST + names[-1].lstrip("-").replace("-", "_")
        group.add_argument(*names, dest=dest, **{"metavar": "N", "type": _number, **more})

    number("--arm", "--arm-valid", type=str, metavar="WORDS", help=f"valid bits: {', '.join(_VALID)}")
    number("-a", "--affinity", "--level", help="error affinity level")
    number("-l", "--mpidr", help="MPIDR_EL1")
    number("-i", "--midr", help="MIDR_EL1")
    group.add_argument(
        "-r", "--running", dest=_DEST + "running", action=argparse.BooleanOptionalAction, help="the processor runs"
    )
    number("--psci", help="PSCI state")
    number("--vendor", type=str, metavar="HEX", help="vendor specific information, hexadecimal digits")
    number("-t", "--type", type=str, nargs="+", metavar="TYPE", help="cache, tlb, bus, micro-arch; several with commas")
    number("-f", "--pei-flags", type=str, nargs="+", metavar="FLAGS", help=f"{', '.join(_FLAGS)}; several with commas")
    number("-V", "--pei-valid", type=str, nargs="+", metavar="WORDS", help="valid bits: mult, flags, info, virt, phy")
    number("-m", "--multiple-error", nargs="+", help="multiple error: 0 one, 1 several, more: how many")
    number("-e", "--error-info", nargs="+", help="error information, 64 bits")
    number("-p", "--physical", nargs="+", metavar="ADDRESS", help="physical fault address")
    number("-v", "--virtual-address", nargs="+", metavar="ADDRESS", help="virtual fault address")
    number("--ctx-type", nargs="+", help="type of register context (4: AArch64 general purpose)")
    number("--ctx-size", nargs="+", help="bytes of its register array, without it as many as there are")
    number("--ctx-array", type=str, nargs="+", metavar="N,N", help="registers, 64 bits each, with commas between them")


def given(args: argparse.Namespace) -> dict[str, Any]:
    """What was said, as the Arm section's table takes it; {}: nothing. Raises `UsageError`."""
    said = {
        name.removeprefix(_DEST): value
        for name, value in vars(args).items()
        if name.startswith(_DEST) and value is not None
    }
    if not said:
        return {}
    found: dict[str, Any] = {}
    for word, field in (("affinity", "error_affinity_level"), ("mpidr", "mpidr_el1"), ("midr", "midr_el1")):
        found[field] = said.get({"affinity": "level"}.get(word, word))
    if "running" in said:
        found["running_state"] = int(said["running"])
    found["psci_state"] = said.get("psci")
    if "vendor" in said:
        found["vendor_specific_information"] = _hexadecimal(said["vendor"])
    informations = _informations(said)
    if informations:
        found["error_information"] = informations
    contexts = _contexts(said)
    if contexts:
        found["context_information"] = contexts
    if "arm_valid" in said:
        found["validation_bits"] = _bits(said["arm_valid"], _VALID)
    return {name: value for name, value in found.items() if value is not None}


def _informations(said: dict[str, Any]) -> list[dict[str, Any]]:
    words: dict[str, Sequence[Any]] = {
        name: said.get(name, ())
        for name in (
            "type", "pei_flags", "pei_valid", "multiple_error", "error_info", "physical", "virtual_address",
        )
    }  # fmt: skip
    count = max(len(values) for values in words.values())
    found = []
    for number in range(count):

        def at(name: str, number: int = number) -> Any:
            values = words[name]
            # One value is meant for all of them.
            return values[number] if number < len(values) else values[0] if len(values) == 1 else None

        flags, valid, kind = at("pei_flags"), at("pei_valid"), at("type")
        each = {
            "type": _bits(kind, _TYPES) if kind is not None else _TYPES["cache"],
            "flags": None if flags is None else _bits(flags, _FLAGS),
            "multiple_error": at("multiple_error"),
            "error_information": at("error_info"),
            "physical_fault_address": at("physical"),
            "virtual_fault_address": at("virtual_address"),
            "validation_bits": None if valid is None else _bits(valid, _PEI_VALID),
        }
        found.append({name: value for name, value in each.items() if value is not None})
    return found


def _contexts(said: dict[str, Any]) -> list[dict[str, Any]]:
    kinds, sizes, arrays = (said.get(name, []) for name in ("ctx_type", "ctx_size", "ctx_array"))
    found = []
    for number in range(max(len(kinds), len(sizes), len(arrays))):
        data = b""
        if number < len(arrays):
            data = b"".join(_number(word).to_bytes(8, "little") for word in arrays[number].split(",") if word)
        if number < len(sizes):
            if sizes[number] > 1 << 16:
                raise UsageError(f"--ctx-size {sizes[number]}: 65536 bytes are most")
            data = data[: sizes[number]].ljust(sizes[number], b"\0")
        kind = kinds[number] if number < len(kinds) else _AARCH64_EL1
        found.append({"register_context_type": kind, "register_array": data})
    return found


def _bits(words: str, names: dict[str, int]) -> int:
    """Bits by their names with commas between them, or a number."""
    found = 0
    for word in words.split(","):
        if word in names:
            found |= names[word]
        else:
            try:
                found |= int(word, 0)
            except ValueError:
                raise UsageError(f"{word[:60]!r} is not one of {', '.join(names)}") from None
    return found


def _hexadecimal(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise UsageError(f"{text[:60]!r} are no hexadecimal digits, two for each byte") from None


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number") from None
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} has more than 64 bits")
    return value
