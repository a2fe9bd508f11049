"""A WebSocket server for one connection (RFC 6455), whose pace the test decides."""

import base64
import hashlib
import socket

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DEADLINE = 20  # seconds for anything that is waited for
CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


class PacedServer:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(DEADLINE)
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.stream = None

    def accept(self):
        """Waits for the client, and answers its request."""
        self.stream, _ = self.listener.accept()
        self.stream.settimeout(DEADLINE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.receive(1)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        position = head.lower().index(fields[b"sec-websocket-key"])
        key = head[position : position + 24]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.stream.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def send(self, opcode, payload, last=True):
        """Sends a frame. It is not the last one of its message if `last` is false."""
        header = bytes([opcode | (0x80 if last else 0), 127]) + len(payload).to_bytes(8, "big")
        if len(payload) < 126:
            header = bytes([header[0], len(payload)])
        elif len(payload) < 1 << 16:
            header = bytes([header[0], 126]) + len(payload).to_bytes(2, "big")
        self.stream.sendall(header + payload)

    def receive(self, count):
        """Reads so many bytes, whatever frames they are of."""
        received = b""
        while len(received) < count:
            part = self.stream.recv(min(count - len(received), 1 << 20))
            if not part:
                raise SystemExit("terminal: the stream has ended")
            received += part
        return received

    def close(self):
        """Closes with 1000, and reads what is left."""
        self.send(CLOSE, (1000).to_bytes(2, "big"))
        while self.stream.recv(1 << 20):
            pass
        self.stream.close()
