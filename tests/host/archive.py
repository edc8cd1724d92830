"""A small Debian archive in a directory, for the real apt to use: no network, no signature (`Trusted: yes`)."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path


class Archive:
    """Packages of one suite, "stable", component main."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stanzas: dict[str, dict[str, str]] = {}
        """Packages files by architecture: stanza by package name."""
        directory.mkdir()

    @property
    def source(self) -> str:
        """A line for sources.list."""
        return f"deb [trusted=yes] copy:{self.directory} stable main\n"

    def add(
        self,
        package: str,
        version: str,
        files: dict[str, bytes] | None = None,
        *,
        depends: str = "",
        arch: str = "arm64",
        md5sums: str = "",
        beside: bool = False,
    ) -> Path:
        """Build a package and list it, in place of an older version (or `beside` it); returns its file."""
        tree = self.directory / "build" / package
        for name, data in (files or {}).items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(data)
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {package}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: nobody <a@b>\n"
        control += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN" / "control").write_text(control + "Description: test\n")
        if md5sums:
            (tree / "DEBIAN" / "md5sums").write_text(md5sums)
        name = f"{package}_{version.partition(':')[2] or version}_{arch}.deb"
        deb = self.directory / "pool" / name
        deb.parent.mkdir(exist_ok=True)
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(deb)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        for listed in ("arm64", "amd64") if arch == "all" else (arch,):
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            self._stanzas.setdefault(listed, {})[f"{package} {version}" if beside else package] = (
                f"{control}Filename: pool/{name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\nDescription: test\n"
            )
        self.publish()
        return deb

    def publish(self) -> None:
        """Write the lists as they are now."""
        dist = self.directory / "dists" / "stable"
        sums = []
        for arch in ("arm64", "amd64"):
            path = dist / "main" / f"binary-{arch}" / "Packages"
            path.parent.mkdir(parents=True, exist_ok=True)
            data = "\n".join(self._stanzas.get(arch, {}).values()).encode()
            path.write_bytes(data)
            sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path.relative_to(dist)}")
        (dist / "Release").write_text(
            "Origin: Test\nSuite: stable\nCodename: stable\nArchitectures: amd64 arm64\nComponents: main\n"
            f"Date: {self._date()}\nSHA256:\n" + "\n".join(sums) + "\n"
        )

    def _date(self) -> str:
        return subprocess.run(
            ["date", "-u", "-R"], capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}
        ).stdout.strip()


def split_kernel(archive: Archive, release: str, version: str, metapackage: str) -> bytes:
    """The same in several packages, as forky and sid have it."""
    image = f"kernel {release} {version} ".encode() * 1000
    modules = f"usr/lib/modules/{release}"
    exactly = f"(= {version})"
    archive.add(f"linux-binary-{release}", version, {f"{modules}/vmlinuz": image})
    archive.add(f"linux-modules-{release}", version, {f"{modules}/kernel/drivers/block/virtio_blk.ko": b"\x7fELF"})
    archive.add(f"linux-base-{release}", version, {f"boot/config-{release}": b"CONFIG_ARM64=y\n"})
    parts = [f"linux-{part}-{release} {exactly}" for part in ("base", "binary", "modules")]
    archive.add(f"linux-image-{release}", version, depends=", ".join(parts))
    archive.add(metapackage, version, depends=f"linux-image-{release} {exactly}")
    return image


def kernel(archive: Archive, release: str, version: str, metapackage: str) -> bytes:
    """Add a kernel and what depends on it; returns its image."""
    image = f"kernel {release} {version} ".encode() * 1000
    files = {f"boot/vmlinuz-{release}": image, f"boot/config-{release}": b"CONFIG_ARM64=y\n", "lib/modules/x.ko": b"x"}
    archive.add(f"linux-image-{release}", version, files)
    archive.add(metapackage, version, depends=f"linux-image-{release} (= {version})")
    return image
