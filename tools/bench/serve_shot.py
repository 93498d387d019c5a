#!/usr/bin/env python3
"""Use the page of `wenet_osum serve` in a headless Chromium as a person would, and take its
picture.

    python tools/bench/serve_shot.py --model exp/x/final --wav a.wav \\
        --task '<TRANSCRIBE><ALIGN><EMOTION>' --out docs/serve_page.png

Needs Debian's chromium and websocket-client. Exit status 1 when the page gives no answer.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (  # nothing of its own on the network, no dialogs, a microphone that beeps
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update "
    "--disable-sync --disable-default-apps --disable-extensions --metrics-recording-only "
    "--no-default-browser-check --hide-scrollbars "
    "--mute-audio --use-fake-device-for-media-stream --use-fake-ui-for-media-stream "
    "--autoplay-policy=no-user-gesture-required --remote-debugging-port=0"
)
# Names are looked up nowhere: whatever the browser wants, it gets to this machine alone.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
WAIT_S = 60.0


def find_browser() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Page:
    """A tab, by the DevTools protocol. ``requested`` are the addresses it asked for, ``faults``
    what went wrong in its scripts.
    """

    def __init__(self, socket_url: str, patience_s: float = WAIT_S) -> None:
        import websocket

        self.patience_s = patience_s
        self.socket = websocket.create_connection(
            socket_url, timeout=patience_s, suppress_origin=True
        )
        self.numbers, self.requested, self.faults = itertools.count(1), [], []
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result; events that come before it are noted."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.faults.append(
                params["exceptionDetails"].get("exception", {}).get("description")
                or params["exceptionDetails"]["text"]
            )
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def run(self, script: str) -> Any:
        """The value of an expression on the page; promises are waited for."""
        result = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, f"{script}: {result.get('exceptionDetails')}"
        return result["result"].get("value")

    def open(self, url: str, lang: str = "en-US") -> None:
        """Go to the page as a browser of that language and wait until it can be used."""
        agent = self.run("navigator.userAgent")
        self.call("Network.setUserAgentOverride", userAgent=agent, acceptLanguage=lang)
        self.call("Page.navigate", url=url)
        self.until("document.querySelectorAll('.osum .fields button').length > 0")

    def until(self, script: str) -> Any:
        """Wait for an expression to become true."""
        end = time.monotonic() + self.patience_s
        while not (value := self.run(script)):
            assert time.monotonic() < end, (
                f"{script} did not become true; {self.faults}; "
                f"{self.run('document.body.innerText')[:500]!r}"
            )
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click the first element a selector finds."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).dispatchEvent(new MouseEvent('click', "
            f"{{bubbles: true}}))"
        )

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.run(
            f"(document.querySelector({json.dumps(selector)}) || {{textContent: ''}}).textContent"
        )

    def choose_file(self, path: str | Path) -> None:
        """Give the page a file and wait until it has looked at it."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=".osum input[type=file]")[
            "nodeId"
        ]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(Path(path).resolve())])
        self.until(
            "document.querySelector('.osum "
            f".name').textContent.includes({json.dumps(Path(path).name)})"
        )

    def pick(self, tags: list[str]) -> None:
        """Ask for exactly these fields, in this order."""
        chosen = "'.osum .fields button.on'"
        self.run(
            f"document.querySelectorAll({chosen}).forEach(() => "
            f"document.querySelector({chosen}).click())"
        )
        for tag in tags:
            self.click(f'.osum .fields button[data-tag="{tag}"]')

    def width(self, wide: int, scale: float = 1.0) -> None:
        """Make the window so many CSS pixels wide; ``scale`` device pixels are drawn for each."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=wide,
            height=800,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def picture(self, path: str | Path) -> None:
        """A PNG of the whole page."""
        wide = self.run("innerWidth")
        deep = self.run(
            "Math.ceil(document.querySelector('.osum').getBoundingClientRect().bottom + scrollY) + "
            "24"
        )
        clip = {"x": 0, "y": 0, "width": wide, "height": deep, "scale": 1}
        data = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )["data"]
        Path(path).write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(patience_s: float = WAIT_S) -> Iterator[Page]:
    """A fresh headless browser with one tab."""
    import httpx

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        own = [OFFLINE, f"--user-data-dir={home}", "about:blank"]
        command = [find_browser(), *QUIET.split(), *own]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port, end = Path(home, "DevToolsActivePort"), time.monotonic() + patience_s
            while not (port.exists() and port.read_text().count("\n")):
                assert process.poll() is None and time.monotonic() < end, (
                    "the browser did not start"
                )
                time.sleep(0.05)
            tabs = httpx.get(
                f"http://127.0.0.1:{port.read_text().split()[0]}/json/list",
                timeout=patience_s,
                trust_env=False,
            ).json()
            yield Page(
                next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"),
                patience_s,
            )
        finally:
            process.terminate()
            process.wait(patience_s)


def tags_of(task: str) -> list[str]:
    """Tags as the page knows them: a modifier goes with its tag."""
    sys.path.insert(0, str(ROOT))
    from wenet_osum import tasks

    return [field.tag for field in tasks.parse(task).fields]


def main(argv: list[str] | None = None) -> int:
    """Serve, open, choose, ask, take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--wav", required=True, help="recording to ask about")
    parser.add_argument("--task", default="<TRANSCRIBE><ALIGN><EMOTION><GENDER>")
    parser.add_argument(
        "--lang", default="en-US", help="of the browser; zh-CN shows the page in Chinese"
    )
    parser.add_argument(
        "--wide", type=int, default=1080, help="width of the window in CSS pixels; 390 is a phone"
    )
    parser.add_argument(
        "--patience", type=float, default=WAIT_S, help="longest wait for one thing to happen, s"
    )
    parser.add_argument("--out", required=True, help="PNG to write")
    args = parser.parse_args(argv)
    tags = tags_of(args.task)
    model = (
        str(Path(args.model).resolve()) if Path(args.model).exists() else args.model
    )  # the server runs in another folder
    command = [sys.executable, "-m", "wenet_osum", "serve", "--model", model, "--port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        url = server.stdout.readline().strip()
        if not url:
            return 1
        with browser(args.patience) as page:
            page.width(args.wide)
            page.open(url, args.lang)
            page.choose_file(args.wav)
            page.pick(tags)
            page.click(".osum .go")
            page.until("!document.querySelector('.osum .go').disabled")
            failed = page.run("document.querySelector('.osum .message.bad') !== null")
            page.picture(args.out)
            print(
                re.sub(
                    r"\s*\n\s*", "\n", page.run("document.querySelector('.osum .answer').innerText")
                )
            )
    finally:
        server.terminate()
        server.wait(args.patience)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
