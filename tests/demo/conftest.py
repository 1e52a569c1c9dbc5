"""A real browser for the tests of the page: headless Chromium, spoken to in the WebDriver protocol."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of a reference to an element
QUIET = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run")


class Browser:
    """The few commands of the protocol that the tests need; one window at a time is spoken to."""

    def __init__(self, driver_url: str, chromium: str, profile: Path) -> None:
        self._driver = driver_url
        arguments = [*QUIET, "--disable-background-networking", "--window-size=1100,1000", f"--user-data-dir={profile}"]
        wanted = {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }
        session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{session['sessionId']}"

    def close(self) -> None:
        self._ask("DELETE", self._session)

    def do(self, command: str, **values):
        return self._ask("POST", f"{self._session}/{command}", values)

    def open(self, url: str) -> None:
        self.do("url", url=url)

    def new_window(self) -> str:
        handle = self.do("window/new", type="tab")["handle"]
        self.switch(handle)
        return handle

    def window(self) -> str:
        return self._ask("GET", f"{self._session}/window")

    def switch(self, handle: str) -> None:
        self.do("window", handle=handle)

    def find(self, css: str) -> str:
        return self.do("element", using="css selector", value=css)[ELEMENT]

    def send(self, css: str, text: str) -> None:
        """Keys into an element, or a path into a file field."""
        self.do(f"element/{self.find(css)}/value", text=text)

    def click(self, css: str) -> None:
        self.do(f"element/{self.find(css)}/click")

    def text(self, css: str) -> str:
        return self._ask("GET", f"{self._session}/element/{self.find(css)}/text")

    def role_and_name(self, css: str) -> tuple[str, str]:
        """As assistive technology is told them."""
        element = f"{self._session}/element/{self.find(css)}"
        return self._ask("GET", f"{element}/computedrole"), self._ask("GET", f"{element}/computedlabel")

    def drag(self, css: str, start: float, end: float) -> None:
        """With the mouse, across an element, from one share of its width to another."""
        left, top, width, height = self.run(
            f"const r = document.querySelector({css!r}).getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
        )
        points = [
            {"type": "pointerMove", "x": round(left + share * width), "y": round(top + height / 2)}
            for share in (start, (start + end) / 2, end)
        ]
        steps = [points[0], {"type": "pointerDown", "button": 0}, *points[1:], {"type": "pointerUp", "button": 0}]
        self.do("actions", actions=[{"type": "pointer", "id": "mouse", "actions": steps}])

    def press(self, keys: str) -> None:
        """Wherever the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.do("actions", actions=[{"type": "key", "id": "keyboard", "actions": steps}])

    def run(self, script: str, *arguments):
        return self.do("execute/sync", script=script, args=list(arguments))

    def run_async(self, script: str, *arguments):
        return self.do("execute/async", script=script, args=list(arguments))

    def wait(self, condition: str, seconds: float = 60):
        """Until a JavaScript expression is true; its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.run(f"return {condition}")
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {condition}; the page says: {self.text('body')}")

    def log(self, kind: str) -> list[dict]:
        return self.do("se/log", type=kind)

    def screenshot(self) -> str:
        return self._ask("GET", f"{self._session}/screenshot")

    def _ask(self, method: str, path: str, values: dict | None = None):
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(f"{self._driver}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = None
    try:
        for line in process.stdout:
            if "started successfully on port" in line:
                found = Browser(
                    f"http://127.0.0.1:{line.rstrip().rstrip('.').rsplit(' ', 1)[1]}",
                    chromium,
                    tmp_path_factory.mktemp("profile"),
                )
                break
        assert found is not None, "chromedriver did not start"
        yield found
        found.close()
    finally:
        process.terminate()
        process.wait(10)
