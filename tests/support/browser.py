"""Headless Chromium, controlled over its DevTools pipe; records requests and console messages.

It needs neither a driver nor a WebSocket client. Pages can reach this machine only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Names of the executable; Debian's package is `chromium`.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 300.0
_KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35,
    "Tab": 9, "Enter": 13, "Escape": 27,
}  # fmt: skip


def executable() -> str | None:
    """Return the path of Chromium, or None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Run a browser with a fresh profile in an empty folder until the block ends.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    path = executable()
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)}; Debian's package is chromium")
    (ours, its_out), (its_in, to_it) = os.pipe(), os.pipe()
    arguments = [
        path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    # Chromium reads commands from descriptor 3 and answers on 4.
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}', *arguments],
        pass_fds=(its_in, its_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(its_in)
    os.close(its_out)
    browser = Browser(ours, to_it)
    try:
        yield browser
    finally:
        with contextlib.suppress(OSError, ConnectionError, TimeoutError):
            browser.send("Browser.close")
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours)
        os.close(to_it)


class Browser:
    """A client of the DevTools protocol: JSON messages that end with a NUL byte."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._left, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._writing, data) :]
        number, until = self._number, time.monotonic() + _SECONDS
        while True:
            answer = self._receive(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def wait(self, done: Callable[[], Any], what: str) -> None:
        """Wait until ``done`` returns true; ``what`` describes it in the error."""
        until = time.monotonic() + _SECONDS
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"not within {_SECONDS:.0f} s: {what}")
            with contextlib.suppress(TimeoutError):
                self._receive(time.monotonic() + 0.05)

    def open(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        """Open ``url`` in a new page, and wait until it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        page.go(url)
        return page

    def _receive(self, until: float) -> dict[str, Any]:
        """Return the next message, and pass events to their page."""
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._reading], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._reading, 2**16)
            if not data:
                raise ConnectionError("the browser has gone")
            self._left += data
        raw, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if (page := self._pages.get(message.get("sessionId", ""))) and "method" in message:
            page.record(message["method"], message["params"])
        return message


class Page:
    """One page of a browser.

    Attributes:
        requests: The URLs of all requests, beginning with the page itself; without ``data:`` URLs.
        messages: Console messages and errors, as text.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._loaded = False

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol to this page, and return its result."""
        return self._browser.send(method, self._session, **params)

    def record(self, event: str, params: dict[str, Any]) -> None:
        """Record an event of the DevTools protocol."""
        if event == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif event == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif event == "Runtime.consoleAPICalled":
            text = " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
            self.messages.append(f"{params['type']}: {text}")
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            what = details.get("exception", {}).get("description", details["text"])
            self.messages.append(f"exception: {what}")
        elif event == "Log.entryAdded":
            entry = params["entry"]
            self.messages.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif event == "Page.loadEventFired":
            self._loaded = True

    def go(self, url: str) -> None:
        """Load ``url`` with all its resources."""
        self._loaded = False
        answer = self.send("Page.navigate", url=url)
        if "errorText" in answer:
            raise RuntimeError(f"{url}: {answer['errorText']}")
        self._browser.wait(lambda: self._loaded, f"{url} is loaded")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if details := answer.get("exceptionDetails"):
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        self._browser.wait(lambda: self.evaluate(expression), expression)

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a position in the window, in CSS pixels."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click the middle of the first element of a CSS selector, after scrolling to it.

        Raises:
            LookupError: No element matches.
        """
        middle = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " if (!e) return null; e.scrollIntoView({block: 'center', inline: 'center'});"
            " const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        found, before = self.evaluate(middle), None
        while found != before:  # an element above it may still be growing
            time.sleep(0.1)
            found, before = self.evaluate(middle), found
        if found is None:
            raise LookupError(f"no element matches {selector}")
        x, y = found
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key, by its name in JavaScript: ``ArrowLeft``, ``Tab``, ``a``."""
        code = _KEYS.get(key, ord(key[0].upper()))
        text = {} if key in _KEYS else {"text": key}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def type(self, text: str) -> None:
        """Insert text into the focused element."""
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._browser.send("Target.closeTarget", targetId=self._target)
