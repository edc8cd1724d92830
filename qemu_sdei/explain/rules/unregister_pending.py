"""An event whose EVENT_UNREGISTER stays pending."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture
from qemu_sdei.explain.rules.registry import lasts, rule
from qemu_sdei.explain.words import UNTIL_COMPLETE, ago, called, lasting, refused
from qemu_sdei.sdei.transitions import STATE_NAMES, UNREGISTER_PENDING


@rule
def unregister_pending(picture: Picture, history: History) -> Iterator[Finding]:
    """DEN0054 6.7: it ends with the handler, and not before."""
    for event, instance in picture.instances():
        if instance.state != STATE_NAMES[UNREGISTER_PENDING]:
            continue
        on = instance.running_on if instance.running_on is not None else instance.vcpu
        since = history.since(event.number, on)
        if not lasts(history.state_age(event.number, on)):
            continue
        entered = history.entered(event.number, on)
        cause = None if since is None else history.cause(since)
        calls = [
            call
            for call in history.calls(None, "SDEI_EVENT_REGISTER", "SDEI_EVENT_UNREGISTER")
            if call.get("args", {}).get("event") == event.number
            and (since is None or call["n"] > since["n"])
            and (event.shared or call.get("vcpu") == on)
        ]
        by = "" if cause is None else f", by {called(cause)} on vCPU {cause['vcpu']}"
        yield Finding(
            rule="unregister-pending",
            weight=Weight.ERROR,
            title=f"{picture.called(event.number)[:1].upper()}{picture.called(event.number)[1:]} cannot be "
            "unregistered "
            f"while its handler runs on vCPU {on}",
            text="It has been unregister-pending for "
            f"{lasting(history.state_age(event.number, on), history.reach())}{by}. Its handler was "
            f"entered {ago(history.age(entered), history.reach())} on vCPU {on} and has not ended. Until then each "
            "SDEI_EVENT_UNREGISTER is answered PENDING, SDEI_EVENT_REGISTER and SDEI_EVENT_ENABLE are DENIED, and no "
            "event of its priority is delivered to that vCPU.",
            todo=UNTIL_COMPLETE.format(on) + ".",
            evidence=refused(calls),
            references=("DEN0054 5.1.8, 6.7",),
            about=frozenset({f"running {event.number} {on}"}),
        )
