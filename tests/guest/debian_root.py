"""A Debian root file system with systemd, made by debootstrap, and a shell in it over the serial console."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import qemu_sdei
from qemu_sdei.guest import shell
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.shell import CommandResult

PROFILE = Path(qemu_sdei.__file__).parent / "data" / "profile"
PAM = "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\npassword sufficient pam_permit.so\n"
SESSION = "session required pam_unix.so\n"


def missing() -> list[str]:
    """Programs that are needed and not here."""
    return [name for name in ("debootstrap", "dpkg-deb", "mke2fs", "tar") if shutil.which(name) is None]


def make(work: Path, image: Path, size: str = "700M", files: dict[str, Path] | None = None) -> None:
    """Make the ext4 image `image` with `files` (path in it -> file here). Needs root and Debian's archive.

    The packages are unpacked, and what a login needs of their configuration is written here: to have dpkg configure
    them takes an arm64 CPU, and an emulated one a quarter of an hour.
    """
    root = work / "root"
    command = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", "--include=systemd-sysv,udev,kmod"]
    result = subprocess.run([*command, "bookworm", str(root)], capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        # --keep-directory-symlink: /bin and /lib are links to /usr.
        unpack = f"dpkg-deb --fsys-tarfile '{package}' | tar -x --keep-directory-symlink -C '{root}'"
        subprocess.run(["sh", "-c", unpack], check=True, timeout=60)
        package.unlink()
    for name in ("proc", "dev", "sys", "run"):
        if (root / name).is_symlink():  # debootstrap in a container
            (root / name).unlink()
        (root / name).mkdir(exist_ok=True)
    etc, base = root / "etc", root / "usr/share/base-passwd"
    (etc / "passwd").write_text((base / "passwd.master").read_text().replace("root:*:", "root::"))
    (etc / "group").write_text((base / "group.master").read_text())
    for name in ("auth", "account", "password"):
        (etc / f"pam.d/common-{name}").write_text("".join(line + "\n" for line in PAM.splitlines() if name in line))
    for name in ("session", "session-noninteractive"):
        (etc / f"pam.d/common-{name}").write_text(SESSION)
    (etc / "hostname").write_text("debian\n")
    (etc / "machine-id").write_text("")
    for path, file in (files or {}).items():
        shutil.copyfile(file, root / path.lstrip("/"))
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(image), size], check=True, timeout=120)


def log_in(guest: Guest, timeout: float = 300) -> None:
    """Wait for the login prompt on the console, and log in as root."""
    guest.expect(r"debian login: $", timeout)
    guest.write("root\r")
    guest.expect(r"# $", 120)
    (alias,) = (line for line in PROFILE.read_text().splitlines() if line.startswith("alias "))
    guest.write(alias + "\r")


def run(guest: Guest, command: str, timeout: float = 60) -> CommandResult:
    """Run a command in the shell that `log_in` left."""
    nonce = secrets.token_hex(8)
    start = guest.console_text.end
    first, *rest = (line + "\r" for line in shell.request(command, nonce))
    guest.write(first)
    guest.console_text.search(shell.ready_pattern(nonce), start, timeout, what=command)
    guest.write("".join(rest))
    guest.console_text.search(shell.reply_pattern(nonce), start, timeout, what=command)
    result = shell.parse_reply(guest.console_text.since(start)[0], nonce)
    assert result is not None
    return result
