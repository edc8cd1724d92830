"""Frames of a guest with UEFI that are accesses to what stage 2 keeps from it, and that are carried out here:

- fw_cfg, of which some is ours (`qemu_sdei.uefi.fw_cfg`);
- stores to the flash that UEFI lies in: nothing comes of them, as in flash. UEFI does that while it looks for its RAM.

No input of the firmware: what the guest reads is no state of it, and the journal has nothing of this. What came of the
newest access stands in a page of the hidden RAM, which is zeroes after a reset, with the number of its frame; the next
is written beside it, and then one store makes that the newest. A backend that dies in between is replaced by one that
gets the same frame again, and finds there what came of it, or does it once more. All that is written into the frame is
computed from words that are not changed.

An access that is QEMU's to answer is done by a micro-operation; the frame that brings its result names the address, and
what it was for stands in the words of EL2 still.
"""

from __future__ import annotations

from array import array
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
from qemu_sdei.uefi.fw_cfg import DMA, END, FwCfgDevice, GuestRam, Reply, State

_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_NEWEST: Final = 0
"""Word of the page: which of the two records is the newest, 0 or 1."""
_RECORDS: Final = (8, 24)
"""Words at which they are."""
_WORDS: Final = 10
"""Of a record: the number of the frame, the state after it, what is loaded, what goes to QEMU (address, size, value;
size 0: nothing), the descriptor that is done and its outcome.
"""
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

    @staticmethod
    def writes_ram(frame: memoryview) -> bool:
        """Whether a frame may be the beginning of a DMA transfer."""
        access = accesses.of(frame[Word.ESR_EL2], frame[Word.FAR_EL2], frame[Word.HPFAR_EL2])
        return (
            frame[Word.KIND] == Kind.EXCEPTION and access is not None and access.write and DMA <= access.address < END
        )

    def _carry_out(self, tag: int, frame: memoryview, access: Access) -> Reply:
        page = self._page
        newest = page[_NEWEST] & 1
        device = FwCfgDevice(self._items(), self._ram)
        known = page[_RECORDS[newest] : _RECORDS[newest] + _WORDS].tolist()
        if known[0] == tag:  # somebody has been here, and died before the answer counted
            reply = _reply(known)
        else:
            register = 0 if access.register == accesses.ZERO_REGISTER else frame[Word.X0 + access.register]
            reply = device.access(State(*known[1:4]), access, access.stored(register))
            at = _RECORDS[newest ^ 1]
            page[at : at + _WORDS] = memoryview(array("Q", [tag, *_words(reply)]))
            page[_NEWEST] = newest ^ 1
        device.complete(reply)
        self.written += bool(reply.descriptor)
        return reply

    @staticmethod
    def _finish(frame: memoryview, access: Access, value: int) -> None:
        """The instruction is done: what it has loaded is `value`."""
        if not access.write and access.register != accesses.ZERO_REGISTER:
            frame[Word.X0 + access.register] = access.loaded(value)
        frame[Word.PC] = frame[Word.ELR_EL2] + SIZE & _M64
        frame[Word.FLAGS] = int(AnswerFlag.ALL)


def _words(reply: Reply) -> tuple[int, ...]:
    forward = reply.forward or (0, 0, 0)
    return (*reply.state, reply.value, *forward, reply.descriptor, reply.outcome)


def _reply(words: list[int]) -> Reply:
    """That of a record."""
    _, selector, offset, high, value, address, size, stored, descriptor, outcome = words
    forward = (address, size, stored) if size else None
    return Reply(State(selector, offset, high), value, forward, descriptor, outcome)
