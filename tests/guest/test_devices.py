"""Guests with a user's own devices: disks, shared directories, a network, a root file system."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from tests.guest import programs
from tests.guest.guests import command, plain, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


def file_system(path: Path, files: Path | None = None, size: str = "16M") -> Path:
    """An ext4 image with what is in the directory `files`."""
    if shutil.which("mke2fs") is None:
        pytest.skip("no mke2fs")
    words = ["-d", str(files)] if files else []
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *words, str(path), size], check=True)
    return path


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the host\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("series", ["6.1", pytest.param("6.12", marks=pytest.mark.slow)])
def test_disk_share_and_network(series: str, tmp_path: Path) -> None:
    disk, other = file_system(tmp_path / "disk"), tmp_path / "other"
    other.write_bytes(b"marked" + bytes(506))
    share = tmp_path / "share"
    share.mkdir()
    (share / "hello").write_text("from the share\n")
    port = free_port()
    options = GuestOptions(
        series=series,
        drives=[str(disk), f"{other},snapshot=on"],
        shares=[f"{share}:src"],
        forwards=[f"{port}:80"],
        client=True,
    )
    with Guest(options) as guest, web_server() as server:
        client = guest.sdei_client()
        guest.run("dmesg -n 1")
        assert plain(guest.run("mount /dev/vda /root && head -c 6 /dev/vdb").output) == "marked"
        assert plain(guest.run("cat /mnt/src/hello").output) == "from the share\n"
        # An event does not care for a device that is at work.
        guest.run(
            "((dd if=/dev/zero of=/root/data bs=64k count=64 2>/dev/null; head -c 9000000 /dev/zero >/mnt/src/big;"
            " touch /tmp/done) &)"
        )
        for _ in range(20):
            guest.inject(0, 1, wait=True, timeout=20)
        assert (
            guest.run("until [ -e /tmp/done ]; do sleep 0.1; done; echo changed >/dev/vdb; sync; umount /root").status
            == 0
        )
        assert client.count(event=0, cpu=1) == 20
        assert plain(guest.run(f"wget -q -O - http://10.0.2.2:{server}/", timeout=20).output) == "from the host\n"
        guest.run("mkdir /www; echo from the guest >/www/index.html; httpd -p 80 -h /www")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while piece := connection.recv(4096):
                text += piece
        assert text.endswith(b"from the guest\n")
        guest.poweroff()
    assert (share / "big").stat().st_size == 9_000_000
    assert other.read_bytes().startswith(b"marked"), "a snapshot was written to"
    listing = subprocess.run(["debugfs", "-R", "ls -l", str(disk)], capture_output=True, text=True, check=False).stdout
    assert "4194304" in listing


def test_root_file_system_of_ones_own(tmp_path: Path, runtime: Path) -> None:
    """Its /sbin/init is started, and is PID 1 of a system with our firmware below."""
    root = tmp_path / "root"
    for name in ("sbin", "dev", "proc", "sys", "run"):
        (root / name).mkdir(parents=True)
    (root / "sbin/init").write_bytes(programs.print_and_exit(b"init of the image\n"))
    (root / "sbin/init").chmod(0o755)
    image = file_system(tmp_path / "image", root)
    with Guest(GuestOptions(drives=[str(image)], root="/dev/vda", append="panic=-1", reboot=False)) as guest:
        guest.expect("init of the image", 60)
        # It has ended, which is a panic.
        until("QEMU ends", lambda: guest.power_off is not None)


@pytest.mark.slow
def test_root_device_that_is_none_says_what_there_is(runtime: Path, tmp_path: Path) -> None:
    image = file_system(tmp_path / "image")
    with Guest(GuestOptions(drives=[str(image)], root="/dev/vdb")) as guest:
        guest.expect("root device /dev/vdb cannot be mounted; there are:", 60)
        guest.expect(r"16384 vda$", 10)
        assert guest.wait_off(30).guest


def test_devices_that_qemu_does_not_take(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    with command(runtime, "run", "-q", "--drive", f"{tmp_path}/disk,colour=red", "--", "true") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = err.decode().splitlines()
    assert "QEMU does not take" in line
    assert "colour" in line
