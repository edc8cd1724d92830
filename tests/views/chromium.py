"""A headless Chromium, spoken to by a pipe (Chrome DevTools Protocol): what a page looks like and complains of."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 60.0
"""Seconds for one answer."""


def find() -> str | None:
    """Its path, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _pipe() -> tuple[int, int]:
    """A pipe with descriptors from 10 on."""
    ends = os.pipe()
    far = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return far[0], far[1]


class Chromium:
    """One browser with one page."""

    def __init__(self) -> None:
        path = find()
        assert path is not None
        self._folder = tempfile.TemporaryDirectory(prefix="qemu-sdei-chromium-")
        (into, self._write), (self._read, out) = _pipe(), _pipe()
        # The browser takes descriptors 3 and 4, which these are not.
        command = f'exec "$0" "$@" 3<&{into} 4>&{out} {into}<&- {out}>&-'
        flags = [
            *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *("--disable-extensions", f"--user-data-dir={self._folder.name}", "--disable-dev-shm-usage", "about:blank"),
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", command, path, *flags],
            pass_fds=(into, out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(into)
        os.close(out)
        self._data = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        """What the page's console said, and exceptions."""

    def __enter__(self) -> Chromium:
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        os.close(self._read)
        self._folder.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do something, and return what came of it."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._data += part
        one, _, self._data = self._data.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(parameters)[:2000])
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.complaints.append(f"it asks for {url}")

    # ---- what tests do -----------------------------------------------------------------------------------------------

    def screen(self, width: int, height: int, *, dark: bool = False, scale: float = 1, touch: bool = False) -> None:
        """Be a screen of this size, in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file: Path) -> float:
        """Open a page. Returns the seconds until it is there and was drawn."""
        began = time.monotonic()
        self.ask("Page.navigate", url=file.as_uri())
        deadline = began + LIMIT
        ready = "document.readyState === 'complete' && location.protocol === 'file:'"
        while not self.run(ready):
            assert time.monotonic() < deadline, "the page does not come"
        self.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(true))))")
        return time.monotonic() - began

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (of a promise: what it comes to)."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, key: str, text: str = "") -> None:
        """Press and let go a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """`kind`: mouseMoved, mousePressed, mouseReleased."""
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self, file: Path, *, whole: bool = False) -> bytes:
        """A screenshot as PNG; `whole`: of all of the page."""
        more: dict[str, Any] = {}
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {**size, "x": 0, "y": 0, "scale": 1}}
        data = base64.b64decode(self.ask("Page.captureScreenshot", format="png", **more)["data"])
        file.write_bytes(data)
        return data
