"""Two examples for each command, which its `--help` shows. A test reads each by the command's own parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "run": ("run -- uname -a", "run -d --ras --name box"),
    "selftest": ("selftest", "selftest --json"),
    "conformance": ("conformance", "conformance --firmware-image flash.bin"),
    "compare": ("compare --firmware-image flash.bin", "compare --firmware tfa"),
    "demo": ("demo", "demo --report demo.html"),
    "inject": ("inject --event ghes", "inject box --event 0x102 --vcpu 1 --count 1000 --wait --histogram"),
    "ras": ("ras sources box", "ras inject box memory --severity corrected"),
    "nmi": ("nmi", "nmi box --by agdi"),
    "firmware": ("firmware box", "firmware box --profile tfa"),
    "status": ("status", "status box --watch"),
    "top": ("top", "top box --once"),
    "events": ("events", "events box --json"),
    "trace": ("trace", "trace box --follow --filter call"),
    "explain": ("explain", "explain box --json"),
    "migrate": ("migrate box", "migrate box --route live"),
    "receive": ("receive --name box", "receive --name box --listen 127.0.0.1:4444"),
    "save": ("save saved/", "save box saved/ --end"),
    "restore": ("restore saved/", "restore saved/ --name again"),
    "snapshot": ("snapshot box save before", "snapshot box list"),
    "report": ("report box -o box.html", "report trace.jsonl -o page.html"),
    "regs": ("regs", "regs box --vcpu 1"),
    "pause": ("pause", "pause box"),
    "resume": ("resume", "resume box"),
    "crash": ("crash matrix --series 6.12 --firmware spec", "crash matrix --json --html matrix.html"),
    "list": ("list", "list -q"),
    "exec": ("exec -- dmesg", "exec box -- tar c /etc > etc.tar"),
    "logs": ("logs -f", "logs box --since 10m"),
    "console": ("console", "console box --look"),
    "shell": ("shell box", "shell box -c 'print(guest.status())'"),
    "wait": ("wait box", "wait box --timeout 60 --json"),
    "attach": ("attach", "attach box"),
    "stop": ("stop", "stop box box-2"),
    "initramfs": (
        "initramfs export -o initrd.gz",
        "initramfs export --file t.sh -o i.cpio -- sh /t.sh",
    ),
    "doctor": ("doctor", "doctor --json"),
    "dt": ("dt --dtb board.dtb -o new.dtb", "dt --smp 4"),
    "tables": ("tables --ghes 0x100@0xbff00000 -o acpi/", "tables check /sys/firmware/acpi/tables"),
    "cper": ("cper decode error.txt", "cper check record.bin"),
    "vmcore": ("vmcore vmcore", "vmcore vmcore --json"),
    "qemu-args": ("qemu-args --dir here --kernel Image", "qemu-args --dir here --kernel builtin:bench"),
    "backend": ("backend --dir here", "backend --dir here --once"),
    "completion": ("completion bash", "completion zsh"),
}


def epilog(command: str) -> str | None:
    """What `--help` of `command` ends with; None: there are no examples of it."""
    if command not in EXAMPLES:
        return None
    return "\n".join(["examples:", *(f"  qemu-sdei {words}" for words in EXAMPLES[command])])
