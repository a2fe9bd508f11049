"""A picture of the page of `anyloop serve`, for README.md. `picture` runs it."""

import argparse
import os
import subprocess
import sys

import chromium
from demo import CONNECTED, say, serve, until_lines

# Messages a second, and connections, of some seconds each: so the charts have something to show.
LOADS = [(60, 4), (180, 8), (320, 20), (140, 12), (260, 16), (420, 24), (220, 10)]
CHAT = [
    (1, "Is anybody here?"),
    (0, "Yes. This page is open twice."),
    (1, "Then these are the two of us."),
    (0, "And the charts count us both."),
]


# The width, in pixels, below which the page has one column and is longer than the window.
NARROW = 832


def main():
    parser = argparse.ArgumentParser(prog="picture FILE")
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("programs", nargs="?")
    options = parser.parse_args()
    sys.argv[1:] = [options.programs] if options.programs else []  # of `chromium.programs`
    program = chromium.find()
    anyloop = chromium.programs() / "anyloop"
    with chromium.browser(program) as browser, serve(anyloop) as address:
        window = {"theme": options.theme, "width": options.width, "height": 790}
        tabs = [browser.tab(f"http://{address}/", **window) for _ in range(2)]
        tabs[0].call("Emulation.setScrollbarsHidden", hidden=True)
        for tab in tabs:
            tab.until(CONNECTED)
        for rate, connections in LOADS:
            load = ["--rate", str(rate), "--connections", str(connections), "--duration", "6", "--size", "200"]
            command = [anyloop, "bench", f"ws://{address}/echo", *load]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shown = []
        for sender, text in CHAT:
            say(tabs[sender], "broadcast", text)
            shown.append(["you" if sender == 0 else "someone", text])
            until_lines(tabs[0], "broadcast", shown)
        exchanged = []
        for text in "Hello, Anyloop", "Γειά σου Κόσμε":
            say(tabs[0], "echo", text)
            exchanged += [["sent", text], ["echo", text]]
            until_lines(tabs[0], "echo", exchanged)
        tabs[0].value("document.activeElement.blur()")
        tabs[0].screenshot(os.environ["PICTURE"], whole=options.width < NARROW)


main()
