"""Headless Chromium, and its tabs by the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SECONDS = 90

# Headless, and without connections of its own to anywhere.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find():
    """The program. Exits with 77 if there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("there is no Chromium: Debian's package is chromium", file=sys.stderr)
        sys.exit(77)
    return chromium


def programs():
    """The folder of the argument; without one, that of the release build, which is made first."""
    if len(sys.argv) > 1:
        return pathlib.Path(sys.argv[1])
    subprocess.run(["cargo", "build", "--release", "-p", "anyloop-cli"], cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


class Browser:
    """A running browser that is driven over the DevTools protocol, by Python's websockets."""

    def __init__(self, chromium, profile):
        self.process = subprocess.Popen(
            [chromium, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = []
        self.address = None
        for line in self.process.stderr:
            self.errors.append(line)
            if line.startswith("DevTools listening on "):
                self.address = line.removeprefix("DevTools listening on ").strip()
                break
        if self.address is None:
            self.process.wait()
            sys.exit("Chromium did not start\n" + "".join(self.errors)[-2000:])
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        from websockets.sync.client import connect

        self.socket = connect(self.address, max_size=None, proxy=None)
        self.numbers = itertools.count(1)
        self.complaints = []

    def call(self, method, session=None, **params):
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": params}
        self.socket.send(json.dumps(request | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=SECONDS))
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def note(self, event):
        """Keeps what a page did wrong: exceptions, and violations of its policy."""
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        if event.get("method") == "Log.entryAdded" and params["entry"]["source"] == "security":
            self.complaints.append(params["entry"]["text"])

    def tab(self, url, *, theme="light", width=1280, height=900):
        return Tab(self, url, theme, width, height)

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def browser(chromium):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(chromium, profile)
        try:
            yield running
        finally:
            running.close()


class Tab:
    """A page in a window of its own."""

    def __init__(self, browser, url, theme, width, height):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.size(width, height)
        self.call("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, expression):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression):
        """Waits until an expression is true in the page. Returns its value."""
        end = time.monotonic() + SECONDS
        while not (value := self.value(expression)):
            if time.monotonic() > end:
                text = self.value("document.body.innerText")
                sys.exit(f"not within {SECONDS} s: {expression}\nthe page:\n{text}")
            time.sleep(0.05)
        return value

    def type(self, text):
        """Types into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            down = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **down)

    def screenshot(self, path, *, whole=True):
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(picture))
