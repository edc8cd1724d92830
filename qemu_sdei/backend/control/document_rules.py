"""What the parts of a state document must agree on. Each part has been checked by itself when this is asked.

A document that contradicts itself would be taken, and its guest hang later on: a CPU waits for an answer that was
given, an interrupt stays off for ever, a call waits for another CPU's work. Each rule here names what would come of it.

Some words of a frame are the guest's to forge, as the window is in its RAM. Where a rule is about these, `put_right`
has them say what they must before a document is written, so that no guest can forge itself out of being migrated.
Nothing is said of DONE, which is not looked at, and of FLAGS of a CPU that is off. And whether a CPU has posted the
frame after the one that was answered last, only SEQ tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.backend.firmware import power_down
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import AFFINITY_MASK
from qemu_sdei.sdei.events import ANY_PE
from qemu_sdei.sdei.interrupts import FIRST_SPI, Wanted
from qemu_sdei.sdei.pstate import CpuFeatures
from qemu_sdei.services.psci import Power

if TYPE_CHECKING:  # as in `state_document`
    from qemu_sdei.backend.loop.served_guest import ServedGuest

_MAX_SEQ: Final = 1 << 47
_ANSWERED: Final = int(AnswerFlag.PARK | AnswerFlag.WFI | AnswerFlag.ALL)
"""Flags that the answer of a job can have."""

Document = dict[str, Any]


def put_right(guest: ServedGuest, pe: int) -> None:
    """SEQ, ACK, MPIDR_EL1 and REPOST of a CPU, if its guest has forged them: before its state is written down."""
    seq, frame, answered = guest.window.seq, guest.window.frames[pe], guest.answered[pe]
    if frame[Word.MPIDR_EL1] & AFFINITY_MASK != guest.firmware.machine.affinities[pe]:
        frame[Word.MPIDR_EL1] = 0
    if answered == 0:
        return  # of a guest that ran before nothing is known until its next frame
    if not _follows(seq[pe], answered, frame.tolist(), guest):
        seq[pe] = answered
    if frame[Word.ACK] != answered:
        frame[Word.ACK] = answered
    ownership = guest.firmware.ownership
    if pe in ownership.jobs or pe in ownership.quieting:
        frame[Word.FLAGS] |= AnswerFlag.REPOST
        if seq[pe] != answered:
            frame[Word.KIND] = Kind.OPS
    elif not _comes_up(guest, pe, frame) and not (pe == 0 and guest.firmware.boot.booting):
        frame[Word.FLAGS] &= ~int(AnswerFlag.REPOST)


def check(guest: ServedGuest, document: Document) -> None:
    """Whether the parts of a document agree, of which `guest.firmware` has been made already.

    Raises:
        ProtocolError: they do not.
    """
    for pe, cpu in enumerate(document["cpus"]):
        _check_numbers(pe, cpu, guest)
        _check_frame(pe, cpu["frame"], guest)
    firmware = document["firmware"]
    _check_power(guest, firmware)
    _check_life(guest, firmware)
    _check_counts(document)
    _check_gic(guest, document)
    _check_waiting(guest, document["waiting"])


def _refuse(what: str) -> ProtocolError:
    return ProtocolError(f"state document: {what}")


def _follows(seq: int, answered: int, frame: list[int], guest: ServedGuest) -> bool:
    """Whether frame `seq` is the newest after `answered`: that one, the next one, the first that is seen of a guest
    that ran before, or that of a reset, which follows no matter what was forged before it.
    """
    done = frame[layout.done_word(guest.firmware.machine.monitor)]
    if seq in (answered, answered + 1) or (answered == 0 and seq == done + 1):
        return True
    return frame[Word.KIND] == Kind.RESET and seq != done and seq < _MAX_SEQ


def _check_numbers(pe: int, cpu: Document, guest: ServedGuest) -> None:
    """Else the CPU waits for an answer that does not come: its next frame would not be taken for the monitor's."""
    seq, answered, frame = cpu["seq"], cpu["answered"], cpu["frame"]
    if frame[Word.ACK] > answered:
        raise _refuse(f"CPU {pe}: an answer to a frame that was not seen")
    if not _follows(seq, answered, frame, guest):
        raise _refuse(f"CPU {pe}: its newest frame is {seq:#x}, which does not follow {answered:#x}, answered last")
    if frame[Word.ACK] != answered:
        raise _refuse(f"CPU {pe}: frame {answered:#x} was answered, and has no answer")


def _check_frame(pe: int, frame: list[int], guest: ServedGuest) -> None:
    """Each CPU's own: the monitor has put its affinity there when it came out of reset."""
    if frame[Word.MPIDR_EL1] and frame[Word.MPIDR_EL1] & AFFINITY_MASK != guest.firmware.machine.affinities[pe]:
        raise _refuse(f"CPU {pe}: its frame is that of another CPU, by MPIDR_EL1")


def _check_power(guest: ServedGuest, firmware: Document) -> None:
    """PSCI and SDEI must be of one mind on which CPUs are on."""
    psci, booting = guest.firmware.psci, guest.firmware.boot.booting
    for pe, entry in enumerate(firmware["sdei"]["pes"]):
        power, start = psci.power[pe], psci.entry[pe]
        if entry["on"] and power is not Power.ON:
            raise _refuse(f"CPU {pe} is on for SDEI, and {power.name} for PSCI")
        if power is Power.ON and not entry["on"] and not (pe == 0 and booting):
            raise _refuse(f"CPU {pe} is ON for PSCI, and off for SDEI")
        if (power is Power.ON_PENDING) is (start is None):
            raise _refuse(f"CPU {pe} is {power.name}: its entry point contradicts")
        if start is not None and start[0] & 3:
            raise _refuse(f"CPU {pe} is to start at {start[0]:#x}, which is no address of an instruction")


def _check_life(guest: ServedGuest, firmware: Document) -> None:
    """What a machine knows of itself since its boot."""
    anything = any(pe["on"] for pe in firmware["sdei"]["pes"]) or firmware["sdei"]["shared"]
    registers, epoch = firmware["id_registers"], firmware["epoch"]
    if bool(registers) is not (epoch > 0):
        raise _refuse(f"epoch is {epoch}, and id_registers contradict: a boot brings them")
    if anything and epoch == 0:
        raise _refuse("a CPU is on, or an event registered, in a machine that has not booted (epoch is 0)")
    if anything and firmware.get("booting", False):
        raise _refuse("a CPU is on, or an event registered, while the machine boots")
    if registers and guest.firmware.dispatcher.features != CpuFeatures.from_id_registers(registers):
        raise _refuse("sdei: features: the CPUs' id_registers say other ones")


def _instances(sdei: Document) -> dict[tuple[int, int], Document]:
    """Each event that is not unregistered, by number and PE, -1 of a shared one."""
    found = {(entry["event"], ANY_PE): entry for entry in sdei["shared"]}
    for pe, part in enumerate(sdei["pes"]):
        found |= {(entry["event"], pe): entry for entry in part["events"]}
    return found


def _check_counts(document: Document) -> None:
    """Accepted = merged + dropped + delivered + pending, for each event and with the state of each."""
    firmware = document["firmware"]
    if "triggers" not in firmware:
        return
    pending = {key for key, entry in _instances(firmware["sdei"]).items() if entry["pending"]}
    delivered = 0
    for event, pe, accepted, *rest in firmware["triggers"]:
        left = accepted - sum(rest)
        if left != ((event, pe) in pending):
            raise _refuse(
                f"triggers: event {event:#x}: {left} of them wait by their numbers, which its state contradicts"
            )
        pending.discard((event, pe))
        delivered += rest[-1]
    for event, _ in pending:
        raise _refuse(f"triggers: event {event:#x} is pending, and was never triggered")
    if delivered > document["counters"]["delivered"]:
        raise _refuse("triggers: more handlers were entered than counters: delivered says")


def _check_gic(guest: ServedGuest, document: Document) -> None:
    """Interrupts are owned for bound events that are registered, and for no others, but for those that somebody is
    about to see to; whoever is, is in an exchange of micro-operations. Else an interrupt stays off, or a call waits.
    """
    firmware = document["firmware"]
    gic = guest.firmware.ownership.snapshot()
    written = firmware["gic"]
    jobs = {job["pe"]: job for job in gic["jobs"]}
    quieting = dict(gic["quieting"])
    if len(jobs) < len(written["jobs"]) or len(quieting) < len(written["quieting"]) or jobs.keys() & quieting.keys():
        raise _refuse("gic: a CPU is in two exchanges at once")
    owned = {(entry[0], entry[1]) for entry in gic["owned"]}
    spis = set(gic["spis"])
    if len(owned) < len(written["owned"]) or len(spis) < len(gic["spis"]):
        raise _refuse("gic: an interrupt is there twice")
    for pe, job in jobs.items():
        _check_job(pe, job, gic["operator"])
    if (gic["operator"] != -1 and not spis) or not set(gic["settling"]) <= spis:
        raise _refuse("gic: SPIs are settling, or have an operator, that nobody is to see to")
    for pe, intid in quieting.items():
        if (intid, -1) not in owned:
            raise _refuse(f"gic: CPU {pe} has taken interrupt {intid}, which is not owned")
    for pe, cpu in enumerate(document["cpus"]):
        busy = pe in jobs or pe in quieting
        others = _comes_up(guest, pe, cpu["frame"]) or (pe == 0 and guest.firmware.boot.booting)
        if busy is not _operations_in_flight(cpu) and (busy or not others):
            raise _refuse(f"CPU {pe}: its frame and gic contradict: in one of them it does micro-operations")
    seen_to = {(intid, -1) for intid in (*spis, *quieting.values())}
    for job in jobs.values():
        seen_to |= {tuple(claim) for claim in (*job["todo"], job["looking"], job["registering"]) if claim}
    _check_owned(guest, gic, seen_to, firmware["sdei"].get("bound", []))


def _operations_in_flight(cpu: Document) -> bool:
    """The answer to the newest frame that was answered was to do micro-operations and come back."""
    came_back = cpu["seq"] == cpu["answered"] or cpu["frame"][Word.KIND] == Kind.OPS
    return came_back and bool(cpu["frame"][Word.FLAGS] & AnswerFlag.REPOST)


def _comes_up(guest: ServedGuest, pe: int, frame: memoryview | list[int]) -> bool:
    """The micro-operations are those of a power-down's end, which are nobody's but the frame's own."""
    firmware = guest.firmware
    return 0 < power_down.step_of(frame) < power_down.Step.END and firmware.psci.power[pe] is not Power.OFF


def _check_job(pe: int, job: Document, operator: int) -> None:
    claims = [*job["todo"], *(claim for claim in (job["looking"], job["registering"]) if claim)]
    if any(owner not in (-1, pe) for _, owner in claims) or any(owner == -1 for _, owner in job["todo"]):
        raise _refuse(f"gic: CPU {pe} sees to interrupts of another CPU")
    if job["looking"] and job["looking"][1] == -1 and operator != pe:
        raise _refuse(f"gic: CPU {pe} sees to an SPI, and is not the operator")
    if job["flags"] & ~_ANSWERED:
        raise _refuse(f"gic: CPU {pe}: its answer has flags {job['flags']:#x}, which no answer has")


def _check_owned(guest: ServedGuest, gic: Document, seen_to: set[Any], bound: list[list[int]]) -> None:
    dispatcher, psci = guest.firmware.dispatcher, guest.firmware.psci
    owned = {(entry[0], entry[1]) for entry in gic["owned"]}
    quiet = {(entry[0], entry[1]) for entry in gic["owned"] if entry[4]}
    for intid, pe in owned - seen_to:
        if pe != ANY_PE and psci.power[pe] is not Power.ON:
            continue  # what a CPU owned that broke is given back when it is started again
        wanted = dispatcher.wanted(intid, pe)
        if wanted is Wanted.FREE:
            raise _refuse(f"gic: interrupt {intid} is owned, and no event is registered for it")
        if wanted is Wanted.LISTEN and (intid, pe) in quiet:
            raise _refuse(f"gic: interrupt {intid} is quiet, and its event neither pending nor running")
    for number, intid in bound:
        for pe in range(guest.firmware.machine.nr_cpus) if intid < FIRST_SPI else (ANY_PE,):
            if dispatcher.wanted(intid, pe) is not Wanted.FREE and (intid, pe) not in owned | seen_to:
                raise _refuse(f"gic: event {number:#x} is registered, and its interrupt {intid} not owned")


def _check_waiting(guest: ServedGuest, waiting: list[Document]) -> None:
    """Each has a ticket of its own, and waits for an event that there is. (Who waits for what cannot come is told so:
    KVM's registers can bring that about, and it is the client's loss.)
    """
    tickets = {entry["ticket"] for entry in waiting}
    if len(tickets) < len(waiting):
        raise _refuse("waiting: two have the same ticket")
    known = {event.number for event in guest.firmware.dispatcher.events()}
    for entry in waiting:
        if entry["event"] not in known:
            raise _refuse(f"waiting: there is no event {entry['event']:#x}")


def outstanding(guest: ServedGuest) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """What a client can wait for: (event, PE or -1 for a shared one) of all that is pending, and (event, PE) of all
    handlers that run.
    """
    dispatcher = guest.firmware.dispatcher
    pending = {key for key, entry in _instances(dispatcher.snapshot()).items() if entry["pending"]}
    running = {(event, pe) for pe in range(guest.firmware.machine.nr_cpus) for event in dispatcher.running(pe)}
    return pending, running
