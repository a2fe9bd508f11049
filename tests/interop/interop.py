"""Real peers against the examples and the command, in both roles. See `run`."""

import asyncio
import json
import os
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

SECONDS = 60
SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]
# Messages that resemble each other, so that a context which is taken over matters.
TICKS = [json.dumps({"symbol": "ANY", "price": i * 1.25, "volume": 100 + i}) for i in range(200)]
# The extension that Node's ws and `anyloop serve` agree on.
AGREED = "permessage-deflate"
MESSAGES = ["hello", "", "κόσμε 🌍", "x" * 126, "y" * 70000]


async def start(*command):
    """Starts a server that says where it listens, and returns it with its port."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    line = await process.stdout.readline()
    return process, int(line.decode().strip().rpartition(":")[2])


async def stop(process):
    process.kill()
    await process.wait()


async def python_client(url):
    """Every size and kind, fragments, pings in between, and a close with a code and a reason."""
    async with connect(url, max_size=None) as socket:
        for size in SIZES:
            for message in (os.urandom(size), "é" * (size // 2)):
                await socket.send(message)
                assert await socket.recv() == message, f"{size} come back"
        await socket.send(["in ", "three ", "pieces"])
        pong = await socket.ping(b"between")
        assert await socket.recv() == "in three pieces"
        await pong
        await socket.close(4003, "done")
    assert socket.close_code == 4003, socket.close_code


async def python_clients_that_compress(url, mode):
    """Compression with each set of parameters, which is agreed on and does what it should."""
    for offer, no_takeover in [
        ({}, False),
        ({"client_max_window_bits": True}, False),
        ({"server_max_window_bits": 9, "client_max_window_bits": 9}, False),
        ({"server_max_window_bits": 15, "client_max_window_bits": 15}, False),
        ({"server_no_context_takeover": True}, True),
        ({"client_no_context_takeover": True, "client_max_window_bits": 12}, False),
    ]:
        extensions = [ClientPerMessageDeflateFactory(**offer)]
        async with connect(url, extensions=extensions, compression=None, max_size=None) as socket:
            assert len(socket.protocol.extensions) == 1, (mode, offer)
            for tick in TICKS:
                await socket.send(tick)
                assert await socket.recv() == tick, (mode, offer)
            for size in (100, 70_000, 1 << 20):
                for message in (os.urandom(size), "no news; " * (size // 9)):
                    await socket.send(message)
                    assert await socket.recv() == message, (mode, offer, size)
            await socket.send([message := "in ", "three ", "pieces " * 1000])
            assert await socket.recv() == message + "three " + "pieces " * 1000
            received = socket.protocol.extensions[0]
            assert received.remote_no_context_takeover == (no_takeover or mode == "no-takeover")


async def compression(anyloop, node):
    """`anyloop serve` and `anyloop connect` in each mode."""
    for mode in ("pooled", "no-takeover", "dedicated"):
        server, port = await start(
            anyloop, "serve", "--listen", "127.0.0.1:0", "--deflate", mode, "--deflate-level", "1"
        )
        try:
            await python_clients_that_compress(f"ws://127.0.0.1:{port}/", mode)
        finally:
            await stop(server)
        for parameters in (
            {},
            {"server_max_window_bits": 9},
            {"client_max_window_bits": 9, "require_client_max_window_bits": True},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
        ):
            extensions = [ServerPerMessageDeflateFactory(**parameters)]
            async with serve(echo, "127.0.0.1", 0, extensions=extensions, compression=None) as peer:
                port = peer.sockets[0].getsockname()[1]
                await our_connect(anyloop, f"ws://127.0.0.1:{port}/", "--deflate", mode)
    server, port = await start(anyloop, "serve", "--listen", "127.0.0.1:0", "--no-deflate")
    try:
        await python_client(f"ws://127.0.0.1:{port}/")
        await node_client(f"ws://127.0.0.1:{port}/", node)
    finally:
        await stop(server)


async def node_client(url, node, extension=""):
    process = await asyncio.create_subprocess_exec(*node, "client", url, extension)
    assert await process.wait() == 0, "node's client failed"


async def our_client(program, url):
    """Our client sends what it is told, prints what comes back, and closes; then is closed."""
    process = await asyncio.create_subprocess_exec(
        program, url, *MESSAGES, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (process.returncode, err)
    assert out.decode() == "".join(message + "\n" for message in MESSAGES), out
    process = await asyncio.create_subprocess_exec(
        program, url, "close", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 1 and out == b"", (process.returncode, out)
    assert b"4002" in err and b"as you wish" in err, err


async def our_connect(anyloop, url, *options):
    """`anyloop connect` sends its input and prints what comes back; then is closed by the server."""

    async def run():
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            anyloop, "connect", *options, url, stdin=pipe, stdout=pipe, stderr=pipe
        )

    lines = "".join(f"{line}\n" for line in MESSAGES + TICKS + list(range(1000))).encode()
    process = await run()
    process.stdin.write(lines)  # and does not end before all has come back, for that closes
    assert await process.stdout.readexactly(len(lines)) == lines, "the lines come back"
    process.stdin.close()
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b""), (process.returncode, out, err)
    process = await run()
    process.stdin.write(b"close\n")  # and does not end
    code = await process.wait()
    out, err = await process.stdout.read(), await process.stderr.read()
    assert (code, out) == (1, b""), (code, out)
    assert b"4002: as you wish" in err, err
    process.stdin.close()


async def echo(socket):
    """Echoes in two fragments with a ping in between, and closes when asked to."""
    async for message in socket:
        if message == "close":
            await socket.close(4002, "as you wish")
            return
        half = len(message) // 2

        async def pieces():
            yield message[:half]
            await socket.ping()
            yield message[half:]

        await socket.send(pieces())


async def pump(reader, writer, size):
    """Carries bytes one way, at most `size` at a time, to the end."""
    try:
        while data := await reader.read(size):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        writer.close()


async def bridge(reader, writer, size, *command):
    """Connects a socket to a program's standard input and output; returns its exit code."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    to_program = asyncio.create_task(pump(reader, process.stdin, size))
    await pump(process.stdout, writer, 65536)
    code = await process.wait()
    to_program.cancel()
    return code


async def pipe_server(anyloop, node):
    """`anyloop pipe` behind a socket, for real clients; slow input comes byte by byte."""
    codes = asyncio.Queue()

    async def connected(reader, writer):
        await codes.put(await bridge(reader, writer, 65536, anyloop, "pipe"))

    async def connected_slowly(reader, writer):
        await codes.put(await bridge(reader, writer, 1, anyloop, "pipe"))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await python_client(url)
        assert await codes.get() == 0
        await node_client(url, node, AGREED)
        assert await codes.get() == 0
    async with await asyncio.start_server(connected_slowly, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(url) as socket:
            await socket.send("byte by byte")
            assert await socket.recv() == "byte by byte"
        assert await codes.get() == 0


async def pipe_client(anyloop):
    """`anyloop pipe --client` against a real server, which it echoes to."""
    asked = asyncio.get_running_loop().create_future()

    async def ask(socket):
        for message in ("hello", b"\x00\xff", "x" * 70000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.close(1000, "done")
        asked.set_result(None)

    async with serve(ask, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        url = f"ws://127.0.0.1:{port}/"
        code = await bridge(reader, writer, 65536, anyloop, "pipe", "--client", url)
        await asked
        assert code == 0, code


async def our_servers(url, node, extension=""):
    """Python's and Node's clients, one after the other and at once."""
    for _ in range(3):
        await python_client(url)
    clients = (python_client(url) for _ in range(5))
    await asyncio.gather(*clients, node_client(url, node, extension))


async def anyloop_serve(anyloop, node):
    """`anyloop serve`: the echo, a broadcast, and the end."""
    server, port = await start(anyloop, "serve", "--listen", "127.0.0.1:0")
    try:
        base = f"ws://127.0.0.1:{port}"
        await our_servers(f"{base}/echo", node, AGREED)
        async with connect(f"{base}/broadcast") as one, connect(f"{base}/broadcast") as other:
            for message in ("hello", b"\x00\xff"):
                await one.send(message)
                assert await one.recv() == await other.recv() == message
        async with connect(f"{base}/stats") as socket:
            counters = json.loads(await socket.recv())
            assert counters["open"] == 1 and counters["messages_received"] > 0, counters
            server.terminate()
            try:
                while True:
                    await socket.recv()
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd.code == 1001, closed
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            await stop(server)


async def main(our_server, our_client_program, anyloop, *node):
    server, port = await start(our_server, "127.0.0.1:0")
    try:
        await our_servers(f"ws://127.0.0.1:{port}/", node)
        print("own_sockets_server: python websockets and node ws agree")
    finally:
        await stop(server)
    await anyloop_serve(anyloop, node)
    print("anyloop serve: python websockets and node ws agree")
    async with serve(echo, "127.0.0.1", 0) as python_server:
        port = python_server.sockets[0].getsockname()[1]
        await our_client(our_client_program, f"ws://127.0.0.1:{port}/")
        await our_connect(anyloop, f"ws://127.0.0.1:{port}/")
    print("own_sockets_client, anyloop connect: python websockets agrees")
    server, port = await start(*node, "server")
    try:
        await our_client(our_client_program, f"ws://127.0.0.1:{port}/")
        await our_connect(anyloop, f"ws://127.0.0.1:{port}/")
    finally:
        await stop(server)
    print("own_sockets_client, anyloop connect: node ws agrees")
    await pipe_server(anyloop, node)
    await pipe_client(anyloop)
    print("anyloop pipe: python websockets and node ws agree")
    await compression(anyloop, node)
    print("anyloop serve, connect: python websockets and node ws agree on compression")


print(f"python websockets {websockets.__version__}")
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), SECONDS))
