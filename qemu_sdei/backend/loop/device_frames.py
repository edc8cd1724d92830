"""Frames of a guest with UEFI that are accesses to what stage 2 keeps from it, and that are carried out here:

- fw_cfg, of which some is ours (`qemu_sdei.uefi.fw_cfg`);
- stores to the flash that UEFI lies in: nothing comes of them, as in flash. UEFI does that while it looks for its RAM.

No input of the firmware: what the guest reads is no state of it, and the journal has nothing of this. The registers of
the device are in a page of the hidden RAM, which is zeroes after a reset, twice: before the newest access and after it,
with the number of its frame. A backend that dies in between is replaced by one that gets the same frame again, and
begins with the former. All that is written into the frame is computed from words that are not changed.

An access that is QEMU's to answer is done by a micro-operation; the frame that brings its result names the address, and
what it was for stands in the words of EL2 still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.hypervisor import accesses
from qemu_sdei.hypervisor.accesses import Access
from qemu_sdei.hypervisor.instructions import SIZE
from qemu_sdei.hypervisor.stage2 import DEVICE_STATE, FLASH_SIZE, FW_CFG
from qemu_sdei.monitor.layout import EL2_OFFSET, AnswerFlag, Kind, Op, Word
from qemu_sdei.monitor.ops import decode, encode, read_phys, write_phys
from qemu_sdei.uefi.fw_cfg import END, FwCfgDevice, GuestRam, Reply, State

_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_NEWEST: Final = 0
"""Word of the page: which of the two states is the newest, 0 or 1."""
_STATES: Final = (8, 16)
"""Words at which they are: the number of the frame whose access led there, then the state."""
_PE_BITS: Final = 9
_PHYSICAL: Final = frozenset((Op.READ_PHYS, Op.WRITE_PHYS))


class DeviceFrames:
    """These frames of one guest.

    Attributes:
        written: how often guest RAM was written.
    """

    def __init__(self, guest: ServedGuest, log: EventLog, items: Callable[[], Mapping[int, bytes]], ram: GuestRam):
        """`items`: what is ours, by selector, since the last reset of the machine."""
        self.written = 0
        self._guest = guest
        self._log = log
        self._items = items
        self._ram = ram
        window = guest.window
        start = window.base - window.ram_base + EL2_OFFSET + DEVICE_STATE
        self._page = window.ram[start : start + 0x1000].cast("Q")

    def take(self, pe: int, s: int, frame: memoryview) -> bool:
        """Answer a frame that is no call; False: it is none of these, and is left alone."""
        if self._guest.firmware.boot.booting:
            return False
        access = accesses.of(frame[Word.ESR_EL2], frame[Word.FAR_EL2], frame[Word.HPFAR_EL2])
        if access is None:
            return False
        if access.write and access.address < FLASH_SIZE and frame[Word.KIND] == Kind.EXCEPTION:
            self._finish(frame, access, 0)
            return True
        if not FW_CFG <= access.address < END:
            return False
        if frame[Word.KIND] == Kind.OPS:
            if frame[Word.OPS] & 0xFF not in _PHYSICAL or not FW_CFG <= frame[Word.OPS + 1] < END:
                return False
            self._finish(frame, access, decode(frame, 1)[0].value)
            return True
        if frame[Word.KIND] != Kind.EXCEPTION:
            return False
        reply = self._carry_out(s << _PE_BITS | pe, frame, access)
        if reply.refused:
            self._log.note("reject", pe, why=f"{reply.refused} (pc {frame[Word.ELR_EL2]:#x})")
        if reply.forward is None:
            self._finish(frame, access, reply.value)
        else:
            address, size, value = reply.forward
            op = write_phys(address, value, size) if access.write else read_phys(address, size)
            frame[Word.FLAGS] = encode(frame, [op]) | AnswerFlag.REPOST
        return True

    def _carry_out(self, tag: int, frame: memoryview, access: Access) -> Reply:
        page = self._page
        newest = page[_NEWEST] & 1
        if page[_STATES[newest]] == tag:  # somebody has been here, and died before the answer counted
            newest ^= 1
        at = _STATES[newest]
        register = 0 if access.register == accesses.ZERO_REGISTER else frame[Word.X0 + access.register]
        device = FwCfgDevice(self._items(), self._ram)
        reply = device.access(State(*page[at + 1 : at + 4]), access, access.stored(register))
        after = _STATES[newest ^ 1]
        page[after] = tag
        page[after + 1 : after + 4] = memoryview(bytearray(_bytes(reply.state))).cast("Q")
        page[_NEWEST] = newest ^ 1
        self.written += bool(reply.wrote)
        return reply

    @staticmethod
    def _finish(frame: memoryview, access: Access, value: int) -> None:
        """The instruction is done: what it has loaded is `value`."""
        if not access.write and access.register != accesses.ZERO_REGISTER:
            frame[Word.X0 + access.register] = access.loaded(value)
        frame[Word.PC] = frame[Word.ELR_EL2] + SIZE & _M64
        frame[Word.FLAGS] = int(AnswerFlag.ALL)


def _bytes(state: State) -> bytes:
    return b"".join((word & _M64).to_bytes(8, "little") for word in state)
