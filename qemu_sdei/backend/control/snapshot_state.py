"""The state document in hidden guest RAM, so that a snapshot which QEMU writes into a disk image holds it too.

    save                                       load
    freeze                                     freeze
    keep     -> the document lies in RAM       QMP snapshot-load: RAM as it was, the document in it
    QMP snapshot-save                          take-up  <- the document in RAM
    forget                                     forget

It cannot be separated from the machine's state, nor be that of another one. What is read back is hostile all the same:
guests at EL1 can write there. It is not signed, because a guest gains nothing by forging one: all of it is checked as
one from a file is, it concerns the guest's own firmware only, and it counts only while the window beside it has just
the frames, numbers and kicks that it tells of. So an older one that was left in RAM is found out.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Final

from qemu_sdei import bounded
from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.monitor.window import Window

MAGIC: Final = b"SDEIDOC1"
HEADER: Final = struct.Struct("<8sQ32s16x")
"""Magic, bytes of the payload behind the header, their SHA-256. The payload is JSON, by zlib."""
_NOTE: Final = frozenset(("nonce",))
_MAX_NOTE: Final = 64


def write(window: Window, state: state_document.Document, note: dict[str, str]) -> int:
    """Write a state document, and the owner's `note` of itself, into the window. Returns the bytes that it took.

    Raises:
        SdeiError: it is too large.
    """
    payload = zlib.compress(json.dumps({"document": state, "note": note}).encode(), 9)
    size = HEADER.size + len(payload)
    if size > len(window.kept):
        raise SdeiError(
            f"the state document takes {size} bytes, and guest RAM has {len(window.kept)} for it: "
            "this guest cannot have snapshots, only `save`"
        )
    window.kept[HEADER.size : size] = payload
    window.kept[: HEADER.size] = HEADER.pack(MAGIC, len(payload), hashlib.sha256(payload).digest())
    return size


def erase(window: Window) -> None:
    """Leave nothing of a document there."""
    window.kept[:] = bytes(len(window.kept))


def read(window: Window) -> tuple[object, dict[str, str]]:
    """What `write` has written: the document, of which nothing is checked yet, and the note.

    Raises:
        ProtocolError: there is none, or it is damaged.
    """
    magic, length, digest = HEADER.unpack(bytes(window.kept[: HEADER.size]))
    if magic != MAGIC:
        raise ProtocolError("there is no state document in it: it was not saved by `snapshot save`")
    if length > len(window.kept) - HEADER.size:
        raise ProtocolError("the state document in it is damaged (its length)")
    payload = bytes(window.kept[HEADER.size : HEADER.size + length])
    if hashlib.sha256(payload).digest() != digest:
        raise ProtocolError("the state document in it is damaged (its checksum)")
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(payload, state_document.MAX_DOCUMENT)
        if len(data) == state_document.MAX_DOCUMENT:
            raise ProtocolError(f"the state document in it has {state_document.MAX_DOCUMENT >> 20} MiB or more")
        if not stream.eof:
            raise ProtocolError("the state document in it is damaged (its end)")
        found = bounded.loads(data)
    except (zlib.error, ValueError) as error:
        raise ProtocolError(f"the state document in it is damaged: {error}") from None
    if not isinstance(found, dict) or found.keys() != {"document", "note"}:
        raise ProtocolError("the state document in it is damaged (its form)")
    return found["document"], checked_note(found["note"])


def checked_note(note: object) -> dict[str, str]:
    """A note of the owner's, from outside. Raises `ProtocolError`: it has another form."""
    if not isinstance(note, dict) or not note.keys() <= _NOTE:
        raise ProtocolError("the owner's note beside the state document has another form")
    for value in note.values():
        if not isinstance(value, str) or len(value) > _MAX_NOTE or not value.isascii() or not value.isalnum():
            raise ProtocolError("the owner's note beside the state document has another form")
    return note


def take_up(server: Server) -> dict[str, str]:
    """Go on where the document in RAM says; RAM is that of the same moment. Returns the note.

    Raises:
        ProtocolError: it cannot be; `server` is spoiled until a document was taken up.
    """
    state, note = read(server.window)
    top = state_document.check(server, state)
    if top["machine"]["window_version"] != server.guest.machine["window_version"]:
        # QEMU would write ours at the next reset, and not see that it is another than it has translated.
        raise ProtocolError("the snapshot was saved by another version of this program, with another EL3 monitor")
    window = server.window
    for pe, cpu in enumerate(top["cpus"]):
        there = {"seq": window.seq[pe], "kick": window.kick[pe], "frame": window.frames[pe].tolist()}
        if any(cpu[name] != value for name, value in there.items()):
            raise ProtocolError(f"the state document in it is not of this moment: CPU {pe}'s frame is another")
    state_document.restore(server, top)
    return note
