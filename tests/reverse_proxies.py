"""Runs nginx and HAProxy with the configurations that docs/reverse-proxies.md shows, in front of `anyloop serve`. See
`reverse-proxies`.

Needs Python's websockets, openssl, nginx and HAProxy. Where one of the two is missing, its package is unpacked in the
cache and not installed, since installing would start it. Exits with 77 where that cannot be done.

The configurations are used as they are, but for the places: the proxies listen on Unix sockets, the servers have other
ports, and the certificate is made here. The minute after which they end a quiet connection is two seconds, and the
ping interval of the servers is one.
"""

import asyncio
import logging
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reverse-proxies.md").read_text()
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "anyloop-reverse-proxies"
PACKAGES = ["nginx", "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"]
SECONDS = 60


def proxy(name):
    """The program and its environment."""
    if path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
        return path, os.environ
    path = CACHE / "usr" / "sbin" / name
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=folder, check=True)
                for package in os.listdir(folder):
                    subprocess.run(["dpkg-deb", "-x", package, CACHE], cwd=folder, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"reverse-proxies: no {name}, and its package cannot be unpacked: {error}", file=sys.stderr)
                sys.exit(77)
    libraries = ":".join(map(str, CACHE.glob("usr/lib/*-linux-*")))
    return str(path), {**os.environ, "LD_LIBRARY_PATH": libraries}


def configuration(language, places):
    text = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)[1]
    for old, new in places.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def running(*command, **options):
    process = await asyncio.create_subprocess_exec(*map(str, command), **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def server():
    """A server behind the proxies, and its address."""
    options = ["--listen", "127.0.0.1:0", "--ping-interval", "1", "--origin", "https://chat.example"]
    command = pathlib.Path(sys.argv[1]) / "anyloop", "serve", *options
    async with running(*command, stdout=asyncio.subprocess.PIPE) as process:
        line = (await process.stdout.readline()).decode()
        yield re.fullmatch(r"listening on ws://(\S+)\n", line)[1]


class Pings(logging.Handler):
    """Counts the pings that a client receives."""

    def __init__(self):
        super().__init__()
        self.received = asyncio.Queue()

    def emit(self, record):
        if record.getMessage().startswith("< PING"):
            self.received.put_nowait(None)


async def check(name, process, path, context):
    # It listens soon, or ends.
    while not path.exists():
        assert process.returncode is None, f"{name} has ended"
        await asyncio.sleep(0.01)
    uri = "wss://chat.example"
    pings = Pings()
    logger = logging.Logger(name, logging.DEBUG)
    logger.addHandler(pings)
    options = {"path": str(path), "ssl": context, "logger": logger, "ping_interval": None}

    async with unix_connect(uri=f"{uri}/echo", origin="https://chat.example", **options) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        for _ in range(4):  # longer than a quiet connection lives
            await pings.received.get()
        await client.send("x" * 1_000_000)
        assert len(await client.recv()) == 1_000_000
    assert client.close_code == 1000, client.close_code

    try:
        async with unix_connect(uri=f"{uri}/echo", origin="https://evil.example", **options):
            raise AssertionError("a page of another site is accepted")
    except InvalidStatus as error:
        assert error.response.status_code == 403, error

    reader, writer = await asyncio.open_unix_connection(path, ssl=context, server_hostname="chat.example")
    writer.write(b"GET / HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    print(f"{name}: ok")


async def main():
    nginx, haproxy = proxy("nginx"), proxy("haproxy")
    async with AsyncExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate, key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=chat.example"
            " -addext subjectAltName=DNS:chat.example -addext basicConstraints=critical,CA:FALSE".split()
            + ["-keyout", key, "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        both = folder / "both.pem"
        both.write_text(certificate.read_text() + key.read_text())
        context = ssl.create_default_context(cafile=certificate)
        one = await stack.enter_async_context(server())
        two = await stack.enter_async_context(server())

        places = {
            "listen 443 ssl": f"listen unix:{folder}/nginx ssl",
            "/etc/ssl/chat.pem": str(certificate),
            "/etc/ssl/chat.key": str(key),
            "127.0.0.1:9002": one,
            "60s": "2s",
        }
        file = folder / "nginx.conf"
        kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        file.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; {temporary}\n{configuration('nginx', places)} }}\n"
        )
        command = nginx[0], "-p", folder, "-e", "stderr", "-c", file
        async with running(*command, env=nginx[1]) as process:
            await check("nginx", process, folder / "nginx", context)

        places = {
            "maxconn 20000": "maxconn 100",  # descriptors
            "bind :443": f"bind unix@{folder}/haproxy",
            "/etc/haproxy/chat.pem": str(both),
            "127.0.0.1:9002": one,
            "127.0.0.1:9003": two,
            "60s": "2s",
        }
        file = folder / "haproxy.cfg"
        file.write_text(configuration("haproxy", places))
        async with running(haproxy[0], "-db", "-f", file, env=haproxy[1]) as process:
            await check("haproxy", process, folder / "haproxy", context)


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), SECONDS))
