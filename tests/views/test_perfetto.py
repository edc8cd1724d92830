"""Files for Perfetto, read back by the classes of Perfetto's own package."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from qemu_sdei.errors import UsageError
from qemu_sdei.views.perfetto import Written, write_perfetto
from tests.examples import examples
from tests.trace.records import META, START, Maker, Record, one_of_each

MONOTONIC, REALTIME = pb.BUILTIN_CLOCK_MONOTONIC, pb.BUILTIN_CLOCK_REALTIME
BEGIN, END = pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END
INSTANT, COUNTER = pb.TrackEvent.TYPE_INSTANT, pb.TrackEvent.TYPE_COUNTER


class ReadBack:
    """A file that was read back."""

    def __init__(self, records: Iterable[Record]) -> None:
        out = io.BytesIO()
        self.summary: Written = write_perfetto(out, META, records)
        self.trace = pb.Trace()
        self.trace.ParseFromString(out.getvalue())
        packets = self.trace.packet
        self.tracks = {p.track_descriptor.uuid: p.track_descriptor for p in packets if p.HasField("track_descriptor")}
        self.events = [packet for packet in packets if packet.HasField("track_event")]

    def on(self, track: str) -> list[Any]:
        """TrackEvents of the track with that name, by their time."""
        (uuid,) = (uuid for uuid, described in self.tracks.items() if described.name == track)
        found = [packet for packet in self.events if packet.track_event.track_uuid == uuid]
        return [packet.track_event for packet in sorted(found, key=lambda packet: packet.timestamp)]

    def slices(self, track: str) -> list[tuple[str, int]]:
        """Names and depths of a track's slices; each END closes one that is open."""
        found, depth = [], 0
        for event in self.on(track):
            if event.type == BEGIN:
                found.append((event.name, depth))
                depth += 1
            elif event.type == END:
                depth -= 1
                assert depth >= 0
        return found

    def counts(self, track: str) -> list[int]:
        return [event.counter_value for event in self.on(track) if event.type == COUNTER]

    def named(self, name: str) -> Any:
        (event,) = (packet.track_event for packet in self.events if packet.track_event.name == name)
        return event


def flow_of(event: Any) -> list[int]:
    return [*event.flow_ids, *event.terminating_flow_ids]


def test_a_critical_handler_is_a_slice_inside_the_normal_one() -> None:
    m = Maker()
    normal, critical = 0, 0x104
    file = ReadBack([m.deliver(1, normal), m.deliver(1, critical), m.complete(1, critical), m.complete(1, normal)])
    assert file.slices("vCPU 1") == [("event 0x0 software", 0), ("event 0x104 watchdog", 1)]
    assert [event.type for event in file.on("vCPU 1") if event.type in (BEGIN, END)] == [BEGIN, BEGIN, END, END]
    assert file.summary.handlers == 2
    assert not file.slices("vCPU 0")


def test_arrows_lead_from_a_signal_to_the_handler_and_its_end() -> None:
    m = Maker()
    file = ReadBack(
        [
            m.call(0, "SDEI_EVENT_SIGNAL", event=0, target=1),
            m.kick(1),
            m.deliver(1, 0),
            m.call(1, "SDEI_EVENT_COMPLETE", None, "resumes", status=0),
            m.complete(1, 0),
        ]
    )
    signal, handler = file.named("SDEI_EVENT_SIGNAL"), file.named("event 0x0 software")
    end = file.named("SDEI_EVENT_COMPLETE")
    assert list(signal.flow_ids) == list(handler.flow_ids) == list(end.terminating_flow_ids) == [1]
    assert file.counts("vCPU 1 pending events") == [1, 0]


def test_a_signal_to_the_own_vcpu_that_ends_in_the_handler_has_its_arrow() -> None:
    m = Maker()
    signal = m.call(0, "SDEI_EVENT_SIGNAL", None, "handler", event=0, target=0)
    file = ReadBack([signal, m.deliver(0, 0)])
    assert list(file.named("SDEI_EVENT_SIGNAL").flow_ids) == list(file.named("event 0x0 software").flow_ids) == [1]
    refused = ReadBack([m.call(0, "SDEI_EVENT_SIGNAL", -3, event=0, target=0), m.deliver(0, 0)])
    assert not list(refused.named("event 0x0 software").flow_ids)


def test_an_arrow_leads_from_the_host_s_trigger() -> None:
    """Of a shared event the vCPU is not known before it is delivered."""
    m = Maker()
    records = [
        m.make("trigger", 1, event=0, by="host", outcome="pending", why=None),
        m.make("trigger", 1, event=0, by="host", outcome="merged", why=None),
        m.make("trigger", 1, event=7, by="host", outcome="refused", why="it is not registered"),
        m.make("trigger", None, event=0x200, by="interrupt", outcome="pending", why=None),
        m.deliver(1, 0),
        m.deliver(0, 0x200),
    ]
    file = ReadBack(records)
    first, second, refused, shared = file.on("host")
    assert flow_of(file.named("event 0x0 software")) == [*first.flow_ids, *second.flow_ids] == [1, 2]
    assert not flow_of(refused)
    assert flow_of(file.named("event 0x200")) == list(shared.flow_ids) == [3]
    assert file.counts("pending events, no vCPU yet") == file.counts("vCPU 1 pending events") == [1, 0]


@pytest.mark.parametrize(
    "gone",
    [
        lambda m: m.transition(1, 0, "registered", "unregistered", "UNREGISTER"),
        lambda m: m.transition(1, 0, "enabled", "unregistered", "RESET"),
        lambda m: m.make("boot", None, epoch=2),
    ],
)
def test_what_is_cancelled_is_not_pending(gone: Any) -> None:
    m = Maker()
    file = ReadBack([m.make("trigger", 1, event=0, by="host", outcome="pending", why=None), gone(m)])
    assert file.counts("vCPU 1 pending events") == [1, 0]


def test_a_handler_whose_vcpu_goes_off_or_is_reset_ends() -> None:
    m = Maker()
    begun = m.deliver(0, 0)
    off = m.transition(0, 0, "running", "unregistered", "PE_RESET")
    file = ReadBack([begun, off, m.deliver(1, 0), m.make("boot", None, epoch=2), m.deliver(1, 0)])
    assert [event.type for event in file.on("vCPU 0")][:2] == [BEGIN, END]
    assert [event.type for event in file.on("vCPU 1")] == [BEGIN, END, BEGIN]  # the last one runs still


def test_a_handler_does_not_end_before_it_begins() -> None:
    """Where it ended by the guest's counter and began by the host's clock, of which one may be off."""
    m = Maker()
    begin, end = m.deliver(0, 0), m.complete(0, 0)
    file = ReadBack([begin, {**end, "at_ns": begin["at_ns"] - 5_000}])
    assert [event.type for event in file.on("vCPU 0") if event.type in (BEGIN, END)] == [BEGIN, END]


def test_an_end_of_a_handler_that_began_before_the_trace_is_no_slice() -> None:
    m = Maker()
    file = ReadBack([m.complete(0, 0), m.deliver(0, 0x104), m.complete(0, 0), m.complete(0, 0x104)])
    assert [event.type for event in file.on("vCPU 0") if event.type in (BEGIN, END)] == [BEGIN, END]


def test_calls_have_arguments_results_and_symbols() -> None:
    m = Maker()
    call = {**m.call(0, "SDEI_EVENT_ENABLE", -3, event=0x77), "pc_symbol": "invoke_sdei_fn+0x2c"}
    event = ReadBack([call]).named("SDEI_EVENT_ENABLE: DENIED")
    notes = {note.name: note for note in event.debug_annotations}
    assert notes["event"].pointer_value == 0x77
    assert notes["result"].int_value == -3
    assert notes["pc_symbol"].string_value == "invoke_sdei_fn+0x2c"
    assert notes["time may be off by, ns"].int_value == 12_000
    assert notes["result_name"].string_value == "DENIED"
    assert list(event.categories) == ["refused", "call"]


def test_power_is_a_track_of_states() -> None:
    m = Maker()
    states = [("off", "on-pending"), ("on-pending", "on"), ("on", "off")]
    file = ReadBack([m.make("power", 1, **{"from": old, "to": new}) for old, new in states])
    assert file.slices("vCPU 1 power") == [("on-pending", 0), ("on", 0), ("off", 0)]


def test_times_are_the_host_s_monotonic_clock_tied_to_real_time() -> None:
    file = ReadBack([Maker().kick(0)])
    (snapshot,) = (p.clock_snapshot for p in file.trace.packet if p.HasField("clock_snapshot"))
    clocks = {clock.clock_id: clock.timestamp for clock in snapshot.clocks}
    assert clocks == {MONOTONIC: START, REALTIME: META["realtime_ns"]}
    assert snapshot.primary_trace_clock == MONOTONIC
    (event,) = file.events
    assert (event.timestamp, event.timestamp_clock_id) == (START + 10_000, MONOTONIC)
    assert all(packet.trusted_packet_sequence_id for packet in file.trace.packet)


def test_every_track_hangs_below_the_guest() -> None:
    file = ReadBack(one_of_each())
    names = {uuid: described.name for uuid, described in file.tracks.items()}
    assert names[1] == "guest demo"
    for uuid, described in file.tracks.items():
        assert uuid == 1 or described.parent_uuid in file.tracks
    assert {"host", "vCPU 0", "vCPU 1", "vCPU 0 ftrace", "vCPU 1 power"} <= set(names.values())
    assert all(packet.track_event.track_uuid in file.tracks for packet in file.events)
    assert file.summary.records == len(one_of_each())


def test_a_long_trace_is_written_piece_by_piece() -> None:
    m = Maker()

    def many() -> Iterable[Record]:
        for _ in range(3_000):
            yield m.deliver(0, 0)
            yield m.complete(0, 0)

    file = ReadBack(many())
    assert len(file.slices("vCPU 0")) == file.summary.handlers == 3_000


@given(st.sampled_from(one_of_each()), st.data())
@settings(max_examples=examples(60, 400))
def test_whatever_fields_a_record_has_the_file_can_be_read(record: Record, data: st.DataObject) -> None:
    common = {"n", "type", "vcpu", "time_ns", "counter", "at_ns", "at_error_ns"}
    anything = st.one_of(st.none(), st.integers(), st.text(max_size=9), st.lists(st.integers(), max_size=2))
    names = st.sampled_from(sorted(record.keys() - common) or ["x"])
    damaged = record | data.draw(st.dictionaries(names, anything, max_size=3))
    damaged |= {"at_ns": data.draw(st.integers()), "vcpu": data.draw(st.one_of(st.none(), st.integers()))}
    for name in data.draw(st.sets(names, max_size=2)):
        del damaged[name]
    file = ReadBack([damaged, Maker().make("note", 0, name="the one behind it")])
    assert file.summary.records == 2
    assert file.named("the one behind it")


def test_text_of_a_guest_s_is_made_harmless() -> None:
    m = Maker()
    line = m.make("ftrace", 0, task="\x1b[2J", pid=1, flags="", event="a\nb", text="\u202e", guest_ns=0)
    (event,) = ReadBack([line]).on("vCPU 0 ftrace")
    assert event.name == "a\\nb"
    assert all(note.string_value.isprintable() for note in event.debug_annotations)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("perfetto"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"^[^\n]*pip install 'qemu-sdei\[perfetto\]'$"):
        write_perfetto(io.BytesIO(), META, [])
