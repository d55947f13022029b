"""HTTP/1.1 ports: the media server's own (8096), and the one where a story reads and steers the double."""

import asyncio
import base64
import hashlib
import json

from . import websocket
from .request import Request

MAX_BODY = 26_214_400
REASONS = {200: "OK", 201: "Created", 206: "Partial Content", 401: "Unauthorized", 404: "Not Found"}


async def serve(handle):
    """A listener on a port of the kernel's choice; its number."""

    async def connection(reader, writer):
        try:
            while await one(reader, writer, handle):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            # A peer that leaves or sends what is no HTTP.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def one(reader, writer, handle):
    request = await read(reader)
    if (request.header("upgrade") or "").lower() == "websocket":
        await echo(reader, writer, request)
        return False
    answer = await handle(request)
    lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Told')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    chunked = answer.length is None
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    if request.method != "HEAD":
        async for piece in answer.pieces():
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
    await writer.drain()
    return (request.header("connection") or "").lower() != "close"


async def read(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name] = value.strip()
    request = Request(method, path, query, headers, form="http")
    length = int(request.header("content-length") or 0)
    if length > MAX_BODY:
        raise ValueError("a body too long")
    request.body = await reader.readexactly(length)
    return request


async def echo(reader, writer, request):
    """A WebSocket whose messages come back."""
    key = request.header("sec-websocket-key") or ""
    accept = base64.b64encode(hashlib.sha1((key + websocket.GUID).encode()).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    while True:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2))
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8))
        if length > websocket.MAX_MESSAGE or not second & 0x80:
            return
        mask = await reader.readexactly(4)
        payload = bytes(b ^ mask[n % 4] for n, b in enumerate(await reader.readexactly(length)))
        opcode = first & 0x0F
        if opcode == websocket.PING:
            first = first & 0xF0 | websocket.PONG
        # The same frame, unmasked.
        frame = bytearray(websocket.masked(first & 0x0F, payload))
        frame[0], frame[1] = first, frame[1] & 0x7F
        del frame[-len(payload) - 4 : len(frame) - len(payload)]
        writer.write(frame)
        await writer.drain()
        if opcode == websocket.CLOSE:
            return


def parsed(request):
    return json.loads(request.body or b"{}")
