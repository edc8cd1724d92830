"""Which services a guest finds that another host offers: what is not here must be known before anything is sent."""

from __future__ import annotations

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.smccc.selection import BY_WORD

_WORD = (1 << 64) - 1


def check(selection: object, config: GuestConfig) -> None:
    """Raises.

    Args:
        selection: word of a bitmap register → its value, as the source says.
        config: of the guest.

    Raises:
        ProtocolError: that is of another form.
        UsageError: the guest finds a service that the firmware here does not have.
    """
    if not isinstance(selection, dict) or len(selection) > len(BY_WORD) * 2:
        raise ProtocolError("the offer is not of the form that is known here")
    if not all(
        isinstance(word, str) and type(value) is int and 0 <= value <= _WORD for word, value in selection.items()
    ):
        raise ProtocolError("the offer is not of the form that is known here")
    here = Firmware(1, hypervisor=config.hypervisor, sdei=config.sdei, stolen_time=0).selection
    for word, value in selection.items():
        register = BY_WORD.get(word)
        missing = value & ~here.limit(register) if register is not None else value
        if missing:
            names = [f.word for f in register.features if missing >> f.bit & 1] if register is not None else []
            what = f"{word if register is not None else 'a register'}={','.join(names) or f'{missing:#x}'}"
            raise UsageError(
                f"the guest finds services that the firmware here does not have: {what}; "
                "use the source's version of the program here, or start the guest without them (--services)"
            )
