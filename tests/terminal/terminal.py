"""`anyloop connect` under tmux, at 80 columns: what a person sees.

    terminal.py PROGRAMS [--show]

PROGRAMS is the directory of `anyloop`. Each step waits for the contents of the screen. --show prints them.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paced_server import BINARY, CONTINUATION, PING, TEXT, PacedServer

COLUMNS, ROWS = 80, 24
DEADLINE = 20  # seconds for anything that is waited for, on a slow machine
PROMPT = re.compile(r"^> ?$")
TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} ")
MIB = 1 << 20
# More than the sockets between a program that waits for its peer and the peer hold.
LARGE = 32 * MIB
SENDING = re.compile(r"^sending \S{24} \d+\.\d\d MiB of 32\.00 MiB, \d.*/s, \d.* left$")


class Terminal:
    """A tmux session of its own server, with a shell that runs one command."""

    def __init__(self, folder, show):
        self.show = show
        self.socket = str(Path(folder) / "tmux")
        environment = {
            "HOME": str(folder),
            "XDG_STATE_HOME": str(Path(folder) / "state"),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
        }
        self.environment = environment
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "env PS1='$ ' sh -i")
        self.tmux("set-option", "-g", "status", "off")

    def start(self, command):
        self.wait("a shell", lambda rows: rows[-1:] == ["$"])
        self.type(command)
        self.press("Enter")

    def tmux(self, *arguments, text=None):
        command = ["tmux", "-u", "-S", self.socket, *arguments]
        ended = subprocess.run(command, input=text, env=self.environment, capture_output=True, text=True)
        if ended.returncode != 0:
            raise SystemExit(f"terminal: {' '.join(arguments)}: {ended.stderr}")
        return ended.stdout

    def type(self, text):
        self.tmux("send-keys", "-l", "--", text)

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def paste(self, text):
        """Pastes as a terminal that marks what is pasted, if the program asked for that."""
        self.tmux("load-buffer", "-", text=text)
        self.tmux("paste-buffer", "-p")

    def resize(self, columns):
        self.tmux("resize-window", "-x", str(columns), "-y", str(ROWS))

    def rows(self):
        """The rows without empty ones at the end, and without the times."""
        rows = self.tmux("capture-pane", "-p").split("\n")
        rows = [TIME.sub("", row.rstrip()) for row in rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def column(self):
        return int(self.tmux("display-message", "-p", "#{cursor_x}"))

    def wait(self, what, condition):
        """Waits until the rows fulfil a condition, and returns them."""
        end = time.monotonic() + DEADLINE
        while True:
            rows = self.rows()
            if condition(["", "", *rows]):  # there may be no row yet
                if self.show:
                    print(f"--- {what}", *rows, sep="\n", flush=True)
                return rows
            if time.monotonic() > end:
                raise SystemExit(f"terminal: {what}: the screen is\n" + "\n".join(rows))
            time.sleep(0.02)  # between two looks

    def expect(self, what, *last):
        """Waits until these are the last rows. The prompt has no space at its end here."""
        return self.wait(what, lambda rows: rows[-len(last):] == list(last))

    def kill(self):
        self.tmux("kill-server")


def check(what, holds):
    if not holds:
        raise SystemExit(f"terminal: {what} does not hold")


def talk(terminal):
    terminal.wait("connected", lambda rows: rows[-1] == ">" and any(row.startswith("* connected") for row in rows))
    terminal.type("hello")
    terminal.press("Enter")
    terminal.expect("a message and its answer", "> text 5 B: hello", "< text 5 B: hello", ">")
    terminal.type("κόσμε 世界 🌍")
    terminal.press("Enter")
    terminal.expect("Unicode", "> text 22 B: κόσμε 世界 🌍", "< text 22 B: κόσμε 世界 🌍", ">")
    terminal.type("bell ")
    terminal.press("C-v", "C-g")  # a control character, quoted
    terminal.press("Enter")
    terminal.wait("control characters", lambda rows: "< text 6 B: bell \\u{7}" in rows and rows[-1] == ">")

    terminal.press("Up", "Up")
    terminal.expect("the history", "> κόσμε 世界 🌍")
    terminal.press("C-c")
    terminal.expect("Ctrl-C clears the line", ">")
    terminal.type("/st")
    terminal.press("Tab")
    terminal.expect("completion", "> /stats")
    terminal.press("Enter")
    terminal.wait("/stats", lambda rows: rows[-1] == ">" and "sent 3 messages" in rows[-2])
    terminal.type("/")
    terminal.press("Tab", "Tab")
    terminal.wait("the commands", lambda rows: any("/binary" in row and "/help" in row for row in rows))
    terminal.press("C-c")
    terminal.type("/nothing")
    terminal.press("Enter")
    terminal.wait("an unknown command", lambda rows: any("there is no command /nothing" in row for row in rows))
    terminal.type("//slash")
    terminal.press("Enter")
    terminal.wait("a slash", lambda rows: rows[-2:] == ["< text 6 B: /slash", ">"])


def send_full_rows(terminal):
    """Lines that end in the last column, with the prompt before them."""
    full = "y" * (COLUMNS - 2)
    terminal.type(full)
    terminal.expect("a full row", f"> {full}")
    terminal.press("Enter")
    expect_sent(terminal, "no row is empty", full, after="client_max_window_bits=10")
    terminal.type(full)
    terminal.press("Left", "Left", "Enter")
    expect_sent(terminal, "nor with the cursor before the end", full, after=full[-20:])
    for keys in [], ["Left", "Left"]:
        command = "/nothing ".ljust(COLUMNS - 2, "z")
        terminal.type(command)
        terminal.press(*keys, "Enter")
        unknown = "* there is no command /nothing: "
        terminal.wait(
            "nor below a command",
            lambda rows: rows[-3] == f"> {command}" and rows[-2].startswith(unknown) and rows[-1] == ">",
        )
        terminal.type("/help")
        terminal.press("Enter")
        terminal.wait("another line", lambda rows: rows[-1] == ">" and "searches the history" in rows[-2])


def type_while_messages_arrive(terminal, publish):
    """`publish` sends messages to the terminal's connection."""
    terminal.type("a half-typed li")
    terminal.expect("a line is being typed", "> a half-typed li")
    publish(*(f"news {n}" for n in range(40)))
    rows = terminal.wait("news above the line", lambda rows: rows[-2:] == ["< text 7 B: news 39", "> a half-typed li"])
    check("each message has a row", rows[-12:-1] == [f"< text 7 B: news {n}" for n in range(29, 40)])
    check("the cursor is behind the line", terminal.column() == len("> a half-typed li"))
    terminal.type("ne")
    terminal.expect("typing goes on", "> a half-typed line")

    # A line with two rows, and the cursor in the first one.
    terminal.press("C-a", "C-k")
    words = " ".join(f"word{n:02}" for n in range(16))
    terminal.type(words)
    long = f"> {words}"
    terminal.expect("a line with two rows", long[:COLUMNS], long[COLUMNS:])
    terminal.press("C-a")
    publish("x" * 100, "after that")
    wrapped = f"< text 100 B: {'x' * 100}"
    terminal.wait("above both rows", lambda rows: rows[-3:] == ["< text 10 B: after that", long[:COLUMNS], long[COLUMNS:]])
    rows = terminal.rows()
    check("a long message is whole", "".join(TIME.sub("", row) for row in rows[-5:-3]) == wrapped)
    check("the cursor is at the beginning", terminal.column() == 2)

    terminal.resize(60)
    terminal.wait("narrower", lambda rows: rows[-2:] == [long[:60], long[60:]])
    publish("narrow")
    terminal.wait("above the narrow line", lambda rows: rows[-3:] == ["< text 6 B: narrow", long[:60], long[60:]])
    terminal.resize(COLUMNS)
    terminal.wait("wide again", lambda rows: rows[-2:] == [long[:COLUMNS], long[COLUMNS:]])
    publish("wide")
    terminal.wait("above the wide line", lambda rows: rows[-3:] == ["< text 4 B: wide", long[:COLUMNS], long[COLUMNS:]])
    terminal.press("Enter")
    expect_sent(terminal, "the line is sent, with the cursor at its beginning", words, after="< text 4 B: wide")


def expect_sent(terminal, what, text, after):
    """Waits until a line of several rows was sent and has come back, right below a row that ends with `after`."""
    both = "".join(f"{arrow} text {len(text)} B: {text}" for arrow in "><").replace(" ", "")

    def is_shown(rows):
        above = [index for index, row in enumerate(rows) if row.endswith(after)]
        shown = ["".join(rows[index + 1:-1]).replace(" ", "") for index in above]
        return rows[-1] == ">" and both in shown and not any(row == "" for row in rows[above[0]:])

    terminal.wait(what, is_shown)


def paste(terminal):
    lines = [f"line {n} of what is pasted" for n in range(300)]
    text = "\n".join(lines)
    terminal.paste(text)
    terminal.wait("a paste", lambda rows: rows[-1] == lines[-1])
    terminal.press("Enter")
    terminal.wait("the answer to a paste", lambda rows: rows[-1] == ">" and rows[-2] == f"  {lines[-1]}")
    terminal.type("/stats")
    terminal.press("Enter")
    return len(text)


def lose_the_connection(start, anyloop):
    """A line that is typed while there is no connection."""
    server = PacedServer()
    terminal = start(f"{anyloop} connect {server.url} --reconnect --handshake-timeout 0")
    server.accept()
    terminal.wait("connected", lambda rows: rows[-1] == ">")
    terminal.type("half a li")
    terminal.expect("a line is being typed", "> half a li")
    server.stream.close()
    again = "* trying again in 0.5 s: "
    terminal.wait("the connection is lost", lambda rows: any(row.startswith(again) for row in rows) and rows[-1] == "> half a li")
    terminal.type("ne")
    terminal.press("Enter")
    refusal = '* not connected: the line was not sent; type it again after "connected"'
    terminal.expect("the line is not sent", "> half a line", refusal, ">")
    server.accept()
    terminal.wait("connected again", lambda rows: rows[-1] == ">" and rows[-2].startswith("* connected"))
    terminal.press("Up", "Enter")
    terminal.expect("the line is sent", "> text 11 B: half a line", ">")
    server.close()
    terminal.wait("the server has closed", lambda rows: rows[-1] == "$")


def send_a_file(start, anyloop, folder):
    """The progress bar of a file that is sent."""
    file = Path(folder) / "large"
    file.write_bytes(os.urandom(LARGE))
    server = PacedServer()
    terminal = start(f"{anyloop} connect {server.url} --no-deflate")
    server.accept()
    terminal.wait("connected", lambda rows: rows[-1] == ">")
    terminal.type(f"/binary {file}")
    terminal.press("Enter")
    terminal.wait("a bar", lambda rows: SENDING.match(rows[-1]))
    server.send(TEXT, b"news")
    terminal.wait("a message above the bar", lambda rows: rows[-2] == "< text 4 B: news" and SENDING.match(rows[-1]))
    server.receive(LARGE)
    terminal.expect("the file is sent", "< text 4 B: news", f"> binary {LARGE} B: {file}", ">")
    terminal.type("hi")
    terminal.expect("typing goes on", "> hi")
    terminal.press("C-c", "C-d")
    server.close()
    terminal.wait("closed", lambda rows: rows[-1] == "$")
    return file


def receive_a_file(start, anyloop, folder):
    """The progress bar of a message that is written to a file."""
    file = Path(folder) / "received"
    server = PacedServer()
    terminal = start(f"{anyloop} connect {server.url} --once --output {file}; echo status $?")
    server.accept()
    server.send(BINARY, b"x" * 5 * MIB, last=False)
    receiving = re.compile(r"^receiving 5\.00 MiB, \d.*/s, \d+s so far$")
    terminal.wait("a bar", lambda rows: receiving.match(rows[-1]))
    zero = re.compile(r"^receiving 5\.00 MiB, \d+(\.\d+)? (B|KiB)/s, \d+s so far$")
    terminal.wait("the rate falls while nothing arrives", lambda rows: zero.match(rows[-1]))
    check("the part is in the file", file.stat().st_size == 5 * MIB)
    server.send(CONTINUATION, b"y")
    server.close()
    rows = terminal.wait("the bar is erased", lambda rows: rows[-2:] == ["status 0", "$"])
    check("nothing is left of the bar", not any("receiving" in row for row in rows))
    check("the file is whole", file.read_bytes() == b"x" * 5 * MIB + b"y")


def send_and_receive_a_file(start, anyloop, folder, file):
    """One bar at a time, and an end inside of the message."""
    server = PacedServer()
    received = Path(folder) / "part"
    options = f"--no-deflate --binary {file} --once -o {received}"
    terminal = start(f"clear; {anyloop} connect {server.url} {options}; echo status $?")
    server.accept()
    terminal.wait("a bar", lambda rows: SENDING.match(rows[-1]))
    server.send(BINARY, b"x" * MIB, last=False)
    server.receive(LARGE)
    server.send(CONTINUATION, b"x", last=False)
    rows = terminal.wait("the other bar", lambda rows: rows[-1].startswith("receiving 1.00 MiB, "))
    check("the first bar is erased", not any("sending" in row for row in rows))
    server.close()
    rows = terminal.wait("the end", lambda rows: rows[-2:] == ["status 1", "$"])
    check("nothing is left of the bar", not any("receiving" in row for row in rows))
    words = f"part ends with the first {MIB + 1} bytes of a message"
    check("it says what is there", words.replace(" ", "") in "".join(rows).replace(" ", ""))


def receive_a_file_from_two_connections(start, anyloop, folder):
    """The progress bar does not count what --reconnect removes."""
    file = Path(folder) / "again"
    server = PacedServer()
    terminal = start(f"{anyloop} connect {server.url} --subscribe --reconnect -o {file}")
    server.accept()
    server.send(BINARY, b"x" * MIB)
    server.send(BINARY, b"y" * MIB, last=False)
    terminal.wait("a bar", lambda rows: rows[-1].startswith("receiving 2.00 MiB, "))
    server.stream.close()
    terminal.wait("the part is gone", lambda rows: rows[-1].startswith("receiving 1.00 MiB, "))
    server.accept()
    server.close()
    terminal.wait("closed", lambda rows: rows[-1] == "$")
    check("the file has what is whole", file.read_bytes() == b"x" * MIB)


def receive_a_file_while_lines_are_typed(start, anyloop, folder):
    """No progress bar where the terminal is typed at without a prompt."""
    file = Path(folder) / "lines"
    server = PacedServer()
    terminal = start(f"clear; {anyloop} connect {server.url} -o {file} >/dev/null; echo status $?")
    server.accept()
    server.send(BINARY, b"x" * MIB, last=False)
    server.send(PING, b"written?")
    server.receive(2 + 4 + len(b"written?"))
    terminal.type("a half-typed li")
    rows = terminal.wait("a line is being typed", lambda rows: rows[-1] == "a half-typed li")
    check("there is no bar", not any("receiving" in row for row in rows))
    server.send(CONTINUATION, b"")
    server.close()
    terminal.wait("closed", lambda rows: "status 0" in rows[-2] and rows[-1] == "$")


def write_what_arrives_while_typing(start, anyloop, folder):
    file = Path(folder) / "typed"
    server = PacedServer()
    terminal = start(f"{anyloop} connect {server.url} --output {file}")
    server.accept()
    terminal.wait("connected", lambda rows: rows[-1] == ">")
    terminal.type("a half-typed li")
    terminal.expect("a line is being typed", "> a half-typed li")
    server.send(BINARY, b"x" * 5 * MIB, last=False)
    size = 5 * MIB
    receiving = re.compile(r"^\* receiving 5\.\d\d MiB, \d.*/s$")

    def is_shown_above(line, rows):
        """The status is drawn once a second, when a part arrives."""
        nonlocal size
        server.send(CONTINUATION, b"x", last=False)
        size += 1
        return receiving.match(rows[-2]) and rows[-1] == line

    terminal.wait("a status above the line", lambda rows: is_shown_above("> a half-typed li", rows))
    terminal.type("ne")
    terminal.wait("typing goes on", lambda rows: receiving.match(rows[-2]) and rows[-1] == "> a half-typed line")
    terminal.press("Enter")
    terminal.wait("the line is sent", lambda rows: "> text 17 B: a half-typed line" in rows)
    terminal.wait("a status again", lambda rows: is_shown_above(">", rows))
    server.send(CONTINUATION, b"")
    rows = terminal.expect("it is written", f"< binary {size} B: written to {file}", ">")
    check("nothing is left of the status", not any("receiving" in row for row in rows))
    server.close()
    terminal.wait("closed", lambda rows: rows[-1] == "$")


def end_serve(terminal):
    terminal.wait("the status line", lambda rows: rows[-1].startswith("0 connections, "))
    terminal.press("C-c")
    rows = terminal.wait("Ctrl-C ends serve", lambda rows: rows[-1] == "$")
    check("nothing is left of the status line", not any("connections" in row for row in rows))


def main():
    programs, show = Path(sys.argv[1]).resolve(), "--show" in sys.argv
    anyloop = programs / "anyloop"
    listening = [anyloop, "serve", "--listen", "127.0.0.1:0"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(listening, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        url = server.stdout.readline().removeprefix("listening on ").strip()

        def start(command):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            terminal = Terminal(folder, show)
            stack.callback(terminal.kill)
            terminal.start(command)
            return terminal

        def connect(path):
            return start(f"{anyloop} connect {url}{path}")

        def publish(*messages):
            lines = "".join(f"{message}\n" for message in messages)
            sending = [anyloop, "connect", f"{url}/broadcast", "--wait", "0"]
            subprocess.run(sending, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)

        echo = connect("/echo")
        talk(echo)
        size = paste(echo)
        echo.wait("all of it came back", lambda rows: any(f"with {size + 39} bytes" in row for row in rows[-2:]))
        echo.press("C-d")
        echo.expect("Ctrl-D closes", ">", "< close 1000:", "$")
        echo.type("echo typed $?")
        echo.press("Enter")
        echo.expect("the terminal is as before", "$ echo typed $?", "typed 0", "$")

        chat = connect("/broadcast")
        chat.wait("connected", lambda rows: rows[-1] == ">")
        send_full_rows(chat)
        type_while_messages_arrive(chat, publish)
        chat.press("C-c")
        chat.expect("Ctrl-C closes", ">", "< close 1000:", "$")

        folder = stack.enter_context(tempfile.TemporaryDirectory())
        lose_the_connection(start, anyloop)
        file = send_a_file(start, anyloop, folder)
        receive_a_file(start, anyloop, folder)
        send_and_receive_a_file(start, anyloop, folder, file)
        receive_a_file_from_two_connections(start, anyloop, folder)
        receive_a_file_while_lines_are_typed(start, anyloop, folder)
        write_what_arrives_while_typing(start, anyloop, folder)

        end_serve(start(f"{anyloop} serve --listen 127.0.0.1:0"))
    print("terminal: all of it was on the screen")


if __name__ == "__main__":
    main()
