"""Real peers against the command over TLS, in both roles: openssl, curl, Python's websockets, Node's ws. See `run`."""

import asyncio
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

SECONDS = 120
SIZES = [0, 1, 125, 126, 16383, 16384, 16385, 65536, 3 << 20]
REQUEST = (
    "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = b"\x81\x85\0\0\0\0hello"  # masked with zeros


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Files:
    """A root, and certificates that it has issued, with keys of every format."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=interop CA",
                "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", self["ca.key"], "-out", self["ca.pem"])
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self["sec1.key"])
        openssl("genrsa", "-traditional", "-out", self["pkcs1.key"], "2048")
        openssl("genpkey", "-algorithm", "ed25519", "-out", self["pkcs8.key"])
        openssl("genrsa", "-out", self["weak.key"], "1024")
        for name in ("sec1", "pkcs1", "pkcs8", "weak"):
            self.issue(name)

    def __getitem__(self, name):
        return str(self.folder / name)

    def issue(self, name):
        extension = self.folder / "extension"
        extension.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl("req", "-new", "-key", self[f"{name}.key"], "-subj", f"/CN={name}", "-out", self["request"])
        openssl("x509", "-req", "-in", self["request"], "-CA", self["ca.pem"], "-CAkey", self["ca.key"],
                "-CAcreateserial", "-days", "1", "-extfile", str(extension), "-out", self[f"{name}.pem"])

    def trust(self):
        return ssl.create_default_context(cafile=self["ca.pem"])


started = []


def kill(process):
    if process.returncode is None:
        process.kill()


async def start(*command):
    """Starts a server that says where it listens, and returns it with its port."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    started.append(process)
    line = await process.stdout.readline()
    return process, int(line.decode().strip().rpartition(":")[2])


async def our_server(anyloop, files, key, *options):
    return await start(
        anyloop, "serve", "--listen", "127.0.0.1:0",
        "--tls-cert", files[f"{key}.pem"], "--tls-key", files[f"{key}.key"], *options,
    )


async def end(process):
    process.terminate()
    assert await process.wait() == 0, "anyloop serve ends with 0"


async def run(*command, data=None, env=None):
    """Runs a program; returns its exit code and what it has printed."""
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(data)
    return process.returncode, out, err


async def python_client(url, context):
    async with connect(url, ssl=context, max_size=None) as socket:
        for size in SIZES:
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, f"{size} come back"
        await socket.close(4003, "done")
    assert socket.close_code == 4003, socket.close_code


async def keys(anyloop, files):
    """A server takes keys of every format."""
    for key in ("sec1", "pkcs1", "pkcs8"):
        server, port = await our_server(anyloop, files, key)
        await python_client(f"wss://localhost:{port}/echo", files.trust())
        await end(server)
    # A key that is too short is refused by us as a client.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_cert_chain(files["weak.pem"], files["weak.key"])
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        code, _, err = await run(anyloop, "connect", f"wss://localhost:{port}/", "--ca", files["ca.pem"], data=b"")
        assert code == 3 and b"certificate was refused" in err and b"too weak" in err, (code, err)


async def s_client(port, files, *options, data):
    """What the server has answered to `data` through openssl."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", f"127.0.0.1:{port}", "-servername", "localhost",
        "-CAfile", files["ca.pem"], "-verify_return_error", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    process.stdin.write(data[0])
    received = b""
    for part in data[1:]:
        received += await process.stdout.read(4096)
        process.stdin.write(part)
    while not received.endswith(b"\x81\x05hello"):
        read = await process.stdout.read(4096)
        if not read:
            break
        received += read
    process.stdin.close()
    await process.wait()
    return received


async def openssl_peers(anyloop, files):
    server, port = await our_server(anyloop, files, "sec1")
    for version in ("-tls1_2", "-tls1_3"):
        answer = await s_client(port, files, version, data=[REQUEST.encode(), HELLO])
        assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"hello"), (version, answer)
    for version in ("-tls1_1", "-tls1"):
        answer = await s_client(port, files, version, "-cipher", "DEFAULT@SECLEVEL=0", data=[b""])
        assert answer == b"", "an old version is refused"
    # "K": update the keys of both directions; "R": renegotiate (both without -quiet only, on a line of their own).
    for version, command in (("-tls1_3", b"K\n"), ("-tls1_2", b"R\n")):
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", files["ca.pem"], version,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        await process.stdout.readuntil(b"---\n")
        process.stdin.write(command)
        await asyncio.sleep(0.2)  # openssl takes a command only at the beginning of a read
        process.stdin.write(REQUEST.encode())
        received = b""
        while b"101 Switching" not in received and (read := await process.stdout.read(4096)):
            received += read
        if command == b"K\n":
            assert b"KEYUPDATE" in received and b"101 Switching" in received, received
        else:
            assert b"RENEGOTIATING" in received and b"101 Switching" not in received, received
        kill(process)
        await process.wait()
    await end(server)


async def curl(anyloop, files):
    server, port = await our_server(anyloop, files, "pkcs1")
    code, out, err = await run("curl", "--silent", "--show-error", "--cacert", files["ca.pem"], "--include",
                               f"https://localhost:{port}/missing")
    assert code == 0 and out.startswith(b"HTTP/1.1 404 "), (code, out, err)
    code, out, err = await run("curl", "--silent", "--show-error", f"https://localhost:{port}/")
    assert code == 60, (code, err)  # it does not trust us
    code, out, err = await run("curl", "--silent", f"http://localhost:{port}/")
    assert code == 0 and out == b"this port speaks TLS: use wss:// or https:// URIs\n", (code, out)
    await end(server)
    # Clients need a certificate.
    server, port = await our_server(anyloop, files, "sec1", "--tls-client-ca", files["ca.pem"])
    url = f"https://localhost:{port}/missing"
    code, _, err = await run("curl", "--silent", "--show-error", "--cacert", files["ca.pem"], url)
    assert code != 0, err
    code, out, err = await run("curl", "--silent", "--show-error", "--cacert", files["ca.pem"], "--include",
                               "--cert", files["pkcs1.pem"], "--key", files["pkcs1.key"], url)
    assert code == 0 and out.startswith(b"HTTP/1.1 404 "), (code, out, err)
    await end(server)


async def node_client(url, files, node):
    env = dict(os.environ, NODE_EXTRA_CA_CERTS=files["ca.pem"])
    code, out, err = await run(*node, "client", url, "permessage-deflate", env=env)
    assert code == 0, (out, err)


async def our_client(anyloop, url, files):
    lines = "".join(f"{line}\n" for line in ["hello", "κόσμε 🌍", "y" * 70000, *range(1000)]).encode()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        anyloop, "connect", url, "--ca", files["ca.pem"], stdin=pipe, stdout=pipe, stderr=pipe
    )
    process.stdin.write(lines)
    assert await process.stdout.readexactly(len(lines)) == lines, "the lines come back"
    process.stdin.close()
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b""), (process.returncode, out, err)


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main(*arguments):
    try:
        await peers(*arguments)
    finally:
        for process in started:
            kill(process)


async def peers(anyloop, *node):
    with tempfile.TemporaryDirectory() as folder:
        files = Files(folder)
        server, port = await our_server(anyloop, files, "sec1")
        url = f"wss://localhost:{port}/echo"
        await asyncio.gather(*(python_client(url, files.trust()) for _ in range(3)), node_client(url, files, node))
        await end(server)
        print("anyloop serve over TLS: python websockets and node ws agree")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files["pkcs1.pem"], files["pkcs1.key"])
        async with serve(echo, "127.0.0.1", 0, ssl=context) as python_server:
            port = python_server.sockets[0].getsockname()[1]
            await our_client(anyloop, f"wss://127.0.0.1:{port}/", files)
        server, port = await start(*node, "server", files["sec1.pem"], files["sec1.key"])
        await our_client(anyloop, f"wss://localhost:{port}/", files)
        kill(server)
        await server.wait()
        print("anyloop connect over TLS: python websockets and node ws agree")
        await keys(anyloop, files)
        print("keys of every format are taken, and short ones are refused")
        await openssl_peers(anyloop, files)
        await curl(anyloop, files)
        print("openssl and curl agree")


print(ssl.OPENSSL_VERSION, f"python websockets {websockets.__version__}")
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), SECONDS))
