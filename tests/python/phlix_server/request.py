"""Requests off the wire (wire page s.2.2): the envelope, the chunks, and the server's own gate."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from . import frames

MAX_BODY = 26_214_400
MAX_ASSEMBLIES = 128
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# Read (the first one) and dropped before the request is dispatched.
DROPPED = {"x-phlix-relay-user", "x-forwarded-for", "authorization", "cookie"}
ANONYMOUS = "hub-relay"


class Refusal(Exception):
    """What the server answers by itself."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status
        self.text = text


def malformed():
    return Refusal(400, "malformed relay request")


@dataclass
class Request:
    method: str
    path: str
    query: str = ""
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    form: str = "envelope"
    # As the relay tells it, or as the server's own session does.
    user: str | None = None

    def header(self, name):
        return next((value for key, value in self.headers.items() if key.lower() == name), None)

    def dispatched(self):
        """The headers that the application sees."""
        return {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}


def parse_head(raw):
    """The JSON of both forms."""
    try:
        value = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise malformed() from error
    if not isinstance(value, dict):
        raise malformed()
    method, path = value.get("method"), value.get("path")
    query, headers = value.get("query", ""), value.get("headers", {})
    if headers == []:
        headers = {}
    if not (isinstance(method, str) and isinstance(path, str) and isinstance(query, str) and isinstance(headers, dict)):
        raise malformed()
    for name, text in headers.items():
        # PHP makes an integer key of a name that is all digits.
        if not isinstance(text, str) or name.isdigit():
            raise malformed()
    gate(method, path)
    request = Request(method.upper(), path, query, headers)
    request.user = request.header("x-phlix-relay-user") or ANONYMOUS
    return request, value


def gate(method, path):
    raw = path.encode("utf-8", "surrogatepass")
    once = unquote_to_bytes(raw)
    if method.upper() not in METHODS or not raw.startswith(b"/") or raw.startswith(b"//"):
        raise malformed()
    for spelling in (raw, once):
        if any(bad in spelling for bad in (b"..", b"\0", b"\\", b"://", b"?", b"#")) or any(b < 0x20 for b in spelling):
            raise malformed()


class Assembler:
    """Payloads of HTTP_REQUEST in, whole requests out."""

    def __init__(self):
        self.parts = {}

    def feed(self, number, payload):
        """The request, where this payload completes it. Raises `Refusal`."""
        tag = payload[:1]
        if tag == b"{":
            request, value = parse_head(payload)
            request.body = decode_body(value.get("body", ""))
            return request
        if tag == frames.HEAD:
            if number in self.parts:
                del self.parts[number]
                raise malformed()
            if len(self.parts) >= MAX_ASSEMBLIES:
                raise Refusal(503, "relay proxy not available on this server")
            request, _ = parse_head(payload[1:])
            request.form = "chunked"
            self.parts[number] = (request, bytearray())
            return None
        if tag not in (frames.BODY, frames.END) or number not in self.parts:
            raise malformed()
        request, body = self.parts[number]
        if tag == frames.BODY:
            body += payload[1:]
            if len(body) > MAX_BODY:
                del self.parts[number]
                raise Refusal(413, "relay request body too large")
            return None
        del self.parts[number]
        request.body = bytes(body)
        return request

    def forget(self, number):
        """A cancel discards a partial upload."""
        self.parts.pop(number, None)


def decode_body(text):
    if not isinstance(text, str):
        raise malformed()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed() from error
