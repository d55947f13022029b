"""One relayed request on its way back: HEAD, BODY, END, and the HTTP_CANCEL that follows (wire page s.2.3)."""

import asyncio
import time

from . import frames, misbehaviour, php, websocket


class Exchange:
    def __init__(self, live, number, record):
        self.live = live
        self.number = number
        self.record = record
        self.cancelled = asyncio.Event()

    async def run(self, request):
        settings = self.live.tunnel.settings
        try:
            await asyncio.wait_for(self.work(request), settings.deadline)
        except TimeoutError:
            await self.refuse(504, "relay request timed out")
        except (websocket.Closed, ConnectionError):
            raise
        except Exception as error:
            self.live.records.errors.append(repr(error))
            await self.refuse(500, "relay dispatch error")

    async def work(self, request):
        query = php.query(request.query)
        if isinstance(query.get("behave"), str):
            return await misbehaviour.act(query["behave"], query, self)
        answer = await self.live.tunnel.app.answer(request)
        await self.head(answer.status, answer.headers, answer.length)
        if request.method != "HEAD":
            await self.pour(answer.pieces())
        await self.end()

    async def pour(self, pieces):
        """The file, to its end. A cancel does not stop it (wire page s.4)."""
        stops_when_full = self.live.tunnel.settings.drops_full
        async for piece in pieces:
            if not stops_when_full:
                await self.body(piece)
            elif self.live.socket.full():
                # The known defect: it is read no further, and END goes out all the same.
                return
            else:
                self.live.put(self.number, frames.HTTP_RESPONSE, frames.BODY + piece)
                self.record["sent"] += len(piece)

    async def refuse(self, status, text):
        await self.answer(status, {"Content-Type": "text/plain"}, text.encode())

    async def answer(self, status, headers, body):
        await self.head(status, headers, len(body))
        await self.body(body)
        await self.end()

    async def head(self, status, headers, length):
        self.record["status"] = status
        if not headers and self.live.tunnel.settings.empty_list:
            headers = []
        await self.response(frames.HEAD + php.encode({"status": status, "headers": headers, "bodyLength": length}))

    async def body(self, data):
        for at in range(0, len(data), frames.MAX_CHUNK):
            piece = data[at : at + frames.MAX_CHUNK]
            await self.response(frames.BODY + piece)
            self.record["sent"] += len(piece)

    async def end(self):
        await self.response(frames.END)
        self.record["ended"] = time.time()
        await self.cancel()

    async def cancel(self):
        await self.live.send(self.number, frames.HTTP_CANCEL)

    async def response(self, payload):
        await self.live.send(self.number, frames.HTTP_RESPONSE, payload)
