"""A real browser, driven by its DevTools protocol over two pipes: Chromium is all that is needed for it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 60.0
_ARGUMENTS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Browser:
    """A browser process. It reads commands from its file descriptor 3 and answers on 4, each ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        (its_input, self._input), (self._output, its_output) = (_high_pipe() for _ in range(2))
        actions = [
            (os.POSIX_SPAWN_DUP2, its_input, 3),
            (os.POSIX_SPAWN_DUP2, its_output, 4),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        arguments = [program, *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(program, arguments, os.environ, file_actions=actions, setpgroup=0)
        os.close(its_input)
        os.close(its_output)
        self._buffer = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        os.write(self._input, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def wait_for(self, method: str, session: str) -> None:
        while not any(one.get("method") == method and one.get("sessionId") == session for one in self.events):
            self.events.append(self._read())

    def close(self) -> None:
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._input)
        os.close(self._output)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._output], [], [], _PATIENCE)
            data = os.read(self._output, 1 << 16) if ready else b""
            assert data, "the browser says nothing any more"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Tab:
    """One tab, and what went wrong in it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target = target
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def look(self, width: int = 1280, height: int = 800, *, dark: bool = False, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, file: Path) -> None:
        self._browser.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        self._browser.wait_for("Page.loadEventFired", self._session)
        # A check is unpacked by promises; it is there when its address is.
        self.until("document.querySelector('main h2, main .empty, main .problem') !== null")

    def run(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until `condition` holds, looked at between the frames that the page draws."""
        body = f"const look = () => ({condition}) ? done(true) : requestAnimationFrame(look); look();"
        late = f"setTimeout(() => done(false), {1000 * _PATIENCE / 2});"
        assert self.run(f"new Promise((done) => {{ {body} {late} }})"), f"this never came true: {condition}"

    def press(self, key: str, *, shift: bool = False) -> None:
        text = {"text": key} if len(key) == 1 else {}
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": _VIRTUAL.get(key, 0), "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def point(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def texts(self, selector: str) -> list[str]:
        """The texts of what `selector` finds and is shown."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return self.run(f"{found}.filter(e => e.offsetParent).map(e => e.textContent)")

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def requests(self) -> list[str]:
        sent = self._events("Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]

    @property
    def complaints(self) -> list[Any]:
        """What was written to the console, thrown, logged by the browser (a breach of the policy, say) or asked in a
        dialog."""
        self.run("0")
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [one for kind in kinds for one in self._events(kind)]

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _events(self, method: str) -> list[dict[str, Any]]:
        events = self._browser.events
        return [
            one["params"] for one in events if one.get("method") == method and one.get("sessionId") == self._session
        ]


_VIRTUAL = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, "Escape": 27, "Enter": 13, " ": 32}


def _high_pipe() -> tuple[int, int]:
    """Return a pipe that is none of the descriptors the browser gets."""
    import fcntl  # not there on Windows, where the fixture skips

    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if os.name != "posix":
        pytest.skip("the browser is driven over pipes that it inherits, which needs POSIX")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(_NAMES)} is installed")
    running = Browser(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    opened = Tab(browser)
    opened.look()
    yield opened
    opened.close()
