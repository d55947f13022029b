"""What a media server does that it should not, asked for by `?behave=` in a relayed request's query.

    slow      the head after `after` seconds
    hang      no answer
    drip      a body of `size` bytes in pieces of `piece`, one each `every` seconds
    short     half of what the head promised, and END
    long      more than the head promised
    endless   a body that never ends, as fast as it is taken; a cancel does not stop it
    pile      as `endless`, promising `size` bytes in the head
    nohead    END alone
    twoheads  a second head in the middle of the body
    early     BODY before the head
    cancelled the head and half of the body, then HTTP_CANCEL and never END
    badhead   a head that is no JSON object of the right kind: `head` is sent as it is
    flood     `frames` frames of `piece` bytes for an id never used, then a proper answer
    type      a frame of type `type`
    vanish    TCP ends without a word; with `after=head` in the middle of the body
    answer    `status`, `type` and any `h-NAME` header, `text` as the body
"""

import asyncio

from . import frames

NEVER_USED = 0xFFFFFFF0
BLOCK = bytes(n % 251 for n in range(frames.MAX_CHUNK))
PLAIN = {"Content-Type": "text/plain"}
BINARY = {"Content-Type": "application/octet-stream"}


async def act(name, query, exchange):
    size = int(query.get("size", 1 << 20))
    piece = int(query.get("piece", 1000))
    promised = BINARY | {"Content-Length": str(size)}
    match name:
        case "slow":
            await asyncio.sleep(float(query.get("after", 1)))
            await exchange.answer(200, PLAIN, b"slow")
        case "hang":
            await asyncio.Event().wait()
        case "drip":
            await exchange.head(200, promised, size)
            for at in range(0, size, piece):
                if exchange.cancelled.is_set():
                    return
                await exchange.body(BLOCK[: min(piece, size - at)])
                await asyncio.sleep(float(query.get("every", 0.1)))
            await exchange.end()
        case "short":
            await exchange.head(200, promised, size)
            await filled(exchange, size // 2)
            await exchange.end()
        case "long":
            await exchange.head(200, promised, size)
            await filled(exchange, size + 1000)
            await exchange.end()
        case "endless":
            await exchange.head(200, BINARY, None)
            await for_ever(exchange)
        case "pile":
            await exchange.head(200, promised, size)
            await for_ever(exchange)
        case "nohead":
            await exchange.end()
        case "twoheads":
            await exchange.head(200, promised, size)
            await filled(exchange, size // 2)
            await exchange.head(200, promised, size)
            await filled(exchange, size // 2)
            await exchange.end()
        case "early":
            await exchange.body(BLOCK)
            await exchange.answer(200, BINARY, b"late")
        case "cancelled":
            await exchange.head(200, promised, size)
            await filled(exchange, size // 2)
            await exchange.cancel()
        case "badhead":
            await exchange.response(frames.HEAD + query.get("head", "{}").encode())
            await exchange.body(b"after a bad head")
            await exchange.end()
        case "flood":
            for _ in range(int(query.get("frames", 1000))):
                await exchange.live.send(NEVER_USED, frames.HTTP_RESPONSE, frames.BODY + BLOCK[:piece])
            await exchange.answer(200, PLAIN, b"after the flood")
        case "type":
            await exchange.live.send(0, int(query.get("type", 0x13)))
        case "vanish":
            if query.get("after") == "head":
                await exchange.head(200, promised, size)
                await filled(exchange, size // 2)
            exchange.live.tunnel.drop()
        case "answer":
            headers = {key[2:]: value for key, value in query.items() if key.startswith("h-")}
            headers.setdefault("Content-Type", query.get("type", "text/plain"))
            await exchange.answer(int(query.get("status", 200)), headers, query.get("text", "as asked").encode())
        case _:
            await exchange.answer(400, PLAIN, f"no behaviour {name}".encode())


async def filled(exchange, size):
    while size > 0:
        await exchange.body(BLOCK[:size])
        size -= len(BLOCK)


async def for_ever(exchange):
    while True:
        await exchange.body(BLOCK)
