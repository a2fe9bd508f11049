"""Starts servers and the load generator for `compare`, `memory` and `syscalls`.

Ends only the processes that it has started, by their process ids.
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
    """A scenario: how `load` uses a server."""

    description: str
    options: str  # options of `load`
    mode: str = ""  # the subcommand of `load`, if any
    one: str = "message"  # the name of the counted unit
    several: str = "messages"
    compressed: bool = False  # whether `load` reports how many bytes it has received
    path: str | None = None  # the path on a server; `None`: the path that the server reports
    raw_path: str | None = None  # the path on `floor`; `None`: as on a server


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

# For servers that speak TLS. What `load` measures over TLS is the server's choice: it says wss:// or ws://.
SCENARIOS["l"] = Scenario(
    "1 KiB, 64 connections, 1 in flight", "--size 1024 --connections 64 --depth 1",
)
SCENARIOS["r"] = SCENARIOS["k"]._replace(
    description="k, and TLS resumes sessions", options="--connections 64 --resume",
)
SCENARIOS["h"] = SCENARIOS["k"]._replace(
    description="handshakes of TLS, 64 connections at a time: connect, handshake, end of both streams",
    options="--connections 64 --handshake", raw_path=None,
)
SCENARIOS["s"] = SCENARIOS["h"]._replace(
    description="h, and TLS resumes sessions", options="--connections 64 --handshake --resume",
)

# Messages that are compressed. The window of the client is left to the server, as browsers do. All servers are slower
# than `load`, which must not sleep.
DEFLATE = "--deflate client_max_window_bits --spin"
SCENARIOS["i"] = Scenario(
    "4 KiB of JSON, compressed, 32 connections, 1 in flight",
    f"--size 4096 --connections 32 --depth 1 {DEFLATE}", compressed=True,
)
SCENARIOS["j"] = Scenario(
    "219 B of JSON, compressed, 32 connections, 1 in flight",
    f"--size 219 --connections 32 --depth 1 {DEFLATE}", compressed=True,
)

LISTENING = re.compile(r"listening on (?:(wss?)://)?((?:127\.\d+\.\d+\.\d+|\[::1\]):\d+|unix:\S+?)(/[\w./-]*)?(?:\s|$)")


class Failure(Exception):
    """An error that ends a run; its text is a sentence."""


def main(run):
    """Calls `run` and exits with its result. SIGTERM raises SystemExit, so that processes are cleaned up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(run())
    except Failure as failure:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def programs(parser):
    """Adds the options that all programs share."""
    parser.add_argument("--bin", metavar="DIR", help="use `load` and `floor` in this directory; do not build them")
    parser.add_argument("--server-core", default="0", metavar="N[,N..]", help="default: 0")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")


def built(options):
    """Returns the directory of `load` and `floor`. Builds them unless the options name a directory."""
    if options.bin:
        return options.bin
    root = os.path.dirname(BENCH)
    command = "cargo build --quiet --release -p anyloop-bench --bin load --bin floor"
    if subprocess.run(command.split(), cwd=root).returncode:
        raise Failure("`load` and `floor` could not be built")
    return os.path.join(root, os.environ.get("CARGO_TARGET_DIR", "target"), "release")


def start(core, command, prior=False, **streams):
    """Starts a command on one core. `prior`: with a real-time priority, if the user may set it.

    Niceness is not enough: a process that wakes up waits for the time slice of the running process to end.
    """
    first = ["chrt", "--fifo", "1"] if prior and os.geteuid() == 0 else []
    # `chrt` and `taskset` replace themselves by the command, so the process id is that of the command.
    command = [*first, "taskset", "-c", core, *command]
    try:
        return subprocess.Popen(command, text=True, errors="replace", **streams)
    except OSError as error:
        raise Failure(f"{command[0]}: {error}") from error


def disturbed(figures):
    """Whether the server or `load` has waited for its core for more than a twelfth of the time. Linux reserves
    a twentieth of the time for processes without real-time priority.
    """
    waited = max(figures["server_wait_seconds"], figures["load_wait_seconds"])
    return waited > figures["seconds"] / 12


def end(process):
    """Terminates a process of `start`; kills it after three seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A server on its own core: ready after the constructor, terminated at the end of the `with` block."""

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
            raise Failure(f"{command}: does not report the address that it listens on\n{''.join(self.said)}")
        scheme, self.address, path = self.found.groups()
        self.tls = scheme == "wss"
        self.path = path or "/"

    def listen(self):
        """Reads the output of the server to its end, so that a full pipe never blocks the server."""
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
        """Returns the arguments of `load` for this server."""
        flags = [flag for flag, given in (("--raw", self.raw), ("--tls", self.tls)) if given]
        return [self.address, "--path", path or self.path, *flags]

    def run(self, bin_, core, scenario, options, path=None):
        """Runs `load` in a scenario. `path` is used if the scenario has none. Returns the results of `load`."""
        own = scenario.raw_path if self.raw and scenario.raw_path else scenario.path
        return self.load(bin_, core, [scenario.mode] if scenario.mode else [], path or own, [
            *scenario.options.split(), "--server-pid", str(self.pid), *options])

    def measure(self, bin_, core, options):
        """Runs `load` in its echo mode with these options. Returns its results."""
        return self.load(bin_, core, [], None, ["--server-pid", str(self.pid), *options])

    def load(self, bin_, core, mode, path, options):
        command = [f"{bin_}/load", *mode, *self.target(path), "--json", *options]
        load = start(core, command, self.prior, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = load.communicate()
        finally:
            end(load)
        if load.returncode:
            raise Failure(err.strip() or f"load ended with {load.returncode}")
        return json.loads(out)

    def anonymous(self):
        """Returns the bytes of the server's anonymous memory, when they are unchanged for three seconds, or after
        twenty seconds: a server may keep memory for the next message, and free it later if there is none."""
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
        """Returns the number of open file descriptors of the server."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Idle:
    """Idle connections to a server, open until the end of the `with` block."""

    def __init__(self, server, bin_, core, connections, options=()):
        command = [f"{bin_}/load", "idle", *server.target(), "--connections", str(connections), *options]
        command += ["--control", "--keep", "600"]
        self.process = start(core, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.expect("ready")

    def expect(self, answer):
        """Waits for a line of `load`, which limits the time, and fails if it is not `answer`."""
        line = self.process.stdout.readline().strip()
        if line != answer:
            end(self.process)
            raise Failure(f"the idle connections: expected {answer!r}, got {line!r}")

    def start_echo(self, messages):
        """Sends `messages` messages on each connection, one after the other. `expect("echoed")` waits for the end."""
        self.process.stdin.write(f"echo {messages}\n")
        self.process.stdin.flush()

    def quit(self):
        """Closes all connections. Returns the report of `load` on how many were open until then."""
        out, _ = self.process.communicate("quit\n")
        return out.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
