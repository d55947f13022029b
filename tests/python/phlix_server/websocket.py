"""The client half of WebSocket as Workerman 5 speaks it (wire page s.1.1).

Every message goes out as TEXT, whatever its bytes, masked with a key of zeroes. Either opcode is taken.
"""

import asyncio
import base64
import hashlib
import os
import ssl
import struct
from urllib.parse import urlsplit

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

MAX_MESSAGE = 10_485_760
SEND_BUFFER = 1_048_576
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Refused(Exception):
    """The peer did not become a WebSocket."""


class Closed(Exception):
    """The connection is over: `code` is that of the close frame, `None` where there was none."""

    def __init__(self, code=None, reason=""):
        super().__init__(f"closed {code} {reason}")
        self.code = code
        self.reason = reason


def masked(opcode, payload):
    """One unfragmented frame, its mask all zeroes: the payload stands as it is."""
    length = len(payload)
    if length <= 125:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
    elif length <= 0xFFFF:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
    return head + b"\0\0\0\0" + payload


async def connect(url, tls):
    """`ws://host:port` or `wss://`; the bare root is asked for, with five headers."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    context = tls if parts.scheme == "wss" else None
    if parts.scheme == "wss" and context is None:
        context = ssl.create_default_context()
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, limit=1 << 20)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        (
            f"GET / HTTP/1.1\r\nHost: {parts.hostname}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()
    )
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        writer.close()
        raise Refused("closed before an answer") from error
    status, *lines = head.split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    expected = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    if not status.startswith("HTTP/1.1 101") or headers.get("sec-websocket-accept") != expected:
        writer.close()
        raise Refused(status)
    writer.transport.set_write_buffer_limits(high=SEND_BUFFER)
    return Socket(reader, writer)


class Socket:
    """One connection after its 101."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.opcodes = set()
        self.pings = 0

    def put(self, payload, opcode=TEXT):
        """Hands a message over without waiting; what the kernel does not take is kept."""
        if self.writer.is_closing():
            raise Closed
        self.writer.write(masked(opcode, payload))

    async def send(self, payload):
        """The same, and waits while the send buffer is full."""
        self.put(payload)
        try:
            await self.writer.drain()
            # Coroutines of one process take turns, also while the kernel takes all.
            await asyncio.sleep(0)
        except ConnectionError as error:
            raise Closed from error

    def full(self):
        return self.writer.transport.get_write_buffer_size() >= SEND_BUFFER

    async def receive(self):
        """The next message's bytes."""
        message = b""
        while True:
            final, opcode, payload = await self._frame()
            if opcode == PING:
                self.pings += 1
                self.put(payload, PONG)
            elif opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
                reason = payload[2:].decode("utf-8", "replace")
                self.close()
                raise Closed(code, reason)
            elif opcode != PONG:
                self.opcodes.add(opcode)
                message += payload
                if len(message) > MAX_MESSAGE:
                    self.close()
                    raise Closed
                if final:
                    return message

    async def _frame(self):
        try:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
            if second & 0x80 or length > MAX_MESSAGE:
                # Servers mask nothing; a message beyond the limit ends the connection.
                self.close()
                raise Closed
            return bool(first & 0x80), first & 0x0F, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
            self.close()
            raise Closed from error

    def close(self):
        self.writer.close()

    def abort(self):
        self.writer.transport.abort()
