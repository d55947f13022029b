"""One tunnel after its HELLO_ACK: frames both ways, requests and raw channels."""

import asyncio
import json
import time

from . import frames, websocket
from .exchange import Exchange
from .request import Assembler, Refusal


class Live:
    def __init__(self, tunnel, socket):
        self.tunnel = tunnel
        self.socket = socket
        self.records = tunnel.records
        self.tasks = set()
        self.decoder = frames.Decoder()
        self.assembler = Assembler()
        self.exchanges = {}
        self.channels = {}

    def start(self, work):
        task = asyncio.create_task(self.guarded(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def guarded(self, work):
        try:
            await work
        except (websocket.Closed, ConnectionError):
            # Whoever reads the socket sees the same.
            pass
        except Exception as error:
            self.records.errors.append(repr(error))

    async def close(self):
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in self.channels.values():
            channel.close()
        self.records.pings += self.socket.pings
        self.records.opcodes |= self.socket.opcodes

    def put(self, number, kind, payload=b""):
        self.records.went(kind)
        self.socket.put(frames.encode(number, kind, payload))

    async def send(self, number, kind, payload=b""):
        self.records.went(kind)
        await self.socket.send(frames.encode(number, kind, payload))

    async def heartbeats(self, every):
        while True:
            await asyncio.sleep(every)
            self.put(0, frames.HEARTBEAT)

    def take(self, message):
        for number, kind, payload in self.decoder.feed(message):
            self.records.came(kind)
            match kind:
                case frames.HTTP_REQUEST:
                    self.request(number, payload)
                case frames.HTTP_CANCEL:
                    self.cancel(number)
                case frames.HEARTBEAT:
                    # Each one of the hub's is echoed.
                    self.put(0, frames.HEARTBEAT)
                case frames.CLIENT_CONNECT:
                    self.connect(number, payload)
                case frames.CLIENT_DISCONNECT:
                    if number in self.channels:
                        self.channels.pop(number).ended("hub")
                case frames.DATA:
                    self.data(number, payload)
                case frames.DISCONNECTED | frames.ERROR:
                    self.records.errors.append(f"frame {kind:#04x} {payload!r}")
                case _:
                    self.records.unexpected.append(kind)
        if self.decoder.wedged is not None and self.decoder.wedged not in self.records.wedged:
            self.records.wedged.append(self.decoder.wedged)

    def request(self, number, payload):
        try:
            request = self.assembler.feed(number, payload)
        except Refusal as refusal:
            exchange = Exchange(self, number, self.records.refusal(number, refusal.status))
            self.start(exchange.refuse(refusal.status, refusal.text))
            return
        if request is not None:
            exchange = Exchange(self, number, self.records.request(number, request))
            self.exchanges[number] = exchange
            self.start(self.answered(exchange, request))

    async def answered(self, exchange, request):
        try:
            await exchange.run(request)
        finally:
            if self.exchanges.get(exchange.number) is exchange:
                del self.exchanges[exchange.number]

    def cancel(self, number):
        self.assembler.forget(number)
        if exchange := self.exchanges.get(number):
            exchange.record["cancelled"] = time.time()
            exchange.cancelled.set()

    def connect(self, number, payload):
        if number > 0 and number not in self.channels:
            channel = Channel(self, number, self.records.channel(number, json.loads(payload)))
            self.channels[number] = channel
            self.start(channel.pipe(self.tunnel.origin_port))

    def data(self, number, payload):
        if channel := self.channels.get(number):
            channel.write(payload)
        else:
            self.records.errors.append(f"DATA for channel {number}")


class Channel:
    """A connection to the server's own HTTP port."""

    def __init__(self, live, number, record):
        self.live = live
        self.number = number
        self.record = record
        self.early = []
        self.writer = None

    async def pipe(self, port):
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        for payload in self.early:
            self.writer.write(payload)
        # Where the local side closes, the hub is told nothing.
        while piece := await reader.read(frames.MAX_PAYLOAD):
            self.record["sent"] += len(piece)
            await self.live.send(self.number, frames.DATA, piece)
        self.record["ended"] = self.record["ended"] or "local"

    def write(self, payload):
        self.record["received"] += len(payload)
        if self.writer:
            self.writer.write(payload)
        else:
            self.early.append(payload)

    def ended(self, by):
        self.record["ended"] = by
        self.close()

    def close(self):
        if self.writer:
            self.writer.close()
