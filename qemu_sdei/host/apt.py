"""A private apt: Debian packages of any architecture, without root and without touching the user's own configuration.

It has lists, cache and state of its own, and the Debian part of the user's package sources, checked with the same
keyrings. What the user's apt.conf says of proxies and certificates holds here too; hooks and pins do not.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.host.apt_sources import Stanza, debian_stanzas, of_suite, parse_deb822, parse_one_line

Progress = Callable[[str], None]

WHAT_ELSE: Final = "give --kernel IMAGE and --busybox FILE"
"""What a user does whose machine cannot download: the end of every message here."""
_STALLED: Final = 180.0
"""Seconds without a word from apt after which it is ended."""


class Apt:
    """Package lists and downloads of one architecture, all below one directory.

    Not safe against a second process in the same directory: `DebianCache` holds a lock around every use.
    """

    LISTS_AGE: Final = 12 * 3600.0
    """Seconds for which package lists are taken as they are."""

    def __init__(self, directory: Path, architecture: str, progress: Progress, *, suite: str | None = None) -> None:
        """`suite`: of the same archive, such as "trixie-backports"; None: those of the running release."""
        self._directory = directory
        self._suite = suite
        self._architecture = architecture
        self._progress = progress
        self._config = directory / "apt.conf"
        self._prepared = False

    def update(self, max_age: float) -> bool:
        """Get the package lists, unless they are younger than `max_age` seconds; returns whether it did.

        Raises:
            UsageError: there is no apt, no Debian source, or the lists cannot be had.
        """
        self._prepare()
        stamp = self._directory / "updated"
        try:
            if 0 <= time.time() - stamp.stat().st_mtime < max_age:
                return False
        except OSError:
            pass
        lists = f"Debian's package lists ({self._architecture if self._suite is None else self._suite})"
        self._progress(f"getting {lists}")
        self._apt(["update"], f"{lists} cannot be had")
        stamp.touch()
        return True

    def show(self, package: str) -> dict[str, str]:
        """The fields of `package`'s newest version; {} if there is no such package."""
        self._prepare()
        out = self._query(["show", "--no-all-versions", package])
        stanza = parse_deb822(out)
        return stanza[0].fields if stanza else {}

    def versions(self, package: str) -> list[dict[str, str]]:
        """The fields of all versions of `package` that there are, the newest first."""
        self._prepare()
        return [stanza.fields for stanza in parse_deb822(self._query(["show", package]))]

    def names(self, prefix: str) -> list[str]:
        """All package names that start with `prefix`."""
        self._prepare()
        return sorted(self._query(["pkgnames", prefix]).split())

    def download(self, package: str, version: str, target: Path) -> Path:
        """Download a package into the directory `target`, where it appears only when it is complete and checked.

        Raises:
            UsageError: it cannot be had; the message ends with apt's own reason.
        """
        self._prepare()
        work = self._directory / "download"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        self._apt(
            ["download", f"{package}={version}"], f"{package} {version} cannot be downloaded", cwd=work, percent=package
        )
        files = list(work.glob("*.deb"))
        if len(files) != 1:
            raise UsageError(f"{package} {version} cannot be downloaded: apt-get left {len(files)} files: {WHAT_ELSE}")
        target.mkdir(parents=True, exist_ok=True)
        return files[0].replace(target / files[0].name)

    def _prepare(self) -> None:
        # Once in the life of this object, so that what the user changes in their sources is heard.
        if self._prepared:
            return
        tools = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
        if missing := [name for name in tools if shutil.which(name) is None]:
            raise UsageError(f"nothing of Debian's can be downloaded, there is no {missing[0]} here: {WHAT_ELSE}")
        stanzas = debian_stanzas(_user_sources(), _codename())
        if self._suite is not None:
            stanzas = of_suite(stanzas, self._suite)
        if not stanzas:
            raise UsageError(f"your apt configuration has no Debian package source for this release: {WHAT_ELSE}")
        root = self._directory
        if '"' in str(root) or "\n" in str(root):
            raise UsageError(f"apt cannot work in {root}: set XDG_CACHE_HOME to a directory without such characters")
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "status").write_text("")
        text = "\n".join(stanza.text(Architectures=self._architecture, Targets="Packages") for stanza in stanzas)
        (root / "sources" / "debian.sources").write_text(text)
        self._config.write_text(_APT_CONF.format(root=root, architecture=self._architecture))
        self._prepared = True

    def _query(self, arguments: Sequence[str]) -> str:
        try:
            result = subprocess.run(
                ["apt-cache", "-c", str(self._config), *arguments],
                capture_output=True, text=True, errors="replace", env=_environment(), timeout=_STALLED, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UsageError(f"apt-cache {arguments[0]} did not end within {_STALLED:.0f} s: {WHAT_ELSE}") from None
        return result.stdout if result.returncode == 0 else ""

    def _apt(self, arguments: Sequence[str], failed: str, cwd: Path | None = None, percent: str = "") -> None:
        """Run apt-get, telling its progress when `percent` names what is downloaded. Raises UsageError."""
        read, write = os.pipe()
        command = ["apt-get", "-c", str(self._config), "-q", "-o", f"APT::Status-Fd={write}", *arguments]
        try:
            process = subprocess.Popen(
                command, cwd=cwd, env=_environment(), pass_fds=(write,), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        finally:
            os.close(write)
        try:
            output = self._follow(process, read, percent)
        finally:
            os.close(read)
            if process.poll() is None:
                process.kill()
            process.wait()
        if output is None:
            raise UsageError(f"{failed}: apt-get said nothing for {_STALLED:.0f} s: {WHAT_ELSE}")
        if process.returncode != 0:
            reason = _reason(output)
            if re.search(r"expired|not valid (?:yet|anymore)", reason):
                reason += (
                    " (this mirror is out of date: name another one in your apt sources; nothing is taken unchecked)"
                )
            raise UsageError(f"{failed}: {reason}: {WHAT_ELSE}")

    def _follow(self, process: subprocess.Popen[bytes], status: int, percent: str) -> str | None:
        """Everything that apt-get prints until it ends; None if it stalls."""
        assert process.stdout is not None
        output = bytearray()
        told = 0
        with process.stdout, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(status, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_STALLED)
                if not ready:
                    return None
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fd != status:
                        output += data
                    elif percent and (done := _percent(data)) >= told + 20:
                        told = done
                        self._progress(f"downloading {percent}: {done} %")
        try:
            process.wait(_STALLED)
        except subprocess.TimeoutExpired:
            return None
        return output.decode(errors="replace")


_APT_CONF: Final = """\
// Written by qemu-sdei for its private apt: read after the user's own apt.conf.
#clear APT::Update;
#clear APT::Architectures;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear Acquire::Languages;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
Acquire::Languages {{ "none"; }};
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::State "{root}";
Dir::State::status "{root}/status";
Dir::State::lists "{root}/lists";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Debug::NoLocking "true";
"""


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _percent(data: bytes) -> int:
    """Of status lines `dlstatus:ITEM:PERCENT:TEXT`, the last one's percentage."""
    found = re.findall(rb"^dlstatus:\d+:(\d{1,3})", data, re.MULTILINE)
    return min(int(found[-1]), 100) if found else 0


def _reason(output: str) -> str:
    """Apt's own reason: its last error line, else the last warning, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for prefix in ("E: ", "Err:", "W: "):
        # "Unable to fetch some archives", "Some index files failed": the line before them says what really happened.
        found = [
            line for line in lines if line.startswith(prefix) and not re.search(r": (Unable to fetch|Some index)", line)
        ]
        if found:
            return " ".join(found[-1].removeprefix("E: ").removeprefix("W: ").split()).rstrip(":. ")
    return lines[-1] if lines else "it gave no reason"


def _codename() -> str:
    """VERSION_CODENAME of the running system, such as "bookworm"; "" if it has none (os-release(5))."""
    for name in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = Path(name).read_text(errors="replace")
        except OSError:
            continue
        found = re.search(r'^VERSION_CODENAME="?([\w.-]+)', text, re.MULTILINE)
        return found[1] if found else ""
    return ""


def _user_sources() -> list[Stanza]:
    """The package sources of the user's own apt, in both formats (sources.list(5))."""
    command = ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    try:
        out = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_STALLED, check=False,
            env=_environment(), stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
        paths = dict(word.split("=", 1) for word in shlex.split(out) if "=" in word)
    except (subprocess.TimeoutExpired, ValueError):
        paths = {}
    files = [Path(paths.get("LIST") or "/etc/apt/sources.list")]
    parts = Path(paths.get("PARTS") or "/etc/apt/sources.list.d")
    files += sorted(parts.glob("*.list")) + sorted(parts.glob("*.sources"))
    stanzas = []
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        stanzas += parse_deb822(text) if file.suffix == ".sources" else parse_one_line(text)
    return stanzas
