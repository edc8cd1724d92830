"""What the fuzzer calls with, and which results are allowed: ids of all owners, and argument classes."""

from __future__ import annotations

import random
from typing import Final

from qemu_sdei.backend.firmware.core import affinity
from qemu_sdei.monitor import layout
from qemu_sdei.sdei.constants import PRIVATE_SLOTS, SHARED_SLOTS
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.services.kvm import UUID as KVM
from qemu_sdei.services.kvm import Function as Kvm
from qemu_sdei.services.psci import Function as Psci
from qemu_sdei.services.pv_time import STRIDE
from qemu_sdei.services.pv_time import Function as PvTime
from qemu_sdei.services.trng import RND64, UUID
from qemu_sdei.services.trng import Function as Trng
from tests.backend.simulated import RAM_BASE, RAM_SIZE

M64: Final = (1 << 64) - 1
CPUS: Final = 4
RECORDS: Final = layout.window_base(RAM_BASE, RAM_SIZE) + layout.PV_TIME_OFFSET
SMC64: Final = 1 << 30
EVENTS: Final = (0, 0x100, 0x101, 0x102, 0x103, 0x200, 0x201, 0x202, 0x324)
SLOTS: Final = tuple(PRIVATE_SLOTS + n for n in range(4)) + tuple(SHARED_SLOTS + n for n in range(8))
EL1H: Final = 0x3C5


def _u64(*values: int) -> frozenset[int]:
    return frozenset(value & M64 for value in values)


AFFINITIES: Final = tuple(affinity(pe) for pe in range(CPUS))

ALLOWED: Final[dict[int, frozenset[int]]] = {
    Sdei.VERSION: _u64(0x0001_0001_004B_564D),
    Sdei.EVENT_REGISTER: _u64(0, -2, -3),
    Sdei.EVENT_ENABLE: _u64(0, -2, -3),
    Sdei.EVENT_DISABLE: _u64(0, -2, -3),
    Sdei.EVENT_COMPLETE: _u64(-3),
    Sdei.EVENT_COMPLETE_AND_RESUME: _u64(-3),
    Sdei.EVENT_UNREGISTER: _u64(0, -2, -3, -5),
    Sdei.EVENT_STATUS: _u64(0, 1, 3, 4, 5, 7, -2),
    Sdei.EVENT_GET_INFO: _u64(0, 1, -2, -3, *AFFINITIES),
    Sdei.EVENT_ROUTING_SET: _u64(0, -2, -3),
    Sdei.PE_MASK: _u64(0, 1),
    Sdei.PE_UNMASK: _u64(0),
    Sdei.INTERRUPT_BIND: _u64(*SLOTS, -2, -10),
    Sdei.INTERRUPT_RELEASE: _u64(0, -2, -3),
    Sdei.EVENT_SIGNAL: _u64(0, -2),
    Sdei.FEATURES: _u64(8 << 16 | 4, 0, -2),
    Sdei.PRIVATE_RESET: _u64(0, -3),
    Sdei.SHARED_RESET: _u64(0, -3),
    Psci.PSCI_VERSION: _u64(0x1_0001),
    Psci.CPU_SUSPEND: _u64(0, -2, -3, -9),
    Psci.CPU_ON: _u64(0, -2, -4, -5, -9),
    Psci.AFFINITY_INFO: _u64(0, 1, 2, -2),
    Psci.MIGRATE_INFO_TYPE: _u64(2),
    Psci.PSCI_FEATURES: _u64(0, -1),
    Psci.SYSTEM_SUSPEND: _u64(-3, -9),
    Psci.SYSTEM_RESET2: _u64(-2),
    Trng.VERSION: _u64(0x1_0000),
    Trng.FEATURES: _u64(0, -1),
    Trng.GET_UUID: _u64(int.from_bytes(UUID.bytes[:4], "little")),
    Trng.RND: _u64(0, -2),
    RND64: _u64(0, -2),
    PvTime.FEATURES: _u64(0, -1),
    PvTime.ST: _u64(*(RECORDS + STRIDE * pe for pe in range(CPUS))),
    Kvm.CALL_UID: _u64(int.from_bytes(KVM.bytes[:4], "little")),
    Kvm.FEATURES: _u64(3),
}
"""Results of an ordinary return, by function id. EVENT_CONTEXT's is checked against the context itself."""
for _both in (Psci.CPU_SUSPEND, Psci.CPU_ON, Psci.AFFINITY_INFO, Psci.SYSTEM_SUSPEND, Psci.SYSTEM_RESET2):
    ALLOWED[_both | SMC64] = ALLOWED[_both]

_WEIGHTS: Final = {
    Sdei.EVENT_REGISTER: 22,
    Sdei.EVENT_ENABLE: 22,
    Sdei.EVENT_SIGNAL: 18,
    Sdei.EVENT_COMPLETE: 9,
    Sdei.EVENT_COMPLETE_AND_RESUME: 4,
    Sdei.PE_UNMASK: 12,
    Sdei.EVENT_CONTEXT: 6,
    Sdei.EVENT_DISABLE: 6,
    Sdei.EVENT_UNREGISTER: 6,
    Sdei.INTERRUPT_BIND: 4,
    Sdei.PE_MASK: 3,
    Sdei.PRIVATE_RESET: 1,
    Sdei.SHARED_RESET: 1,
    Psci.CPU_OFF: 1,
    Psci.CPU_ON: 6,
    Psci.CPU_ON | SMC64: 6,
}
MORE_RESULTS: Final = frozenset((Trng.GET_UUID, Trng.RND, RND64, Kvm.CALL_UID, Kvm.FEATURES, Kvm.PTP))
"""Functions that answer in x1 to x3, too."""
_NEVER: Final = frozenset((Psci.SYSTEM_OFF, Psci.SYSTEM_RESET, Psci.SYSTEM_RESET2, Psci.SYSTEM_RESET2 | SMC64))
"""Not in every table: a machine that is reset all the time gets nowhere."""


def functions(rng: random.Random) -> list[int]:
    """256 values of x0."""
    chosen = [int(f) for f in (*Sdei, *ALLOWED) for _ in range(_WEIGHTS.get(f, 2))]
    chosen += [
        int(Kvm.PTP),
        int(Kvm.DISCOVER_IMPL_VER),
        int(Psci.CPU_OFF),
        0x8000_0000,
        0x8000_0001,
        0x8000_0002,
        0x8000_3FFF,
    ]
    if rng.random() < 0.9:
        chosen = [f for f in chosen if f not in _NEVER]
    else:
        chosen.append(rng.choice((int(Psci.SYSTEM_OFF), int(Psci.SYSTEM_RESET))))
    rng.shuffle(chosen)
    chosen = chosen[:228]
    for _ in range(6):  # any owner, any number, fast or yielding, both widths, with and without must-be-zero bits
        owner = rng.randrange(64) << 24
        chosen.append(owner | rng.choice((0, 1 << 31, 3 << 30, 1 << 30)) | rng.choice((rng.randrange(1 << 16), 0x20)))
    for _ in range(6):  # beside what is assigned
        chosen.append(rng.choice((0xC400_0033, 0xC400_003F, 0x8400_0020, 0x8400_0025, 0x8400_000E, 0xC400_0008)))
    for _ in range(8):  # odd upper bits and the SVE hint: the same call
        chosen.append(rng.choice([*map(int, Sdei)]) | rng.getrandbits(32) << 32 | rng.getrandbits(1) << 16)
    while len(chosen) < 256:
        chosen.append(rng.getrandbits(rng.choice((32, 64))))
    return chosen


def _fill(rng: random.Random, good: Pool, bad: Pool, share: float) -> Pool:
    return [rng.choice(good) if rng.random() < share else rng.choice((*bad, rng.getrandbits(64))) for _ in range(64)]


EDGES: Final = (0, 1, 15, 18, 19, 0x203, 288, 1019, 1020, 0x7FFF_FFFF, 1 << 31, 0xFFFF_FFFF, 1 << 32, 1 << 63, M64)
CODE: Final = (0x4100_0000, 0xFFFF_8000_0001_0000, 0x4100_0004)
_TARGETS: Final = tuple(a | high for a in AFFINITIES for high in (0, 1 << 31))
_INTIDS: Final = (16, 27, 30, 31, 32, 33, 47, 40, 287)
_INDICES: Final = (0, 1, 4, 16, 17)
_FIRST: Final = {
    Sdei.EVENT_CONTEXT: _INDICES,
    Sdei.EVENT_COMPLETE_AND_RESUME: CODE,
    Sdei.INTERRUPT_BIND: _INTIDS,
    Sdei.EVENT_SIGNAL: (0, 0, 0, 0x100),
    Sdei.FEATURES: (0, 1, 2),
    Psci.CPU_ON: _TARGETS,
    Psci.CPU_SUSPEND: (0, 1 << 16, 1 << 16, 1 << 16 | 2, 0x0101_0000, 3 << 24),
    Psci.SYSTEM_SUSPEND: CODE,
    Psci.AFFINITY_INFO: _TARGETS,
    Psci.PSCI_FEATURES: tuple(ALLOWED),
    Psci.SYSTEM_RESET2: (0, 1, 1 << 31),
    Trng.FEATURES: (*Trng, RND64),
    Trng.RND: (1, 32, 96, 97),
    RND64: (1, 64, 192, 193),
    PvTime.FEATURES: (*PvTime, RND64),
}
"""What makes sense as x1; for others it is an event."""
_SECOND: Final = {
    Sdei.EVENT_SIGNAL: _TARGETS,
    Sdei.EVENT_GET_INFO: (0, 1, 2, 3, 4),
    Sdei.EVENT_ROUTING_SET: (0, 1),
    Psci.AFFINITY_INFO: (0, 0, 1),
}
"""The same for x2; for others it is an address."""

Pool = list[int]


def calls(rng: random.Random) -> list[tuple[int, Pool, Pool]]:
    """256 times x0, with 64 candidates each for x1 and x2: mostly what makes sense, else edges and random words."""
    wide = [rng.getrandbits(32) << 32 | event for event in EVENTS]
    made: dict[int, tuple[Pool, Pool]] = {}
    for function in {*map(int, Sdei), *ALLOWED}:
        narrow = function if function in _FIRST or function in _SECOND else function & ~SMC64
        first = _FIRST.get(narrow, (*EVENTS * 6, *wide, *SLOTS))
        second = _SECOND.get(narrow, CODE)  # type: ignore[call-overload]
        made[function] = _fill(rng, [*first], [*EDGES, *_INTIDS], 0.92), _fill(rng, [*second], [*EDGES, 2], 0.92)
    junk = _fill(rng, [*EDGES], [*EVENTS], 0.5), _fill(rng, [*EDGES], [*CODE], 0.5)
    return [(f, *made.get(f & 0xFFFE_FFFF, junk)) for f in functions(rng)]


def pools(rng: random.Random) -> list[Pool]:
    """64 candidates each for x3 (an affinity, or a handler's argument), x4 (flags) and x5 (an affinity)."""
    shares = (([*_TARGETS], 0.7), ([0, 0, 1], 0.94), ([*_TARGETS], 0.9))
    return [_fill(rng, good, [*EDGES], share) for good, share in shares]


def modes(rng: random.Random) -> list[int]:
    """64 values of PSTATE: nearly always EL1h; what cannot be too, because the frame is guest memory."""
    odd = [0x3C4, 0x3C0, 0x1F0, 0x3C9, 0x3CD, 0x1D3, rng.getrandbits(64)]
    return [EL1H | rng.getrandbits(4) << 28 for _ in range(61)] + rng.sample(odd, 3)
