"""Python's websockets against the examples, as their clients, servers and children. See `examples`."""

import asyncio
import http
import os
import re
import signal
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from urllib.request import urlopen

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve, unix_serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

SECONDS = 60
MIB = 1 << 20
PIPE = asyncio.subprocess.PIPE


class Program:
    """An example that runs. What it prints is waited for; nothing here waits for time."""

    def __init__(self, process):
        self.process = process

    async def line(self, pattern):
        """The next line that matches; lines before it are skipped."""
        while line := (await self.process.stdout.readline()).decode():
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no line matches {pattern}")

    async def rest(self):
        """What else it prints, when it has ended without an error."""
        out = (await self.process.communicate())[0].decode()
        assert self.process.returncode == 0, (self.process.returncode, out)
        return out

    def write(self, text):
        self.process.stdin.write(text.encode())


@asynccontextmanager
async def run(name, *arguments):
    process = await asyncio.create_subprocess_exec(
        os.path.join(sys.argv[1], name), *map(str, arguments), stdin=PIPE, stdout=PIPE
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def run_server(name, *arguments):
    """An example that says where it listens; and that place."""
    async with run(name, "127.0.0.1:0", *arguments) as program:
        yield program, (await program.line(r"listening on (ws://\S+)"))[1]


def url_of(server):
    return "ws://%s:%d/" % server.sockets[0].getsockname()


async def open_silently(url, path="/"):
    """A connection that is open, and whose client neither reads nor answers anything."""
    client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status = await asyncio.to_thread(client.recv, 12)
    assert status == b"HTTP/1.1 101", status
    return client


async def refused(url, **options):
    """The response to a request that is refused."""
    try:
        async with connect(url, **options):
            raise AssertionError("accepted")
    except InvalidStatus as error:
        return error.response


async def broadcast_server():
    async with run_server("broadcast_server") as (program, url):
        async with connect(url) as one, connect(url) as other:
            await program.line("^2 connected")
            await one.send("news")
            await other.send(b"\x01\x02")
            for client in one, other:
                assert {await client.recv(), await client.recv()} == {"news", b"\x01\x02"}
        await program.line("^0 connected")


async def telemetry_server():
    with tempfile.TemporaryDirectory() as folder:
        docroot = os.path.join(folder, "docroot")
        os.mkdir(docroot)
        for path in os.path.join(docroot, "index.html"), os.path.join(folder, "secret"):
            with open(path, "w") as file:
                file.write(os.path.basename(path))
        async with run_server("telemetry_server", docroot, 10) as (_, url):
            async with connect(url) as client:
                first = int((await client.recv()).removeprefix("count "))
                assert await client.recv() == f"count {first + 1}"

            def get(path):
                host, port = url.removeprefix("ws://").split(":")
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    return b"".join(iter(lambda: connection.recv(4096), b""))

            answer = await asyncio.to_thread(get, "/index.html")
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"index.html"), answer
            for path in "/none", "/../secret", "/":
                answer = await asyncio.to_thread(get, path)
                assert answer.startswith(b"HTTP/1.1 404 "), answer


async def telemetry_client():
    counts, stable = asyncio.Queue(), asyncio.Event()

    async def count_two(client):
        for _ in range(2):
            await counts.put(await client.recv())
        await client.close(1012)

    async with serve(count_two, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with run("telemetry_client", f"ws://127.0.0.1:{port}/", 6, 5) as program:
            assert [await counts.get() for _ in range(2)] == ["count 0", "count 1"]
            await program.line("^closed, by peer")
            await program.line("next attempt is in 50ms")
            server.close()
            await server.wait_closed()
            # Nobody listens now, until it has tried in vain.
            await program.line("^not connected: .*refused")
            await program.line("next attempt is in 100ms")
            async with serve(count_two, "127.0.0.1", port):
                await program.line("^connected to")
                await counts.get()
                await program.line("^closed")
                # A connection that was open for a moment only does not shorten the time.
                delay = (await program.line("next attempt is in (.*)"))[1]
                assert delay not in ("50ms", "100ms"), delay
                await program.rest()

    waits = iter((False, True))

    async def close_the_second_when_stable(client):
        if next(waits, False):
            await stable.wait()
        await client.close(1012)

    async with serve(close_the_second_when_stable, "127.0.0.1", 0) as server:
        async with run("telemetry_client", url_of(server), 1_000_000) as program:
            await program.line("next attempt is in 50ms")
            await program.line("^stable$")
            stable.set()
            await program.line("^closed, by peer")
            await program.line("next attempt is in 50ms")


async def poll_loop():
    inputs = asyncio.Queue()

    async def collect(client):
        await inputs.put([message async for message in client])

    # The whole input is there before the connection is open.
    async with serve(collect, "127.0.0.1", 0) as server:
        async with run("poll_loop", url_of(server)) as program:
            program.write("one\ntwo\n")
            program.process.stdin.close()
            await program.line("^closed cleanly: true")
            await program.rest()
        assert await inputs.get() == ["one", "two"]

    async def echo(client):
        async for message in client:
            await client.send(message.upper())

    async with serve(echo, "127.0.0.1", 0) as server:
        async with run("poll_loop", url_of(server)) as program:
            program.write("hello\nand ")
            await program.line("^HELLO$")
            program.write("good-bye\n")
            await program.line("^AND GOOD-BYE$")
            await program.line("^0 bytes wait")  # the timer
            program.process.stdin.close()
            assert "closed cleanly: true\n" in await program.rest()


async def adopt_upgrade():
    async with run_server("adopt_upgrade") as (program, url):
        page = await asyncio.to_thread(lambda: urlopen(f"http{url[2:]}/page").read())
        assert page == b"you asked for /page\n", page
        # Half of a request holds nobody up.
        slow_reader, slow_writer = await asyncio.open_connection("127.0.0.1", url.rpartition(":")[2])
        slow_writer.write(b"GET /slow HTTP/1.1\r\nHo")
        async with connect(url) as client:
            await program.line("connected")
            await client.send("hello")
            assert await client.recv() == "hello"
            slow_writer.write(b"st: a\r\n\r\n")
            assert (await slow_reader.read()).endswith(b"\r\n\r\nyou asked for /slow\n")
            slow_writer.close()
        # The answer to a request that cannot be accepted is written too.
        reader, writer = await asyncio.open_connection("127.0.0.1", url.rpartition(":")[2])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def subprotocol_auth():
    async with run_server("subprotocol_auth") as (_, url):
        token = {"additional_headers": {"Authorization": "Bearer annasus"}}
        async with connect(url, subprotocols=["soap", "chat.v1"], **token) as client:
            assert client.subprotocol == "chat.v1"
            assert client.response.headers["X-Session"] == "7"
            assert await client.recv() == "welcome, susanna"
        async with connect(url, subprotocols=["chat.v1", "chat.v2"], **token) as client:
            assert client.subprotocol == "chat.v2"
        response = await refused(url, subprotocols=["soap"], **token)
        assert response.status_code == http.HTTPStatus.BAD_REQUEST
        response = await refused(url, subprotocols=["chat.v1"])
        assert response.status_code == http.HTTPStatus.UNAUTHORIZED
        stranger = {"additional_headers": {"Authorization": "Bearer ydobon"}}
        response = await refused(url, subprotocols=["chat.v1"], **stranger)
        assert (response.status_code, response.body) == (401, b"unknown token\n")
        response = await refused(url, subprotocols=["chat.v1"], origin="https://evil.example")
        assert response.status_code == http.HTTPStatus.FORBIDDEN


async def chat_rooms():
    async with run_server("chat_rooms") as (program, url):
        async with connect(f"{url}/tea") as anna, connect(f"{url}/dogs") as rex:
            assert await anna.recv() == await rex.recv() == "somebody has come"
            async with connect(f"{url}/tea") as bob:
                assert await anna.recv() == await bob.recv() == "somebody has come"
                await bob.send("milk?")
                assert await anna.recv() == await bob.recv() == "milk?"
            assert await anna.recv() == "somebody has left"
            await rex.send("wuff")
            assert await rex.recv() == "wuff"  # and nothing of the tea

            # A guest that does not read, while another one writes much.
            slow = await open_silently(url, "/tea")
            assert await anna.recv() == "somebody has come"
            text = "x" * 60000
            for _ in range(200):  # more than the kernel's buffers and the server's hold
                await anna.send(text)
                assert await anna.recv() == text
            await program.line("^/tea: .* bytes wait for a guest")
            await program.line('^/tea: left, by .* "too slow to read"')
            assert await anna.recv() == "somebody has left"
            slow.close()


async def router():
    async with run_server("router") as (_, url):
        async with connect(f"{url}/echo") as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        async with connect(f"{url}/rooms/caf%C3%A9") as anna, connect(f"{url}/rooms/tea") as bob:
            await anna.send("milk?")
            assert await anna.recv() == "milk?"

            def post(path, body=None):
                with urlopen(f"http{url[2:]}{path}", body) as response:
                    return response.status, response.read()

            assert await asyncio.to_thread(post, "/rooms/tea", b"biscuits") == (202, b"sent\n")
            assert await bob.recv() == "biscuits"  # and nothing of the other room
            status, page = await asyncio.to_thread(post, "/")
            assert (status, b"/rooms/NAME" in page) == (200, True), page
        for path, status in ("/rooms/private", 403), ("/rooms", 404), ("/", 404), ("/echo/", 404):
            assert (await refused(url + path)).status_code == status, path
        reader, writer = await asyncio.open_connection("127.0.0.1", url.rpartition(":")[2])
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 405 ") and b"allow: GET, HEAD\r\n" in answer, answer
        writer.close()


async def net_loop_per_core():
    loops = set()
    async with run_server("net_loop_per_core", 2) as (program, url):
        for _ in range(64):  # the system chooses a loop for each, and will not choose one for all
            async with connect(url) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
            loops.add((await program.line("^loop (.): 127"))[1])
    assert loops == {"0", "1"}, loops


async def child_pipes():
    script = os.path.join(os.path.dirname(__file__), "example_child.py")
    async with run("child_pipes", sys.executable, script) as program:
        assert await program.rest() == (
            "HELLO, CHILD\nclosed cleanly: true\nthe child: exit status: 0\n"
        )


async def handler_test():
    async with run_server("handler_test") as (_, url):
        async with connect(url) as client:
            assert await client.recv() == "what is 6 x 7?"
            await client.send("41")
            assert await client.recv() == "wrong"
            await client.send("42")
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1000, "right")


async def gigabyte():
    """Each way: 1 GiB with the example as the server, and less with it as the client, which has the same handler."""
    options = {"max_size": None, "compression": None, "ping_interval": None}
    piece = bytes(MIB)

    async def send(client, size):
        async def pieces():
            for sent in range(0, size, MIB):
                yield piece[: size - sent]

        await client.send(pieces())

    async def receive(client, size):
        received = 0
        async for part in client.recv_streaming(decode=False):
            received += len(part)
        assert received == size, received

    async def check(program, size):
        await program.line(f"^received {size} bytes, sent {size} bytes")
        peak = int((await program.line(r"^peak memory: (\d+) kB"))[1])
        assert peak < 32 << 10, f"{peak} KiB"
        await program.rest()

    async with run_server("gigabyte") as (program, url):
        async with connect(url, **options) as client:
            await send(client, 1024 * MIB)
            await receive(client, 1024 * MIB)
        await check(program, 1024 * MIB)

    size = 64 * MIB

    async def answer(client):
        await receive(client, size)
        await send(client, size)
        await client.wait_closed()

    async with serve(answer, "127.0.0.1", 0, **options) as server:
        async with run("gigabyte", url_of(server), size) as program:
            await check(program, size)


async def ctrl_c():
    for number in signal.SIGINT, signal.SIGTERM:
        async with run_server("ctrl_c", 1) as (program, url):
            async with connect(url) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                # One that does not answer the Close is ended after a second.
                silent = await open_silently(url)
                program.process.send_signal(number)
                await client.wait_closed()
                assert client.close_code == 1001, client.close_code
            out = await program.rest()
            silent.close()
            for line in (
                "shutting down",
                "closed cleanly: true",
                "closed cleanly: false",
                "2 connections in all",
            ):
                assert line in out, out


async def http_client_details():
    cookies = []

    def respond(connection, request, response):
        assert request.headers["User-Agent"] == "anyloop-example"
        assert request.headers["Origin"] == "https://chat.example"
        cookies.append(request.headers.get("Cookie"))
        response.headers["Set-Cookie"] = "session=7; HttpOnly"
        response.headers["X-Server"] = "foreign"

    async def wait(client):
        await client.wait_closed()

    async with serve(wait, "127.0.0.1", 0, process_response=respond) as server:
        async with run("http_client_details", url_of(server)) as program:
            out = await program.rest()
    assert out.count("101 Switching Protocols") == out.count("x-server: foreign") == 2, out
    assert cookies == [None, "session=7"], cookies

    cookies.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with unix_serve(wait, path, process_response=respond):
            async with run("http_client_details", "ws://localhost/", path) as program:
                await program.rest()
    assert cookies == [None, "session=7"], cookies

    def refuse(connection, request):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "members only\n")

    async with serve(wait, "127.0.0.1", 0, process_request=refuse) as server:
        async with run("http_client_details", url_of(server)) as program:
            assert "403 Forbidden: members only" in await program.rest()


async def run_all(*tests):
    """Runs the tests that the arguments name; without names, all."""
    for test in tests:
        if len(sys.argv) > 2 and test.__name__ not in sys.argv[2:]:
            continue
        await asyncio.wait_for(test(), SECONDS)
        print(f"{test.__name__}: ok", flush=True)


if __name__ == "__main__":
    asyncio.run(
        run_all(
            broadcast_server,
            telemetry_server,
            telemetry_client,
            poll_loop,
            adopt_upgrade,
            subprotocol_auth,
            chat_rooms,
            router,
            net_loop_per_core,
            child_pipes,
            handler_test,
            gigabyte,
            ctrl_c,
            http_client_details,
        )
    )
