"""A real headless browser for tests of pages: Chromium by its driver's HTTP interface (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_S = 60.0


class Browser:
    """A window of Chromium.

    Args:
        scratch: folder for its profile.
        width: of the page in CSS pixels, which a desktop window cannot make as narrow as a phone.
        height: of what is seen at once.
        dark: whether it prefers dark pages.
        flags: more of Chromium's.

    Raises:
        pytest.skip.Exception: there is no Chromium or no chromedriver.
    """

    def __init__(
        self,
        scratch: Path,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        flags: Sequence[str] = (),
    ) -> None:
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        driver = shutil.which("chromedriver")
        if program is None or driver is None:
            pytest.skip(
                "no headless browser: install chromium and chromium-driver (Debian's names)"
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._base = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        words = [
            *flags,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--hide-scrollbars", "--enable-unsafe-swiftshader"),
            f"--user-data-dir={scratch / 'browser'}",
            "--blink-settings=preferredColorScheme=" + ("0" if dark else "1"),
        ]
        options = {"binary": program, "args": words}
        wanted = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
        }
        try:
            session = self._ask("POST", "/session", {"capabilities": wanted}, patient=True)
            self._base += f"/session/{session['sessionId']}"
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            self.devtools("Emulation.setDeviceMetricsOverride", **size)
        except BaseException:
            self._end()
            raise

    def devtools(self, command: str, **params: Any) -> Any:
        """Runs a command of Chromium's DevTools protocol."""
        body = {"cmd": command, "params": params}
        return self._ask("POST", "/goog/cdp/execute", body)

    def open(self, address: str | Path) -> None:
        """Opens a page, or a file."""
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Returns what a function's body of JavaScript returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Returns what the page said to the console since the last call."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def picture(self, file: Path, whole: bool = False) -> None:
        """Writes what is seen, or the whole page, as PNG."""
        extra: dict[str, Any] = {}
        if whole:
            size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
            extra = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        shot = self.devtools("Page.captureScreenshot", format="png", **extra)
        file.write_bytes(base64.b64decode(shot["data"]))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "", None)
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(20)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, patient: bool = False
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, data, {"Content-Type": "application/json"}, method=method
        )
        deadline = time.monotonic() + (_START_S if patient else 0.0)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.load(answer)["value"]
            except urllib.error.HTTPError as error:
                said = json.load(error)["value"]
                raise AssertionError(f"{said['error']}: {said['message']}") from None
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
