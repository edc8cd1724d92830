"""A reader of newc archives of our own, so that the writer is not its own witness."""

from __future__ import annotations


def entries(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, contents and device numbers by path (buffer-format.rst)."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701", f"no header at {at:#x}"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, device, name_size = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        data = (at + 110 + name_size + 3) & -4
        at = (data + size + 3) & -4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        path = name[:-1].decode()
        assert path not in found
        found[path] = (mode, archive[data : data + size], device)
