"""Python's websockets against the examples that show what those of WebSocket++ show. See `examples`.

The folder in CERTIFICATES has cert.pem, for localhost and 127.0.0.1, and key.pem.
"""

import asyncio
import os
import socket
import ssl
import sys
from urllib.request import urlopen

from example_peers import run, run_all, run_server, url_of
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

CERTIFICATE, KEY = (os.path.join(os.environ["CERTIFICATES"], name) for name in ("cert.pem", "key.pem"))


async def echo(client):
    async for message in client:
        await client.send(message)


async def page(url, path="/", body=None):
    return await asyncio.to_thread(lambda: urlopen(f"http{url[2:]}{path}", body).read().decode())


async def exchange(client, message):
    await client.send(message)
    return await client.recv()


async def speaks_tls(url):
    async with connect(url, ssl=ssl.create_default_context(cafile=CERTIFICATE)) as client:
        assert await exchange(client, "hello") == "hello"


async def net_server():
    async with run_server("net_server") as (program, url):
        async with connect(url) as client:
            await program.line(" connected$")
            assert await exchange(client, "hello") == "hello"
        await program.line("^closed, by peer")


async def net_client():
    async with serve(echo, "127.0.0.1", 0) as server:
        async with run("net_client", url_of(server), "hello", "good-bye") as program:
            assert await program.rest() == "hello\ngood-bye\nclosed cleanly: true\n"


async def net_tls():
    async with run("net_tls", CERTIFICATE, KEY, "127.0.0.1:0") as program:
        await speaks_tls((await program.line(r"listening on (wss://\S+)"))[1])


async def net_deflate():
    async with run_server("net_deflate") as (program, url):
        async with connect(url) as client:
            await program.line("^extension: permessage-deflate")
            for message in "hello " * 1000, b"hello " * 1000:
                assert await exchange(client, message) == message
        async with connect(url, compression=None) as client:
            await program.line("^extension: none")
            assert await exchange(client, "hello") == "hello"


async def iostream_stdio():
    """Its standard input and output are a socket."""
    ours, its = socket.socketpair()
    process = await asyncio.create_subprocess_exec(os.path.join(sys.argv[1], "iostream_stdio"), stdin=its, stdout=its)
    its.close()
    async with connect("ws://localhost/", sock=ours) as client:
        assert await exchange(client, "hello") == "HELLO"
        assert await exchange(client, b"hello") == b"hello"
    assert await process.wait() == 0


async def net_shared_loop():
    async with run("net_shared_loop", "127.0.0.1:0", "127.0.0.1:0") as program:
        url = (await program.line(r"listening on (ws://\S+)"))[1]
        address = (await program.line(r"listening on tcp://(\S+):(\d+)")).groups()
        async with connect(url) as client:
            assert await exchange(client, "hello") == "hello"
            reader, writer = await asyncio.open_connection(*address)
            for word in b"hello", b"again":
                writer.write(word)
                assert await reader.readexactly(5) == word
            writer.close()
            await program.line("^1 WebSockets so far")


async def echo_server_both():
    async with run("echo_server_both", CERTIFICATE, KEY, "127.0.0.1:0", "127.0.0.1:0") as program:
        plain = (await program.line(r"listening on (ws://\S+)"))[1]
        secure = (await program.line(r"listening on (wss://\S+)"))[1]
        async with connect(plain) as client:
            await program.line("^open, secure: false")
            assert await exchange(client, "hello") == "hello"
            await speaks_tls(secure)
            await program.line("^open, secure: true")


async def print_server():
    async with run_server("print_server") as (program, url):
        async with connect(url) as client:
            await client.send("hello")
            await program.line("^127.0.0.1:[0-9]+: hello$")


async def print_client():
    def respond(connection, request, response):
        response.headers["X-Server"] = "foreign"

    async def wait(client):
        await client.wait_closed()
        codes.append(client.close_code)

    codes = []
    options = {"process_response": respond}
    async with serve(wait, "127.0.0.1", 0, **options) as server:
        async with run("print_client", url_of(server)) as program:
            out = await program.rest()
        assert out.startswith("101 Switching Protocols\n") and "x-server: foreign\n" in out, out
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE, KEY)
    async with serve(wait, "127.0.0.1", 0, ssl=tls, **options) as server:
        uri = "wss://localhost:%d/" % server.sockets[0].getsockname()[1]
        async with run("print_client", uri, CERTIFICATE) as program:
            out = await program.rest()
        assert out.startswith("Some(TLSv1_3), 1 certificates\n101 "), out
        async with run("print_client", uri) as program:
            out = await program.rest()
        assert "101" not in out and "certificate" in out, out
    assert codes == [1001, 1001], codes


async def simple_broadcast_server():
    async with run_server("simple_broadcast_server") as (program, url):
        async with connect(url) as one, connect(url) as other:
            for sender, message in (one, "news"), (other, b"\x01\x02"):
                await sender.send(message)
                assert await one.recv() == await other.recv() == message
                await program.line("^sent to 2 connections")


async def subprotocol_server():
    async with run_server("subprotocol_server") as (program, url):
        for requested, chosen in (["soap", "chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2"):
            async with connect(url, subprotocols=requested) as client:
                assert client.subprotocol == chosen
                assert await client.recv() == f"subprotocol: {chosen}"
        await program.line(r'^requested: \["soap", "chat.v1"\]')
        async with connect(url, subprotocols=["soap"]) as client:
            assert client.subprotocol is None
            assert await client.recv() == "subprotocol: none"


async def handler_switch():
    async with run_server("handler_switch") as (_, url):
        async with connect(url) as one, connect(url) as other:
            assert await exchange(one, "hello") == "from the default handler"
            assert await exchange(one, "upgrade") == "from the default handler"
            assert await exchange(one, "hello") == "from the custom handler"
            assert await exchange(other, "hello") == "from the default handler"


async def associative_storage():
    async with run_server("associative_storage") as (program, url):
        async with connect(url) as one, connect(url) as other:
            assert await exchange(one, "anna") == "nobody is now anna"
            assert await exchange(one, "hanna") == "anna is now hanna"
            assert await exchange(other, "bob") == "nobody is now bob"
            names = [line.split(" ")[1] for line in (await page(url)).splitlines()]
            assert sorted(names) == ["bob", "hanna"], names
        assert {(await program.line("^([a-z]+) has left"))[1] for _ in range(2)} == {"bob", "hanna"}
        assert await page(url) == ""


async def enriched_storage():
    async with run_server("enriched_storage") as (program, url):
        async with connect(url) as one, connect(url):
            assert await exchange(one, "anna") == "session 1 is anna"
            assert await exchange(one, "hello") == "anna says hello"
        ended = {(await program.line("^session ([12] has ended: [a-z]+)"))[1] for _ in range(2)}
        assert ended == {"1 has ended: anna", "2 has ended: nobody"}, ended


async def debug_server():
    async with run_server("debug_server", 20) as (program, url):
        async with connect(f"{url}/path", origin="https://chat.example") as client:
            await program.line("^socket_init: .*127.0.0.1:")
            await program.line("connecting: validate /path from .*https://chat.example")
            await program.line(" open: open$")
            await (await client.ping(b"ping"))
            await program.line(" open: ping of 4 bytes")
            assert await exchange(client, "hello") == "hello"
            await program.line(" open: message: Text of 5 bytes")
            await program.line(" open: pong after Some")
            await client.close(3000, "enough")
        await program.line(r" ended: close: Ending .*by: Peer.*3000.*enough")
        assert await page(url, "/form", b"a body") == "a body"
        await program.line("http POST /form")
        reader, writer = await asyncio.open_connection("127.0.0.1", url.rpartition(":")[2])
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await program.line("ended: fail: ")


async def debug_client():
    async with serve(echo, "127.0.0.1", 0) as server:
        async with run("debug_client", url_of(server)) as program:
            await program.line(r"^ *[0-9]+ µs  socket_init")
            await program.line("open: 127.0.0.1:")
            out = await program.rest()
        for line in "pong\n", "message: 5 bytes\n", "close: by local, clean: true, failure: None\n", "that was all":
            assert line in out, out
        url = url_of(server)
    # Nobody listens there any more.
    async with run("debug_client", url) as program:
        await program.line("fail: ")
        assert "refused" in await program.rest()


async def sip_client():
    codes = []

    async def answer(client):
        if client.subprotocol == "sip":
            message = await client.recv()
            assert message.startswith("OPTIONS sip:carol@") and message.endswith("\r\n\r\n"), message
            await client.send("SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        await client.wait_closed()
        codes.append(client.close_code)

    async with serve(answer, "127.0.0.1", 0, subprotocols=["sip"]) as server:
        async with run("sip_client", url_of(server)) as program:
            out = await program.rest()
        assert out.startswith("SIP/2.0 200 OK\r\n") and out.endswith("closed cleanly: true\n"), out
    async with serve(answer, "127.0.0.1", 0) as server:
        async with run("sip_client", url_of(server)) as program:
            await program.rest()
    assert codes == [1000, 1008], codes


async def utility_client():
    reasons = asyncio.Queue()

    async def answer(client):
        await echo(client)
        await reasons.put((client.close_code, client.close_reason))

    async with serve(answer, "127.0.0.1", 0) as server:
        async with run("utility_client") as program:
            numbers = []
            for _ in range(2):
                program.write(f"connect {url_of(server)}\n")
                numbers.append((await program.line("^([0-9]+): open$"))[1])
            one, other = numbers
            program.write(f"send {one} hello, you\nsend {other} and you\n")
            await program.line(": (hello, you|and you)$")
            await program.line(": (hello, you|and you)$")
            program.write(f"show {one}\n")
            await program.line(f"^{one}: open$")
            program.write(f"close {one} good bye\n")
            await program.line(f"^{one}: closed, by local")
            assert await reasons.get() == (1000, "good bye")
            program.write(f"send {one} lost\nhelp\nconnect nowhere\n")
            await program.line(f'^there is no connection "{one}"')
            await program.line("^connect URI, ")
            await program.line("nowhere")
            program.write("quit\n")
            assert f"{other}: closed, by local\n" in await program.rest()
            assert (await reasons.get())[0] == 1001


asyncio.run(
    run_all(
        net_server,
        net_client,
        net_tls,
        net_deflate,
        iostream_stdio,
        net_shared_loop,
        echo_server_both,
        print_server,
        print_client,
        simple_broadcast_server,
        subprotocol_server,
        handler_switch,
        associative_storage,
        enriched_storage,
        debug_server,
        debug_client,
        sip_client,
        utility_client,
    )
)
