"""Chromium without a window, spoken to through a pipe: opens a page, runs script in it, takes pictures of it."""

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run")
_WAIT_S = 60.0
_LAUNCHER = """
import os, sys
copies = [os.dup(int(end)) for end in sys.argv[1:3]]
for place, one in enumerate(copies, start=3):  # Chromium reads commands at 3 and answers at 4
    os.dup2(one, place)
    os.set_inheritable(place, True)
os.execv(sys.argv[3], sys.argv[3:])
"""

executable = next(filter(None, map(shutil.which, _NAMES)), None)
needs_chromium = pytest.mark.skipif(executable is None, reason=f"none of {', '.join(_NAMES)} is installed")


class Tab:
    """A page of a given width; `errors` are what its console says of errors, `loaded` what it asked the network for."""

    def __init__(self, send: Callable[[dict], None], receive: Callable[[], dict]):
        self._send, self._receive, self._count = send, receive, 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.loaded: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str, width: int, height: int = 900) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url="about:blank")  # or another place in the same page would not load it anew
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, as JSON can hold it."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + _WAIT_S
        while not self.evaluate(script):
            assert time.monotonic() < end, f"never: {script}; {self.errors}"
            time.sleep(0.1)

    def picture(self) -> np.ndarray:
        """Return what is seen, (height, width, 3) uint8."""
        data = base64.b64decode(self._call("Page.captureScreenshot")["data"])
        return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))

    def drag(self, x: int, y: int, right: int) -> None:
        """Press the mouse, move it, and let it go."""
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
        for step in range(1, 6):
            self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x + right * step / 5, y=y, **mouse)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", x=x + right, y=y, **mouse)

    def _call(self, method: str, **parameters: Any) -> dict:
        self._count += 1
        self._send({"id": self._count, "method": method, "params": parameters} | (
            {"sessionId": self._session} if self._session else {}
        ))  # fmt: skip
        while (message := self._receive()).get("id") != self._count:
            self._note(message.get("method", ""), message.get("params", {}))
        assert "result" in message, message
        return message["result"]

    def _note(self, method: str, event: dict) -> None:
        if method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and event["type"] == "error"):
            self.errors.append(json.dumps(event)[:500])
        if method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.errors.append(event["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.loaded.append(event["request"]["url"][:100])


@contextlib.contextmanager
def tab(folder: os.PathLike[str]) -> Iterator[Tab]:
    """Yield a tab of a Chromium of its own, whose profile lies in a folder."""
    assert executable is not None
    to_browser, from_browser = os.pipe(), os.pipe()
    ends = (to_browser[0], from_browser[1])
    command = [executable, *_FLAGS, f"--user-data-dir={os.fspath(folder)}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, *map(str, ends), *command],
        pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for one in ends:
        os.close(one)
    try:
        with os.fdopen(to_browser[1], "wb", buffering=0) as commands, os.fdopen(from_browser[0], "rb") as answers:
            rest = bytearray()

            def receive() -> dict:
                while (end := rest.find(0)) < 0:
                    part = os.read(answers.fileno(), 1 << 20)
                    assert part, "Chromium has ended"
                    rest.extend(part)
                message, rest[: end + 1] = bytes(rest[:end]), b""
                return json.loads(message)

            yield Tab(lambda message: commands.write(json.dumps(message).encode() + b"\0") and None, receive)
    finally:
        process.kill()
        process.wait()
