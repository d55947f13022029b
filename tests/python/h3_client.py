"""A viewer over HTTP/3 that is not ours: aioquic.

    h3_client.py --connect ADDRESS:PORT --host NAME --ca FILE [--header 'name: value'] ACTION PATH

Verifies the certificate by the CA given. Makes one request on a connection of its own and prints what
came of it as one line of JSON. `end` tells how the answer's stream ended: `finished`,
`reset CODE`, or `closed CODE` where the whole connection went; codes are those of RFC 9114 s.8.1.

    get, head         {"status", "headers", "length", "sha256", "text" (of a short body), "end"}
    upload --size N   the same, of a POST whose body is N bytes, byte i being i mod 251
    cancel            prints {"reading": true} once body bytes come, or with --before once the request
                      is sent; waits for a line on standard input, cancels, prints {"left": SECONDS}, when that
                      was by the machine's wall clock; its connection stays until another line or the end
    socket --count N  a WebSocket by Extended CONNECT (RFC 9220): sends N texts and a binary message of
                      100 KB, each answered by itself, then closes: {"status", "echoed", "close"}
"""

import argparse
import asyncio
import hashlib
import json
import sys
import time
from ipaddress import ip_address

import wsproto
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

# Long texts are told by their hash.
SHORT = 64 * 1024
# What is in flight of an upload before more of it is handed to aioquic, which keeps all it is given.
PIECE = 64 * 1024


class Http(H3Connection):
    """aioquic compares `content-length` with the body also in an answer to HEAD (RFC 9114 s.4.1.2 does not)."""

    asked = None

    def _check_content_length(self, stream):
        if self.asked != "HEAD":
            super()._check_content_length(stream)


class Viewer(QuicConnectionProtocol):
    """One connection; what happens to its (only) request comes as a queue."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = Http(self._quic)
        self.happened = asyncio.Queue()

    def quic_event_received(self, event):
        if isinstance(event, (StreamReset, StopSendingReceived, ConnectionTerminated)):
            self.happened.put_nowait(event)
        for of_http in self.http.handle_event(event):
            self.happened.put_nowait(of_http)

    async def settings(self):
        """The peer's settings, once they are here."""
        while self.http.received_settings is None:
            await asyncio.sleep(0.005)
        return self.http.received_settings

    def begin(self, method, url, headers, end, protocol=None):
        """Sends a request's head; the stream."""
        self.http.asked = method
        stream = self._quic.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", url[0]), (":path", url[1])]
        if protocol:
            pseudo.append((":protocol", protocol))
        fields = [(name.encode(), value.encode()) for name, value in pseudo + headers]
        self.http.send_headers(stream, fields, end_stream=end)
        self.transmit()
        return stream

    async def send_body(self, stream, size):
        pattern = bytes(i % 251 for i in range(251 * 1024))
        sent = 0
        while sent < size:
            piece = min(PIECE, size - sent)
            start = sent % 251
            self.http.send_data(stream, pattern[start : start + piece], end_stream=sent + piece == size)
            self.transmit()
            sent += piece
            sender = self._quic._streams[stream].sender
            while sender._buffer_stop - sender._buffer_start > 16 * PIECE:
                await asyncio.sleep(0.002)
        if size == 0:
            self.http.send_data(stream, b"", end_stream=True)
            self.transmit()

    def cancel(self, stream):
        """RFC 9114 s.4.1.1: both directions."""
        self._quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        try:
            self._quic.reset_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        except (AssertionError, ValueError):
            pass  # All of the request was sent and acknowledged: nothing to reset.
        self.transmit()


def told(event):
    """How a stream ended, where this event ends it."""
    if isinstance(event, StreamReset):
        return f"reset 0x{event.error_code:x}"
    if isinstance(event, ConnectionTerminated):
        return f"closed 0x{event.error_code:x} {event.reason_phrase}".strip()
    if isinstance(event, (HeadersReceived, DataReceived)) and event.stream_ended:
        return "finished"
    return None


async def answer(viewer):
    """Reads an answer to its end, however that comes."""
    got = {"status": None, "headers": {}, "length": 0, "end": None}
    hashed, text = hashlib.sha256(), b""
    while got["end"] is None:
        event = await viewer.happened.get()
        if isinstance(event, HeadersReceived):
            fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            status = fields.pop(":status", None)
            if status and not status.startswith("1"):
                got["status"], got["headers"] = int(status), fields
        if isinstance(event, DataReceived):
            hashed.update(event.data)
            got["length"] += len(event.data)
            text = (text + event.data)[: SHORT + 1] if len(text) <= SHORT else text
        got["end"] = told(event)
    got["sha256"] = hashed.hexdigest()
    if len(text) <= SHORT:
        got["text"] = text.decode("utf-8", "replace")
    return got


async def cancel(viewer, stream, before):
    while not before:
        event = await viewer.happened.get()
        if isinstance(event, DataReceived) and event.data:
            break
        if told(event):
            return {"end": told(event)}
    print(json.dumps({"reading": True}), flush=True)

    async def read_on():
        while True:
            await viewer.happened.get()

    # What comes meanwhile is read, as a viewer would.
    reading = asyncio.create_task(read_on())
    await asyncio.to_thread(sys.stdin.readline)
    left = time.time()
    viewer.cancel(stream)
    reading.cancel()
    print(json.dumps({"left": left}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return {"end": "cancelled"}


async def socket(viewer, args, url, headers):
    settings = await viewer.settings()
    # RFC 9220 s.3: SETTINGS_ENABLE_CONNECT_PROTOCOL.
    if settings.get(0x8) != 1:
        return {"error": f"Extended CONNECT is not offered: {settings}"}
    headers = [("sec-websocket-version", "13"), *headers]
    if not any(name == "origin" for name, _ in headers):
        headers.append(("origin", f"https://{url[0]}"))
    stream = viewer.begin("CONNECT", url, headers, end=False, protocol="websocket")
    got = {"status": None, "echoed": 0, "close": None, "end": None}
    # Frames alone: the handshake was HTTP/3's.
    frames = wsproto.Connection(wsproto.ConnectionType.CLIENT)
    wanted = [f"message {n}" for n in range(args.count)] + [bytes(i % 256 for i in range(100_000))]
    parts = []

    def send(event):
        viewer.http.send_data(stream, frames.send(event), end_stream=False)
        viewer.transmit()

    def say(message):
        send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    while got["end"] is None:
        event = await viewer.happened.get()
        if isinstance(event, HeadersReceived):
            fields = dict(event.headers)
            got["status"] = int(fields[b":status"])
            got["headers"] = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            if got["status"] != 200:
                return got
            say(wanted[0])
        if isinstance(event, DataReceived) and event.data:
            frames.receive_data(event.data)
            for message in frames.events():
                if isinstance(message, (TextMessage, BytesMessage)):
                    parts.append(message.data)
                    if not message.message_finished:
                        continue
                    whole = "".join(parts) if isinstance(message, TextMessage) else b"".join(parts)
                    parts = []
                    if whole != wanted[got["echoed"]]:
                        return got | {"error": f"message {got['echoed']} came back as another"}
                    got["echoed"] += 1
                    if got["echoed"] < len(wanted):
                        say(wanted[got["echoed"]])
                    else:
                        send(CloseConnection(1000))
                elif isinstance(message, CloseConnection):
                    got["close"] = message.code
                    viewer.http.send_data(stream, b"", end_stream=True)
                    viewer.transmit()
                elif isinstance(message, Ping):
                    send(message.response())
        got["end"] = told(event)
    return got


async def act(args):
    address, port = args.connect.rsplit(":", 1)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=args.host)
    configuration.load_verify_locations(args.ca)
    headers = [tuple(part.strip() for part in header.split(":", 1)) for header in args.header]
    headers = [(name.lower(), value) for name, value in headers]
    url = (f"{args.host}:{port}", args.path)
    address = str(ip_address(address.strip("[]")))
    async with connect(address, int(port), configuration=configuration, create_protocol=Viewer) as viewer:
        if args.action in ("get", "head"):
            viewer.begin(args.action.upper(), url, headers, end=True)
            return await answer(viewer)
        if args.action == "upload":
            told_length = [] if args.untold else [("content-length", str(args.size))]
            stream = viewer.begin("POST", url, headers + told_length, end=False)
            sending = asyncio.create_task(viewer.send_body(stream, args.size))
            got = await answer(viewer)
            sending.cancel()
            return got
        if args.action == "cancel":
            return await cancel(viewer, viewer.begin("GET", url, headers, end=True), args.before)
        return await socket(viewer, args, url, headers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connect", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--untold", action="store_true", help="no content-length")
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds")
    parser.add_argument("action", choices=["get", "head", "upload", "cancel", "socket"])
    parser.add_argument("path")
    args = parser.parse_args()
    try:
        got = asyncio.run(asyncio.wait_for(act(args), args.limit))
    except (asyncio.TimeoutError, ConnectionError) as error:
        got = {"error": f"{type(error).__name__} {error}".strip()}
    print(json.dumps(got), flush=True)


if __name__ == "__main__":
    main()
