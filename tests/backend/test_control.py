"""The control socket: what a client may ask, and that no client can stop, slow down for good, or break the backend.

The server's loop is driven turn by turn in this process: a client's bytes are in its socket as soon as they are sent,
so nothing waits.
"""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from qemu_sdei.backend.control import connections, control_socket
from qemu_sdei.backend.control.control_socket import Control
from qemu_sdei.guest import control_client, control_connection
from qemu_sdei.monitor.layout import Word
from qemu_sdei.sdei.constants import Function
from qemu_sdei.services.psci import Function as Psci
from tests.backend.controlled import PRIVATE, SHARED, Backend, Peer

# ---- commands -------------------------------------------------------------------------------------------------------


def test_hello_says_who_serves(peer: Peer) -> None:
    answer = peer.ask(id=7, cmd="hello")
    assert answer["id"] == 7
    hello = answer["result"]
    assert {"name": "tester", "nr_cpus": 2, "epoch": 1, "protocol": control_client.PROTOCOL}.items() <= hello.items()
    assert hello["pid"] > 0


def test_client_and_server_speak_one_protocol() -> None:
    assert (control_client.PROTOCOL, control_connection.MAX_LINE) == (control_socket.PROTOCOL, connections.MAX_LINE)


def test_status_shows_power_masks_events_and_counts(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    status = peer.result(cmd="status")
    assert [pe["power"] for pe in status["pes"]] == ["on", "off"]
    assert [pe["masked"] for pe in status["pes"]] == [False, True]
    assert status["pes"][0]["calls"] == {"SDEI_EVENT_REGISTER": 1, "SDEI_EVENT_ENABLE": 1, "SDEI_PE_UNMASK": 1}
    (software,) = (event for event in status["events"] if event["event"] == 0)
    assert [instance["enabled"] for instance in software["instances"]] == [True, False]
    zero = dict.fromkeys(("accepted", "merged", "dropped", "delivered", "completed", "rejected"), 0)
    assert status["counts"] == {"calls": 3} | zero
    assert status["name"] == "tester"


def test_status_says_since_when_and_why(backend: Backend, peer: Peer) -> None:
    """Times are the backend's clock; what a pending event waits for is a sentence."""
    first = peer.result(cmd="status")
    assert first["started_ns"] < first["reset_ns"] < first["now_ns"]
    backend.enable(0)
    status = peer.result(cmd="status")
    software = _instances(status)[0]
    assert (software["state"], software["waits"]) == ("enabled", None)
    assert first["reset_ns"] <= software["since_ns"] < status["now_ns"], "as of the last look at the clock"
    assert peer.result(cmd="inject", event=0, vcpu=0)["outcome"] == "queued"
    assert _instances(peer.result(cmd="status"))[0]["waits"] is None, "it is on its way"
    backend.kick()
    assert peer.result(cmd="inject", event=0, vcpu=0)["outcome"] == "queued"
    running = _instances(peer.result(cmd="status"))[0]
    assert running["state"] == "running"
    assert running["waits"] == "event 0x0 (software) waits for its own handler, which still runs on PE 0"
    assert running["since_ns"] > status["now_ns"]
    backend.server.log.look()  # as the loop does now and then
    backend.call(0, Function.EVENT_COMPLETE, 0)  # the second one follows at once
    backend.call(0, Function.EVENT_COMPLETE, 0)
    after = _instances(peer.result(cmd="status"))[0]
    assert (after["state"], after["since_ns"]) == ("enabled", software["since_ns"]), "handlers came and went"
    backend.call(0, Function.EVENT_DISABLE, 0)
    disabled = _instances(peer.result(cmd="status"))[0]
    assert disabled["state"] == "registered"
    assert disabled["since_ns"] > running["since_ns"]


def test_status_says_where_a_vcpu_was_last(backend: Backend, peer: Peer) -> None:
    backend.call(0, Function.PE_UNMASK)
    backend.call(0, Function.VERSION)  # always answers the same, and is only counted
    frame = backend.guest.window.frames[0]
    frame[Word.FUNCTION] = 0x4000_0000  # a vCPU that passes a kick on saves its registers there, and posts nothing
    on, off = peer.result(cmd="status")["pes"]
    assert on["last_call"] == "SDEI_PE_UNMASK"
    assert (on["pc"], on["pstate"]) == (frame[Word.PC], frame[Word.PSTATE])
    assert (off["power"], off["pc"], off["pstate"], off["last_call"]) == ("off", None, None, None)
    assert on["power_since_ns"] is not None
    backend.start_cpu_1()
    after = peer.result(cmd="status")["pes"]
    assert after[1]["power_since_ns"] > after[0]["power_since_ns"]
    assert [pe["last_call"] for pe in after] == ["CPU_ON", None], "a kick has brought it to the firmware since"
    for function in (Function.PE_UNMASK, Function.PE_MASK):
        backend.call(1, function)
    assert [pe["last_call"] for pe in peer.result(cmd="status")["pes"]] == ["CPU_ON", "SDEI_PE_MASK"]


def test_states_that_were_replaced_have_no_time(backend: Backend, peer: Peer) -> None:
    """KVM's registers change them by no transition."""
    backend.enable(0)
    assert _instances(peer.result(cmd="status"))[0]["since_ns"] is not None
    backend.server.replace_sdei(backend.server.firmware.dispatcher.snapshot())
    assert _instances(peer.result(cmd="status"))[0]["since_ns"] is None


def _instances(status: dict[str, Any]) -> list[dict[str, Any]]:
    (event,) = (event for event in status["events"] if event["event"] == 0)
    return list(event["instances"])


def test_inject_makes_the_event_pending_and_a_second_one_merges(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    assert peer.result(cmd="inject", event=0, vcpu=0) == {"outcome": "queued", "reason": None}
    assert peer.result(cmd="inject", event=0, vcpu=0) == {"outcome": "merged", "reason": None}
    assert backend.kick() == [0]
    assert peer.result(cmd="status")["pes"][0]["running"] == [0]


def test_inject_says_what_stands_in_the_way(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    backend.call(0, Function.PE_MASK)
    answer = peer.result(cmd="inject", event=0, vcpu=0)
    assert answer["outcome"] == "queued"
    assert "PE 0 is masked" in answer["reason"]
    assert answer["reason"] == peer.result(cmd="why", event=0, vcpu=0)["reason"]
    assert peer.result(cmd="why", event=PRIVATE, vcpu=0) == {
        "reason": "event 0x100 (private-a) is not registered on PE 0"
    }


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        ({"event": 77, "vcpu": 0}, "usage", "there is no event 0x4d"),
        ({"event": 0, "vcpu": 9}, "usage", "there is no PE 9"),
        ({"event": 0}, "usage", "private: say for which PE"),
        ({"vcpu": 0}, "usage", "event is a number"),
        ({"event": "0", "vcpu": 0}, "usage", "event is a number"),
        ({"event": -1, "vcpu": 0}, "usage", "event is a number"),
        ({"event": 1 << 40, "vcpu": 0}, "usage", "event is a number"),
        ({"event": 0, "vcpu": 0.5}, "usage", "vcpu is a number"),
        ({"event": False, "vcpu": 0}, "usage", "event is a number"),
        ({"event": 0, "vcpu": 0}, "state", "event 0x0 (software) is not registered on PE 0"),
        ({"event": 0, "vcpu": 1}, "state", "PE 1 is off"),
        ({"event": SHARED}, "state", "not registered"),
    ],
)
def test_inject_errors_say_what_is_wrong(
    peer: Peer, request_: dict[str, Any], kind: str, message: str, wait: bool
) -> None:
    before = peer.result(cmd="status")
    got = peer.error(cmd="inject", wait=wait, **request_)
    assert got[0] == kind
    assert message in got[1]
    after = peer.result(cmd="status")
    assert after.pop("now_ns") > before.pop("now_ns")
    assert after == before


def test_trace_gives_the_newest_records_oldest_first(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    records = peer.result(cmd="trace")["records"]
    assert [record["type"] for record in records[:4]] == ["frame", "boot", "power", "frame"]
    (call,) = (record for record in records if record.get("function") == "SDEI_EVENT_ENABLE")
    *_, transition = (record for record in records if record["type"] == "transition")
    assert (call["function"], call["args"], call["result_name"]) == ("SDEI_EVENT_ENABLE", {"event": 0}, "SUCCESS")
    wanted = {"type": "transition", "vcpu": 0, "event": 0, "from": "registered", "to": "enabled", "cause": "ENABLE"}
    assert transition.items() >= wanted.items()
    assert transition["clause"].startswith("DEN0054 5.1.3")
    assert [record["n"] for record in records] == sorted({record["n"] for record in records})
    assert peer.result(cmd="trace", limit=1)["records"][0]["n"] == records[-1]["n"]
    assert peer.result(cmd="trace", limit=0)["records"] == []
    assert peer.error(cmd="trace", limit=-1)[0] == "usage"
    assert peer.error(cmd="trace", limit="all")[0] == "usage"


def test_shutdown_ends_the_loop(backend: Backend, peer: Peer) -> None:
    assert peer.result(cmd="shutdown") == {}
    backend.server.run()  # returns at once, or this test times out


def test_only_the_user_may_connect(backend: Backend) -> None:
    assert stat.S_IMODE(backend.path.stat().st_mode) & 0o077 == 0


def test_close_hangs_up_and_leaves_no_socket(backend: Backend, peer: Peer) -> None:
    peer.result(cmd="hello")
    backend.control.close()
    assert peer.lines() == []
    assert peer.closed
    assert not backend.path.exists()


def test_a_socket_that_a_killed_backend_left_is_replaced(backend: Backend) -> None:
    again = Control(backend.server, backend.path, {})
    try:
        assert Peer(backend).result(cmd="hello")["epoch"] == 1
    finally:
        again.close()


# ---- waiting for a handler ------------------------------------------------------------------------------------------


def test_wait_is_answered_when_the_handler_completes(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    peer.send(b'{"id": 3, "cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n')
    assert peer.lines() == []
    assert backend.kick() == [0]
    assert peer.lines() == []
    backend.call(0, Function.EVENT_COMPLETE, 0)
    (answer,) = peer.lines()
    assert (answer["id"], answer["ok"]) == (3, True)
    result = answer["result"]
    assert (result["outcome"], result["vcpu"]) == ("completed", 0)
    assert 0 < result["entry_ns"] < result["complete_ns"]


def test_wait_is_for_the_run_that_it_asked_for(backend: Backend, peer: Peer) -> None:
    """An injection while the handler runs pends: the end of the running one is not its own."""
    backend.enable(0)
    peer.result(cmd="inject", event=0, vcpu=0)
    backend.kick()
    peer.send(b'{"cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n')
    backend.call(0, Function.EVENT_COMPLETE, 0)  # the answer enters the handler again
    assert peer.lines() == []
    backend.call(0, Function.EVENT_COMPLETE, 0)
    assert [answer["ok"] for answer in peer.lines()] == [True]


def test_all_who_wait_for_a_merged_event_are_answered(backend: Backend) -> None:
    backend.enable(0)
    peers = [Peer(backend) for _ in range(3)]
    for n, peer in enumerate(peers):
        peer.send(json.dumps({"id": n, "cmd": "inject", "event": 0, "vcpu": 0, "wait": True}).encode() + b"\n")
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    assert [[answer["id"] for answer in peer.lines()] for peer in peers] == [[0], [1], [2]]


def test_wait_on_another_cpu_or_event_is_not_answered(backend: Backend, peer: Peer) -> None:
    backend.start_cpu_1()
    backend.enable(0, 0)
    backend.enable(0, 1)
    backend.enable(PRIVATE, 0)
    peer.send(b'{"cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n')
    backend.call(0, Function.PE_MASK)
    for event, pe in ((PRIVATE, 0), (0, 1)):
        Peer(backend).result(cmd="inject", event=event, vcpu=pe)
    backend.kick()
    backend.call(1, Function.EVENT_COMPLETE, 0)
    assert peer.lines() == []


def test_wait_for_a_shared_event_that_another_cpu_takes(backend: Backend, peer: Peer) -> None:
    """The CPU of the request is a preference only; who took the event is in the answer."""
    backend.start_cpu_1()
    backend.enable(SHARED, 0)
    backend.call(1, Function.PE_UNMASK)
    backend.call(0, Function.PE_MASK)
    peer.send(b'{"cmd": "inject", "event": 512, "vcpu": 0, "wait": true}\n')
    assert backend.kick() == [1]
    backend.call(1, Function.EVENT_COMPLETE, 0)
    (answer,) = peer.lines()
    assert (answer["result"]["outcome"], answer["result"]["vcpu"]) == ("completed", 1)


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("end", ["reset", "CPU off", "unregister"])
def test_wait_for_what_will_never_come_ends_with_a_reason(
    backend: Backend, peer: Peer, end: str, entered: bool
) -> None:
    pe = 1
    backend.start_cpu_1()
    backend.enable(0, pe)
    if not entered:
        backend.call(pe, Function.PE_MASK)
    peer.send(b'{"id": 1, "cmd": "inject", "event": 0, "vcpu": 1, "wait": true}\n')
    assert backend.kick() == ([pe] if entered else [])
    if end == "reset":
        backend.boot()
    elif end == "CPU off":
        backend.call(pe, Psci.CPU_OFF)
    else:
        backend.call(pe, Function.EVENT_UNREGISTER, 0)
        if entered:  # it goes when its handler has completed, and completed it has then
            backend.call(pe, Function.EVENT_COMPLETE, 0)
    (answer,) = peer.lines()
    if entered and end != "reset":  # DEN0054 6.5.4: CPU_OFF completes running handlers
        assert answer["result"]["outcome"] == "completed"
        return
    why = {"reset": "the machine was reset", "CPU off": "its CPU went off", "unregister": "the guest unregistered it"}[
        end
    ]
    assert answer["error"] == {
        "kind": "state",
        "message": f"event 0x0: {why} {'while its handler ran' if entered else 'before its handler started'}",
    }
    assert not backend.server.log.listeners, "nobody waits any more"


def test_a_client_that_vanishes_while_it_waits_leaves_nothing(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    vanished = Peer(backend)
    vanished.send(b'{"cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n' * 3)
    vanished.socket.close()
    backend.turn()
    assert not backend.server.log.listeners
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    assert peer.result(cmd="status")["counts"]["completed"] == 1


def test_a_client_that_vanishes_at_the_moment_of_the_answer(backend: Backend, peer: Peer) -> None:
    """The backend learns of it by its own write, with more answers to the same client still to come."""
    backend.enable(0)
    vanished = Peer(backend)
    vanished.send(b'{"cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n' * 3)
    peer.send(b'{"id": 9, "cmd": "inject", "event": 0, "vcpu": 0, "wait": true}\n')
    vanished.socket.close()
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    assert [(answer["id"], answer["ok"]) for answer in peer.lines()] == [(9, True)]


# ---- events ---------------------------------------------------------------------------------------------------------


def test_events_are_streamed_as_they_happen(backend: Backend, peer: Peer) -> None:
    backend.enable(0)
    assert peer.result(id=1, cmd="events") == {}
    Peer(backend).result(cmd="inject", event=0, vcpu=0)
    backend.kick()
    backend.call(0, Function.EVENT_COMPLETE, 0)
    backend.call(0, 0xC300_1234)
    backend.boot()
    events = [line["event"] for line in peer.lines()]
    assert [event["type"] for event in events] == ["deliver", "complete", "unknown", "transition", "reset", "power"]
    assert events[0].items() >= {"event": 0, "pe": 0, "from": 3, "to": 7}.items()
    assert events[2]["function"] == 0xC300_1234


def test_a_subscriber_may_go_on_asking(backend: Backend, peer: Peer) -> None:
    peer.result(cmd="events")
    backend.call(0, 0xC300_0000)
    assert [line["event"]["type"] for line in peer.lines()] == ["unknown"]
    assert peer.result(cmd="hello")["name"] == "tester"


def test_nobody_listening_costs_nothing(backend: Backend, peer: Peer) -> None:
    peer.result(cmd="events")
    assert backend.server.log.listeners
    peer.socket.close()
    backend.turn()
    assert not backend.server.log.listeners
