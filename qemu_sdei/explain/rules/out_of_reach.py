"""A guest that cannot be served or seen: its backend or QEMU does not answer, or it is paused."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture
from qemu_sdei.explain.rules.registry import rule
from qemu_sdei.explain.words import joined


@rule
def out_of_reach(picture: Picture, history: History) -> Iterator[Finding]:
    """Without a backend each vCPU stops at its next call."""
    if picture.ended:
        return
    if picture.backend:
        known = {
            "journal": "What follows is from its journal and its trace: how everything stood when it answered last.",
            "": "What is known is from its trace.",
        }.get(picture.known_by, "")
        yield Finding(
            rule="backend-does-not-answer",
            weight=Weight.ERROR,
            title="The backend does not answer: each vCPU stops at its next firmware call",
            text=f"{picture.backend[:1].upper()}{picture.backend[1:]}. {known}".strip(),
            references=("docs/howto/does-not-answer.md",),
        )
    if picture.paused:
        yield Finding(
            rule="paused",
            weight=Weight.ERROR,
            title=f"QEMU has stopped the vCPUs ({picture.paused})",
            text="Nothing of the guest runs until it is resumed: by QMP `cont`, or by the end of the migration "
            "or the "
            "save that has paused it.",
            references=("docs/howto/does-not-answer.md",),
        )
    missing = [vcpu for vcpu in picture.vcpus if vcpu.missing and not picture.paused and not picture.backend]
    if missing:
        numbers = [str(vcpu.index) for vcpu in missing]
        yield Finding(
            rule="vcpu-does-not-come",
            weight=Weight.WARNING,
            title=f"vCPU {joined(numbers)} did not come to the firmware when asked",
            text="A kick is taken at EL3 whatever the guest masks, so a vCPU that does not come is not run by "
            "QEMU now, "
            "or QEMU has little of the host's CPUs; or vCPU 0, which passes kicks on, does not come itself.",
            references=("docs/concepts.md#kicks",),
        )
