"""What the double has seen and done, for a story to read."""

import time


class Records:
    def __init__(self):
        # Relayed requests, those refused before they were whole, and calls of the hub's API.
        self.requests = []
        self.refusals = []
        self.calls = []
        self.tunnels = []
        self.channels = []
        # Frames by type, of all tunnels.
        self.frames_in = {}
        self.frames_out = {}
        # Types that wedged the decoder, and those that a server does not expect.
        self.wedged = []
        self.unexpected = []
        self.errors = []
        # WebSocket: pings that came, opcodes that messages had.
        self.pings = 0
        self.opcodes = set()

    def request(self, number, request):
        record = {
            "id": number,
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": request.headers,
            "form": request.form,
            "user": request.user,
            "body_length": len(request.body),
            "body": request.body[:1000].decode("utf-8", "replace"),
            "came": time.time(),
            "status": None,
            "sent": 0,
            "ended": None,
            "cancelled": None,
        }
        self.requests.append(record)
        return record

    def refusal(self, number, status):
        record = {"id": number, "status": status, "sent": 0}
        self.refusals.append(record)
        return record

    def call(self, method, path, status, body):
        self.calls.append({"method": method, "path": path, "status": status, "body": body, "at": time.time()})

    def tunnel(self):
        record = {"opened": time.time(), "first": None, "acked": None, "ack": None}
        record |= {"ended": None, "code": None, "reason": None}
        self.tunnels.append(record)
        return record

    def channel(self, number, told):
        record = {"id": number, "told": told, "received": 0, "sent": 0, "ended": None}
        self.channels.append(record)
        return record

    def came(self, kind):
        self.frames_in[kind] = self.frames_in.get(kind, 0) + 1

    def went(self, kind):
        self.frames_out[kind] = self.frames_out.get(kind, 0) + 1

    def told(self):
        return vars(self) | {"opcodes": sorted(self.opcodes)}
