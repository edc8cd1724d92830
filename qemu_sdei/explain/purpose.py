"""Firmware that misbehaves on purpose: what is said first, so that nobody looks for a fault elsewhere."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.errors import ProtocolError

_STATES: Final = (
    ("deaf", "takes no interrupt and no event"),
    ("stuck", "stays in EL3"),
    ("held", "takes no interrupt until its handler completes"),
)


def purpose_of(status: dict[str, Any]) -> str:
    """What a backend's status says of its firmware profile, as a sentence; "": the firmware does nothing wrong, or an
    older backend does not say. Raises ProtocolError.
    """
    found = status.get("firmware")
    if found is None:
        return ""
    try:
        rules = [(number, int(rule["acted"])) for number, rule in enumerate(found["rules"], 1)]
        states = [(int(vcpu), what) for word, what in _STATES for vcpu in found[word]]
        name, summary = str(found["profile"]), str(found["summary"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the backend's status is not of the protocol's form ({error!r})") from None
    if not rules and not states:
        return ""
    parts = [f"profile {name}" + (f" ({summary})" if summary else "")]
    acted = [str(number) for number, count in rules if count]
    if rules:
        many = "s" if len(acted) > 1 else ""
        parts.append(f"rule{many} {', '.join(acted)} acted" if acted else "no rule of it has acted yet")
    parts += [f"vCPU {vcpu} {what}" for vcpu, what in states]
    return "; ".join(parts)
