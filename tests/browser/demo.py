"""Uses the page of `anyloop serve` in headless Chromium. `demo` runs it."""

import contextlib
import os
import pathlib
import subprocess
import sys

import chromium

CONNECTED = "document.querySelector('#status').textContent === 'Connected'"
ENTER = ("Enter", 13, "\r")
TAB = ("Tab", 9)
AXE = pathlib.Path(os.environ["AXE"]).read_text()


def expect(actual, expected, what):
    if actual != expected:
        sys.exit(f"{what}: {actual!r}\nexpected {expected!r}")


@contextlib.contextmanager
def serve(anyloop, *options, listen="127.0.0.1:0"):
    """Runs a server. Yields its address."""
    command = [anyloop, "serve", "--listen", listen, *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().removeprefix("listening on ws://").strip()
    finally:
        server.terminate()
        server.wait()


def say(tab, path, text):
    tab.value(f"document.querySelector('#{path}-text').focus()")
    tab.type(text)
    tab.press(*ENTER)


def lines(tab, path):
    """The lines of a conversation: who and what."""
    items = f"[...document.querySelectorAll('#{path} li:not(.note)')]"
    return tab.value(f"{items}.map((li) => [li.children[0].textContent, li.children[1].textContent])")


def until_lines(tab, path, expected):
    count = f"document.querySelectorAll('#{path} li:not(.note)').length >= {len(expected)}"
    tab.until(count)
    expect(lines(tab, path), expected, path)


def messages_come_back(tab):
    say(tab, "echo", "κόσμε <b>")
    until_lines(tab, "echo", [["sent", "κόσμε <b>"], ["echo", "κόσμε <b>"]])
    expect(tab.value("document.querySelector('#echo-text').value"), "", "what was sent is cleared")
    time = tab.value("document.querySelector('#echo li:last-child small').textContent")
    number, unit = time.split(" ")
    expect((float(number) > 0, unit), (True, "ms"), f"the time of an echo, {time!r}")


def two_tabs_chat(one, other):
    say(one, "broadcast", "hello")
    until_lines(other, "broadcast", [["someone", "hello"]])
    say(other, "broadcast", "hello yourself")
    for tab, first, second in ((one, "you", "someone"), (other, "someone", "you")):
        until_lines(tab, "broadcast", [[first, "hello"], [second, "hello yourself"]])


def the_charts_show_numbers(tab):
    """Two tabs with three connections each; their pings are the traffic."""
    def number(chart):
        return f"parseFloat(document.querySelector('#{chart} .number').textContent)"

    tab.until(f"{number('connections')} === 6")
    for chart in ("messages", "bytes", "latency"):
        tab.until(f"{number(chart)} > 0")
        # Two points at least, so there is a line.
        tab.until(f"document.querySelector('#{chart} .line').getAttribute('d').includes('L')")
        label = tab.value(f"document.querySelector('#{chart} svg').getAttribute('aria-label')")
        expect("in the last minute" in label, True, label)


def bytes_are_counted_before_compression(tab):
    """A message that compresses well, there and back."""
    size = 50_000
    before = tab.value("before.payload")
    tab.value(f"echo.link.send(new Uint32Array({size} / 4))")
    tab.until(f"before?.payload >= {before + 2 * size}")
    counted = tab.value("before.payload") - before
    expect(counted < 3 * size, True, f"{counted} bytes are counted")


def facts_are_told(tab, address, extensions):
    facts = tab.value("[...document.querySelectorAll('dd')].slice(0, 3).map((dd) => dd.textContent)")
    expect(facts, [f"ws://{address}/echo", extensions, "none"], "what was agreed")


def it_reconnects(anyloop, tab, server, address):
    server.close()
    tab.until("document.querySelector('#status').textContent === 'Disconnected, reconnecting'")
    expect(tab.value("document.querySelector('#retry').hidden"), False, "the next attempt is shown")
    say(tab, "broadcast", "kept")
    tab.until("document.querySelector('#broadcast .refusal').textContent.startsWith('Not sent')")
    expect(tab.value("document.querySelector('#broadcast-text').value"), "kept", "the text")
    tab.until("document.querySelector('#connections .number').textContent.trim() === '–'")
    server.enter_context(serve(anyloop, listen=address))
    tab.until(CONNECTED)
    expect(tab.value("document.querySelector('#retry').hidden"), True, "no attempt is shown")
    tab.press(*ENTER)
    tab.until("[...document.querySelectorAll('#broadcast li.mine bdi')].at(-1)?.textContent === 'kept'")


def the_keyboard_reaches_all(tab):
    """Each control has the focus once, in the order of the page, and Space works the toggle."""
    tab.value("document.querySelector('#theme').focus()")
    reached = []
    for _ in range(6):
        tab.press(*TAB)
        focus = "(({id, className, textContent}) => id || className || textContent)(document.activeElement)"
        reached.append(tab.value(focus))
    expect(reached, ["log", "echo-text", "Send", "log", "broadcast-text", "Send"], "the order of the focus")
    background = "getComputedStyle(document.body).backgroundColor"
    before = tab.value(background)
    tab.value("document.querySelector('#theme').focus()")
    tab.press(" ", 32, " ")
    expect(tab.value(background) == before, False, "the theme has not changed")
    tab.press(" ", 32, " ")
    expect(tab.value(background), before, "the theme")


def a_flood_is_bounded(tab):
    """A thousand messages at once: the last ones are shown, and how many are not."""
    tab.value("for (let i = 0; i < 1000; i++) broadcast.link.send(`${i}`)")
    last = "[...document.querySelectorAll('#broadcast bdi')].at(-1)?.textContent"
    tab.until(f"{last} === '999'")
    count = tab.value("document.querySelectorAll('#broadcast li:not(.removed)').length")
    expect(count, 200, "the lines that are shown")
    note = tab.value("document.querySelector('#broadcast .removed').textContent")
    expect(note.endswith("older lines are not shown."), True, note)


def nothing_is_wider_than_the_window(tab, width):
    tab.size(width, 800)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    whole, visible = tab.value(widths)
    expect(whole, visible, f"the width of the page in a window of {width} pixels")


def axe_finds_nothing(tab, what):
    tab.value(AXE + ";0")
    violations = tab.value(
        "axe.run().then(({violations}) => violations.map(({id, nodes}) => [id, nodes.map((node) => node.html)]))"
    )
    expect(violations, [], f"axe-core, {what}")


def main():
    program = chromium.find()
    anyloop = chromium.programs() / "anyloop"
    with chromium.browser(program) as browser, contextlib.ExitStack() as server:
        address = server.enter_context(serve(anyloop))
        page = f"http://{address}/"
        one, other = browser.tab(page, theme="light"), browser.tab(page, theme="dark")
        for tab in (one, other):
            tab.until(CONNECTED)
        axe_finds_nothing(one, "before anything was said")
        messages_come_back(one)
        two_tabs_chat(one, other)
        the_charts_show_numbers(one)
        bytes_are_counted_before_compression(one)
        facts_are_told(one, address, "permessage-deflate; client_max_window_bits=10")
        the_keyboard_reaches_all(other)
        for tab, theme in ((one, "light"), (other, "dark")):
            axe_finds_nothing(tab, theme)
        for width in (320, 360, 768, 1280):
            nothing_is_wider_than_the_window(one, width)
        it_reconnects(anyloop, one, server, address)
        a_flood_is_bounded(one)
        server.close()
        for tab, width in ((one, 1280), (other, 360)):
            tab.size(width, 800)
            tab.until("!document.querySelector('#retry').hidden")
            axe_finds_nothing(tab, f"without a server, {width} pixels")
        expect(browser.complaints, [], "exceptions, and violations of the policy")
    print("anyloop serve: its page works in Chromium, and axe-core finds nothing")


if __name__ == "__main__":
    main()
