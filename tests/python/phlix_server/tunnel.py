"""The tunnel to the hub (wire page s.1, s.4): held for ever, one connection after the other."""

import asyncio
import json
import random
import time

from . import php, websocket
from .live import Live


class Settings:
    """What the configuration says of the tunnel."""

    def __init__(self, args, tls):
        self.url = args.tunnel
        self.tls = tls
        self.heartbeat = args.heartbeat
        self.delay = args.reconnect_delay
        self.max_delay = args.reconnect_max_delay
        self.jitter = args.reconnect_jitter
        self.deadline = args.deadline
        self.drops_full = args.drops_full
        self.empty_list = args.empty_list


class Tunnel:
    def __init__(self, settings, enrollment, app, origin_port, records):
        self.settings = settings
        self.enrollment = enrollment
        self.app = app
        self.origin_port = origin_port
        self.records = records
        self.socket = None
        self.connected = asyncio.Event()
        self.failures = 0

    async def hold(self):
        while True:
            record = self.records.tunnel()
            try:
                await self.once(record)
            except websocket.Closed as closed:
                record["code"], record["reason"] = closed.code, closed.reason
            except (websocket.Refused, OSError) as error:
                record["reason"] = str(error)
            finally:
                self.connected.clear()
                record["ended"] = time.time()
            # Counts at a disconnect only: the first retry after a drop waits for twice the delay.
            self.failures += 1
            delay = min(self.settings.delay * 2**self.failures, self.settings.max_delay)
            jitter = self.settings.jitter
            await asyncio.sleep(delay * random.uniform(1 - jitter, 1 + jitter))

    async def once(self, record):
        self.socket = socket = await websocket.connect(self.settings.url, self.settings.tls)
        live = Live(self, socket)
        try:
            enrollment = {"enrollment_jwt": self.enrollment.jwt, "server_id": self.enrollment.server_id}
            socket.put(php.encode({"type": "hello"} | enrollment))
            # Whatever comes first is taken for the ack.
            first = await socket.receive()
            record["first"] = first[:200].decode("utf-8", "replace")
            ack = json_object(first)
            if ack.get("type") != "hello_ack":
                return
            record["acked"], record["ack"] = time.time(), ack
            self.failures = 0
            self.connected.set()
            live.start(live.heartbeats(self.settings.heartbeat))
            while True:
                live.take(await socket.receive())
        finally:
            await live.close()
            socket.close()

    def drop(self):
        """Ends the connection as a cable does that is cut at this end: no close frame."""
        if self.socket:
            self.socket.abort()


def json_object(raw):
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
