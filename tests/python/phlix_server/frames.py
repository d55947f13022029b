"""Relay frames (wire page s.2): seven bytes of header, at most 65535 of payload."""

import struct

CLIENT_CONNECT = 0x03
CLIENT_DISCONNECT = 0x04
DATA = 0x05
HEARTBEAT = 0x06
DISCONNECTED = 0x07
ERROR = 0x08
HTTP_REQUEST = 0x10
HTTP_RESPONSE = 0x11
HTTP_CANCEL = 0x12

# All that the enum of the media server has, retired ones included: anything else wedges its decoder.
KNOWN = frozenset(range(0x01, 0x13))

MAX_PAYLOAD = 65_535
# A chunk's tag takes one byte.
MAX_CHUNK = MAX_PAYLOAD - 1

HEAD, BODY, END = b"\x01", b"\x02", b"\x03"


def encode(number, kind, payload=b""):
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes")
    return struct.pack(">IBH", number, kind, len(payload)) + payload


class Decoder:
    """The media server's own: bytes of any split in, whole frames out.

    On a type that it does not know it says "incomplete", for ever: all later bytes are kept and nothing is
    decoded (wire page s.2). `wedged` is that type.
    """

    def __init__(self):
        self.buffer = bytearray()
        self.wedged = None

    def feed(self, data):
        self.buffer += data
        found = []
        at = 0
        while self.wedged is None and len(self.buffer) - at >= 7:
            number, kind, length = struct.unpack_from(">IBH", self.buffer, at)
            if kind not in KNOWN:
                self.wedged = kind
                break
            if len(self.buffer) - at < 7 + length:
                break
            found.append((number, kind, bytes(self.buffer[at + 7 : at + 7 + length])))
            at += 7 + length
        del self.buffer[:at]
        return found
