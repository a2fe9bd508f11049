"""A WebSocket server on standard input and output, for the example child_pipes."""

import os

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

protocol = ServerProtocol()
while data := os.read(0, 65536):
    protocol.receive_data(data)
    for event in protocol.events_received():
        if isinstance(event, Request):
            protocol.send_response(protocol.accept(event))
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            protocol.send_text(event.data.upper())
    for data in protocol.data_to_send():
        if data:  # b"" means: end the stream
            os.write(1, data)
    if protocol.close_expected():
        break
