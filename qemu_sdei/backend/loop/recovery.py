"""Where a backend left a guest, and how another one takes it up: the journal's checkpoint, and recovery from it."""

from __future__ import annotations

import contextlib
from typing import Any

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.backend.firmware.call_counts import taken_up
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.firmware.notices import from_words
from qemu_sdei.backend.loop.journal import Journal, Record
from qemu_sdei.backend.loop.looks import Looks
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import FRAME_WORDS, AnswerFlag, Kind, Word


def checkpoint(guest: ServedGuest, answers: dict[int, memoryview] | None = None) -> None:
    """Replace the journal by the state as it is. `answers`: frames that are answered but not acknowledged yet."""
    guest.ready.collect()
    guest.journal.checkpoint(
        {
            "firmware": guest.firmware.snapshot(),
            "last": list(guest.answered),
            "delivered": guest.firmware.exchange.delivered,
            "calls": {str(f): counts for f, counts in guest.calls.items()},
            "answers": {str(pe): frame.tolist() for pe, frame in (answers or {}).items()},
            "window_version": guest.firmware.machine.monitor,
        }
    )


def recover(guest: ServedGuest) -> bool:
    """Take up the service of a guest where an earlier backend left it. Returns False when there was none.

    Whatever the guest has not taken yet is written again. The caller then kicks every CPU once, because kicks may have
    been lost.

    Raises:
        ProtocolError: the journal is damaged.
    """
    firmware, window = guest.firmware, guest.window
    state = guest.journal.load()
    # A RESET frame that was posted may be in no journal yet: what CPU 0 posted last tells whether a boot is under way.
    posted = window.frames[0]
    booting = posted[Word.KIND] in (Kind.RESET, Kind.OPS) and not posted[Word.VECTOR]
    booting = booting and firmware.boot.is_proven(posted)
    others = power_down.step_of(posted) or Looks.is_one(posted)
    booting = booting and not (posted[Word.KIND] == Kind.OPS and others)
    firmware.boot.booting = booting
    if state is None and guest.journal.count == 0:
        return False
    guest.ready.begin()  # before any state is another one than the guest was told
    last, answers = replay(firmware, guest.journal, window.nr_cpus, state)
    try:
        if state is not None:
            stored = [(int(function), [int(n) for n in counts]) for function, counts in state["calls"].items()]
            if any(len(counts) != window.nr_cpus for _, counts in stored):
                raise ValueError("calls of another number of CPUs")
            taken_up(guest.calls, stored, window.nr_cpus)
            guest.machine["window_version"] = firmware.machine.monitor
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProtocolError(f"journal: checkpoint: {error!r}") from None
    firmware.boot.booting = booting
    window.announce(firmware.machine.monitor)  # before any answer: a CPU that came out of reset looks at it
    # The calls that came after are not counted again, so who has called since is not known.
    firmware.power.started.clear()
    guest.answered[:] = last
    guest.seen[:] = memoryview(bytearray(8 * window.nr_cpus)).cast("Q")
    for pe in range(window.nr_cpus):
        _take_up(guest, pe, answers.get(pe))
    firmware.kicks.clear()
    return True


def replay(
    firmware: Firmware, journal: Journal, nr_cpus: int, state: dict[str, Any] | None
) -> tuple[list[int], dict[int, tuple[int, list[int]]]]:
    """Have a new firmware be what the journal's checkpoint and the records since then make of it. `state`: that
    checkpoint; None: the machine has not booted yet, and all that happened is in the records.

    Returns of each PE the number of the newest frame, and number and words of its answer.

    Raises:
        ProtocolError: the journal is damaged.
    """
    last = [0] * nr_cpus
    answers: dict[int, tuple[int, list[int]]] = {}
    try:
        if state is not None:
            firmware.restore(state["firmware"])
            firmware.exchange.delivered = int(state["delivered"])
            last = _words(state["last"], nr_cpus)
            firmware.machine.monitor = _version(state["window_version"])
            for pe, words in state["answers"].items():
                answers[int(pe)] = (last[int(pe)], _words(words, FRAME_WORDS))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProtocolError(f"journal: checkpoint: {error!r}") from None
    scratch = [memoryview(bytearray(8 * FRAME_WORDS)).cast("Q") for _ in range(nr_cpus)]
    contexts = [frame[layout.CONTEXT] for frame in scratch]
    scratch[0][Word.PROOF] = firmware.boot.proof  # the journal has no others
    scratch[0][Word.MONITOR_VERSION] = firmware.machine.monitor
    for kind, pe, s, body, ops in journal.records():
        if kind == Record.TRIGGER:
            _replay_trigger(firmware, body[0], body[1])
            continue
        if kind == Record.NOTICE:
            _replay_notice(firmware, body.tolist())
            continue
        if pe >= nr_cpus:
            raise ProtocolError(f"journal: record of CPU {pe}")
        frame = scratch[pe]
        if kind == Record.CALLER:
            frame[Word.X30] = body[0]
            continue
        frame[layout.HEAD] = body
        if ops is not None:
            for word, value in enumerate(ops, Word.OPS):
                frame[word] = value
        if kind == Record.INPUT:
            firmware.handle(pe, frame, contexts[pe])
        else:
            firmware.exchange.finish(pe, frame, contexts[pe])
        last[pe] = s
        answers[pe] = (s, frame.tolist())
        firmware.kicks.clear()
    return last, answers


def _version(value: object) -> int:
    """A version of the frame window. Raises ValueError: one that is not served."""
    if type(value) is not int or not layout.OLDEST <= value <= layout.VERSION:
        raise ValueError("a monitor of another version")
    return value


def _words(value: object, count: int) -> list[int]:
    """So many 64-bit words. Raises ValueError: it is something else."""
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{count} words are missing")
    if not all(type(word) is int and 0 <= word < 1 << 64 for word in value):
        raise ValueError("a word that has not 64 bits")
    return value


def _replay_trigger(firmware: Firmware, event: int, target: int) -> None:
    with contextlib.suppress(SdeiError):
        firmware.trigger(event, target - 1 if target else None)


def _replay_notice(firmware: Firmware, body: list[int]) -> None:
    number, kind, target, value, wish = body[:5]
    if kind == 0:
        firmware.notices.withdraw(number)
    else:
        firmware.notices.ask(from_words([number, kind, target - 1, value, wish], firmware.machine.nr_cpus))


def _take_up(guest: ServedGuest, pe: int, answer: tuple[int, list[int]] | None) -> None:
    """Finish the last exchange of a PE, if the guest still waits for it."""
    frame, s = guest.window.frames[pe], guest.window.seq[pe]
    if answer is not None and answer[0] == s:
        if frame[Word.ACK] != s:
            words = answer[1]
            # The journal does not keep X18..X30: they are only ever answered (ALL) with what the firmware put
            # there.
            end = Word.X30 if words[Word.FLAGS] & AnswerFlag.ALL else Word.X17
            for word in (*range(Word.PC, end + 1), *range(Word.OPS, FRAME_WORDS), Word.FLAGS):
                frame[word] = words[word]
            if not words[Word.FLAGS] & AnswerFlag.REPOST:
                frame[Word.PROOF] = 0
            frame[Word.ACK] = s
    else:
        # Calls that keep no state leave no record: the acknowledgement is all that is known of them.
        guest.answered[pe] = max(guest.answered[pe], frame[Word.ACK])
    guest.seen[pe] = guest.answered[pe]
