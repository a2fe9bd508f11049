"""Servers and loads as `compare`, `memory` and `syscalls` run them.

Only what is started here is ended here, by its process id.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import typing

BENCH = os.path.dirname(os.path.abspath(__file__))


class Scenario(typing.NamedTuple):
    """What `load` does to a server."""

    description: str
    options: str  # of `load`
    mode: str = ""  # `load`'s first word, if any
    one: str = "message"  # what is counted
    several: str = "messages"
    path: str | None = None  # where a server does it; else at the path that it names
    raw_path: str | None = None  # where the floor does it; else as the server


# The scenarios of the README.
SCENARIOS = {
    "a": Scenario("64 B, 32 connections, 1 in flight", "--size 64 --connections 32 --depth 1"),
    "b": Scenario("64 B, 32 connections, 64 in flight", "--size 64 --connections 32 --depth 64"),
    "c": Scenario("1 KiB, 200 connections, 1 in flight", "--size 1024 --connections 200 --depth 1"),
    "d": Scenario("16 KiB, 32 connections, 1 in flight", "--size 16384 --connections 32 --depth 1"),
    "e": Scenario("1 MiB, 4 connections, 1 in flight", "--size 1048576 --connections 4 --depth 1"),
    "t": Scenario("d as text", "--size 16384 --connections 32 --depth 1 --text"),
    "g": Scenario(
        "broadcast of 64 B to 500 connections, 1 message in flight; a delivery is a message to one connection",
        "--size 64 --connections 500 --depth 1",
        "broadcast", "delivery", "deliveries", path="/broadcast",
    ),
    "k": Scenario(
        "opening and closing, 64 connections at a time: connect, 101, Close, Close, end of stream",
        "--connections 64",
        "opening", "connection", "connections", raw_path="/close",
    ),
}

LISTENING = re.compile(r"listening on (?:ws://)?((?:127\.\d+\.\d+\.\d+|\[::1\]):\d+|unix:\S+?)(/[\w./-]*)?(?:\s|$)")


class Failure(Exception):
    """What ends a run: a sentence."""


def main(run):
    """Runs a program, and cleans up also when it is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(run())
    except Failure as failure:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def programs(parser):
    """Adds the options that all programs have."""
    parser.add_argument("--bin", metavar="DIR", help="take `load` and `floor` from here; do not build them")
    parser.add_argument("--server-core", default="0", metavar="N[,N..]", help="default: 0")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")


def built(options):
    """The directory of `load` and `floor`, built unless the options name one."""
    if options.bin:
        return options.bin
    root = os.path.dirname(BENCH)
    command = "cargo build --quiet --release -p anyloop-bench --bin load --bin floor"
    if subprocess.run(command.split(), cwd=root).returncode:
        raise Failure("`load` and `floor` could not be built")
    return os.path.join(root, os.environ.get("CARGO_TARGET_DIR", "target"), "release")


def start(core, command, prior=False, **streams):
    """Starts a command on one core: `prior`, before all else that wants the core, where that is allowed.

    Niceness would not do: a process that wakes waits for the slice of what runs, however nice that is.
    """
    first = ["chrt", "--fifo", "1"] if prior and os.geteuid() == 0 else []
    # These become the command, so that the process is its own.
    command = [*first, "taskset", "-c", core, *command]
    try:
        return subprocess.Popen(command, text=True, errors="replace", **streams)
    except OSError as error:
        raise Failure(f"{command[0]}: {error}") from error


def disturbed(figures):
    """Whether the server or `load` had to wait for its core, a twelfth of the time or more. Linux keeps a
    twentieth for others, whatever comes before them.
    """
    waited = max(figures["server_wait_seconds"], figures["load_wait_seconds"])
    return waited > figures["seconds"] / 12


def end(process):
    """Ends a process that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A server on a core of its own, from its `listening on` until the end of the `with` block."""

    def __init__(self, command, core, raw=False, prior=False):
        self.raw, self.prior = raw, prior
        self.process = start(
            core,
            shlex.split(command),
            prior,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.pid = self.process.pid
        self.said = []
        self.found = None
        self.known = threading.Event()
        threading.Thread(target=self.listen, daemon=True).start()
        self.known.wait(15)
        if not self.found:
            end(self.process)
            raise Failure(f"{command}: does not say where it listens\n{''.join(self.said)}")
        self.address, path = self.found.groups()
        self.path = path or "/"

    def listen(self):
        """Reads what the server says, to the end, so that it never waits for a reader."""
        for line in self.process.stdout:
            if not self.found:
                self.said.append(line)
                self.found = LISTENING.search(line)
                if self.found:
                    self.known.set()
        self.known.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def target(self, path=None):
        """The arguments of `load` that name this server."""
        return [self.address, "--path", path or self.path, *(["--raw"] if self.raw else [])]

    def run(self, bin_, core, scenario, options, path=None):
        """Runs `load` in a scenario, at a path if that is not the scenario's; returns its figures."""
        own = scenario.raw_path if self.raw and scenario.raw_path else scenario.path
        return self.load(bin_, core, [scenario.mode] if scenario.mode else [], path or own, [
            *scenario.options.split(), *options])

    def measure(self, bin_, core, options):
        """Runs `load`, to have echoes, to its end; returns its figures."""
        return self.load(bin_, core, [], None, options)

    def load(self, bin_, core, mode, path, options):
        command = [f"{bin_}/load", *mode, *self.target(path), "--server-pid", str(self.pid), "--json", *options]
        load = start(core, command, self.prior, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = load.communicate()
        finally:
            end(load)
        if load.returncode:
            raise Failure(err.strip() or f"load ended with {load.returncode}")
        return json.loads(out)

    def anonymous(self):
        """Bytes of the server's memory that are no file's, once that stands still for three seconds (or after
        twenty): a server may keep memory for the next message, and let go of it when none comes."""
        last, since = None, time.monotonic()
        end = since + 20
        while True:
            with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
                now = next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Anonymous:"))
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since >= 3 or time.monotonic() > end:
                return now
            time.sleep(0.2)

    def descriptors(self):
        """How many descriptors the server has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Idle:
    """Connections to a server that stay open until the end of the `with` block."""

    def __init__(self, server, bin_, core, connections):
        command = [f"{bin_}/load", "idle", *server.target(), "--connections", str(connections)]
        command += ["--control", "--keep", "600"]
        self.process = start(core, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.expect("ready")

    def expect(self, answer):
        """Waits for a line; `load` bounds the time."""
        line = self.process.stdout.readline().strip()
        if line != answer:
            end(self.process)
            raise Failure(f"{answer!r} was expected of the idle connections, not {line!r}")

    def start_echo(self, messages):
        """Has every connection send messages, one after the other; `expect("echoed")` waits for that."""
        self.process.stdin.write(f"echo {messages}\n")
        self.process.stdin.flush()

    def quit(self):
        """Closes all; returns how many were open until then, as `load` puts it."""
        out, _ = self.process.communicate("quit\n")
        return out.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
