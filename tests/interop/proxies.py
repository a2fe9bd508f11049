"""The command as a client through real proxies: tinyproxy, squid, microsocks, dante. See `run`.

    proxies.py ANYLOOP    A proxy that is not installed is left out, and named.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

SECONDS = 120
PATIENCE = 30
# No connection to 127.0.0.1 comes from a port of this address, so a free port stays free.
HOST = "127.0.0.9"
# A proxy of the environment would be used as well.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


given = set()


def free_port():
    """A port that nobody else has got from here."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        if port not in given:
            given.add(port)
            return port


async def answers(port, process, program):
    """Waits until the program listens there."""
    for _ in range(PATIENCE * 50):
        assert process.returncode is None, f"{program} has ended with {process.returncode}"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"nobody listens on {port}")


@contextlib.asynccontextmanager
async def running(*command, ports=()):
    """A program, from when it listens. At the end it is terminated, and with it its children."""
    process = await asyncio.create_subprocess_exec(
        *command, env=ENVIRONMENT | {"PATH": PATH}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for port in ports:
            await answers(port, process, command[0])
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


class Client:
    """Runs `anyloop connect` against two servers of ours."""

    def __init__(self, anyloop, certificate, plain, secure):
        self.anyloop, self.certificate = anyloop, certificate
        self.urls = [f"ws://localhost:{plain}/", f"wss://localhost:{secure}/"]

    async def run(self, url, proxy, *options):
        trust = ["--ca", self.certificate] if url.startswith("wss:") else []
        process = await asyncio.create_subprocess_exec(
            self.anyloop, "connect", url, "--proxy", proxy, *trust, *options, env=ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(b"hello\n")
        return process.returncode, out, err.decode()

    async def passes(self, proxy, *options):
        """A message goes to each server and back."""
        for url in self.urls:
            result = await self.run(url, proxy, *options)
            assert result == (0, b"hello\n", ""), (url, proxy, result)

    async def fails(self, proxy, words, *options, url=None):
        """There is no connection, and the reason is given."""
        for url in [url] if url else self.urls:
            code, out, err = await self.run(url, proxy, *options)
            assert (code, out) == (3, b"") and words in err, (url, proxy, code, out, err)
            assert "secret" not in err and "wrong" not in err, err


def written(path, text):
    path.write_text(text)
    return str(path)


async def tinyproxy(client, folder):
    def config(name, port, more):
        lines = [f"Port {port}", f"Listen {HOST}", "Allow 127.0.0.0/8", "Timeout 60", "MaxClients 50", more]
        return written(folder / name, "\n".join(lines) + "\n")

    port = free_port()
    async with running("tinyproxy", "-d", "-c", config("open", port, ""), ports=[port]):
        await client.passes(f"http://{HOST}:{port}")
        closed = f"ws://{HOST}:{free_port()}/"
        await client.fails(f"{HOST}:{port}", f"refused a tunnel to {HOST}:", url=closed)
    async with running("tinyproxy", "-d", "-c", config("user", port, "BasicAuth alice secret"), ports=[port]):
        await client.passes(f"http://alice:secret@{HOST}:{port}")
        await client.fails(f"http://{HOST}:{port}", "wants a user and a password")
        await client.fails(f"http://alice:wrong@{HOST}:{port}", "does not accept this user and password")
    async with running("tinyproxy", "-d", "-c", config("port", port, "ConnectPort 1"), ports=[port]):
        await client.fails(f"http://{HOST}:{port}", "403")


async def squid(client, folder):
    folder.chmod(0o777)  # squid gives root's rights up
    port, secure = free_port(), free_port()
    key, certificate = folder / "squid.key", folder / "squid.pem"
    issue(key, certificate)
    key.chmod(0o644)
    common = f"pid_filename {folder}/pid\naccess_log none\ncache_log {folder}/log\ncache deny all\n" \
        "shutdown_lifetime 0 seconds\nvisible_hostname localhost\n"
    listening = f"http_port {HOST}:{port}\nhttps_port {HOST}:{secure} tls-cert={certificate} tls-key={key}\n"
    trust = ["--proxy-ca", str(certificate)]
    config = written(folder / "open", common + listening + "http_access allow all\n")
    async with running("squid", "-N", "-f", config, ports=[port, secure]):
        await client.passes(f"http://{HOST}:{port}")
        await client.passes(f"https://{HOST}:{secure}", *trust)
        await client.fails(f"https://{HOST}:{secure}", "certificate was refused")
        await client.fails(f"https://{HOST}:{port}", "it is not TLS: use http://", *trust)
    config = written(folder / "closed", common + listening + "http_access deny all\n")
    async with running("squid", "-N", "-f", config, ports=[port, secure]):
        await client.fails(f"http://{HOST}:{port}", "403 Forbidden")
        await client.fails(f"https://{HOST}:{secure}", "403 Forbidden", *trust)


async def microsocks(client, _):
    port = free_port()
    command = ["microsocks", "-i", HOST, "-p", str(port)]
    async with running(*command, ports=[port]):
        await client.passes(f"socks5h://{HOST}:{port}")
        await client.passes(f"socks5://{HOST}:{port}")
        closed = f"ws://{HOST}:{free_port()}/"
        await client.fails(f"socks5h://{HOST}:{port}", "the host refused the connection", url=closed)
    async with running(*command, "-u", "alice", "-P", "secret", ports=[port]):
        await client.passes(f"socks5h://alice:secret@{HOST}:{port}")
        await client.fails(f"socks5h://{HOST}:{port}", "wants a user and a password")
        await client.fails(f"socks5h://alice:wrong@{HOST}:{port}", "does not accept this user and password")


async def dante(client, folder):
    port = free_port()
    user = "user.unprivileged: nobody\n" if os.geteuid() == 0 else ""
    common = f"logoutput: {folder}/log\ninternal: {HOST} port = {port}\nexternal: lo\n{user}" \
        "clientmethod: none\nsocksmethod: none\nclient pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
    for name, answer in ("open", "pass"), ("closed", "block"):
        config = written(folder / name, common + f"socks {answer} {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n")
        async with running("danted", "-f", config, ports=[port]):
            if answer == "pass":
                await client.passes(f"socks5h://{HOST}:{port}")
                await client.passes(f"socks5://{HOST}:{port}")
            else:
                await client.fails(f"socks5h://{HOST}:{port}", "its rules do not allow that")


def issue(key, certificate):
    """A self-signed certificate for this machine."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )


async def listening_port(server):
    line = await server.stdout.readline()
    return int(line.decode().strip().rpartition(":")[2])


async def main(anyloop):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        key, certificate = folder / "server.key", folder / "server.pem"
        issue(key, certificate)
        serve = [anyloop, "serve", "--listen", "127.0.0.1:0"]
        tls = ["--tls-cert", str(certificate), "--tls-key", str(key)]
        async with running(*serve) as plain, running(*serve, *tls) as secure:
            client = Client(anyloop, str(certificate), await listening_port(plain), await listening_port(secure))
            await asyncio.gather(*(through(program, test, client, folder) for program, test in PROXIES.items()))


async def through(program, test, client, folder):
    if shutil.which(program, path=PATH) is None:
        print(f"!! {program} is not installed: left out")
        return
    own = folder / program
    own.mkdir()
    await test(client, own)
    print(f"anyloop connect through {program}: agrees")


PROXIES = {"tinyproxy": tinyproxy, "squid": squid, "microsocks": microsocks, "danted": dante}

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), SECONDS))
