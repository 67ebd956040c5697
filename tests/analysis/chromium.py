"""A headless Chromium driven over the WebDriver protocol by the standard library; nothing is asked of a network."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from types import TracebackType

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
PATIENCE_S = 60


class Chromium:
    """One browser window with its own profile; ends with the `with` block.

    Examples
    --------
    ``with Chromium() as browser: browser.open(path); browser.run("return document.title")``
    """

    def __enter__(self) -> Chromium:
        self.profile = tempfile.TemporaryDirectory(prefix="chromium_")
        self.driver = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.root = f"http://127.0.0.1:{self._port()}"
            self.downloads = Path(self.profile.name) / "downloads"
            self.downloads.mkdir()
            options = {
                "binary": BROWSER,
                "args": [*FLAGS, f"--user-data-dir={self.profile.name}/profile"],
                "prefs": {
                    "download.default_directory": str(self.downloads),
                    "profile.default_content_setting_values.automatic_downloads": 1,  # several without a question
                },
            }
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
            self.session = ""
            self.session = self._ask("POST", "/session", {"capabilities": wanted})["sessionId"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if getattr(self, "session", ""):
                self._ask("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            if self.driver.stdout:
                self.driver.stdout.close()
            self.profile.cleanup()

    def open(self, page: Path) -> None:
        """Show a local file."""
        self._ask("POST", f"/session/{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page and return what it returns."""
        return self._ask("POST", f"/session/{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def look(self, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Set the size of the view in px, light or dark, screen or print."""
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **view)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.cdp("Emulation.setEmulatedMedia", media=media, features=features)

    def messages(self) -> list[dict[str, Any]]:
        """Return what the console said since it was last asked."""
        found: list[dict[str, Any]] = self._ask("POST", f"/session/{self.session}/se/log", {"type": "browser"})
        return found

    def picture(self, file: Path, whole: bool = True) -> None:
        """Save a PNG of the view, or of the whole page."""
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        more = {"captureBeyondViewport": True, "clip": {**size, "x": 0, "y": 0, "scale": 1}} if whole else {}
        file.write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", format="png", **more)["data"]))

    def printed(self, file: Path) -> None:
        """Save the page as PDF, as a printer gets it."""
        file.write_bytes(base64.b64decode(self.cdp("Page.printToPDF", printBackground=True)["data"]))

    def cdp(self, command: str, **values: Any) -> Any:
        """Send a command of the Chrome DevTools protocol."""
        told = {"cmd": command, "params": values}
        return self._ask("POST", f"/session/{self.session}/goog/cdp/execute", told)

    def _port(self) -> int:
        if self.driver.stdout is None:
            raise RuntimeError("chromedriver has no output")
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                return int(line.rpartition("port ")[2].strip().rstrip("."))
        raise RuntimeError("chromedriver did not start")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
        opener, end = build_opener(ProxyHandler({})), time.monotonic() + PATIENCE_S
        while True:
            try:
                with opener.open(request, timeout=PATIENCE_S) as answer:
                    return json.load(answer)["value"]
            except HTTPError as fault:
                with fault:
                    raise RuntimeError(fault.read().decode()[:2000]) from None
            except URLError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
