"""A listener of ours that answers everything, and remembers what reached its handler."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import msgspec

from paddler.net.connection import Exchange
from paddler.net.http import HttpLimits, Response, Router, Site, json
from paddler.net.server import listen

FRONT_FIELD = "x-front"
"""A proxy writes the number that it gave a request here, over whatever a client wrote."""

METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")


class Seen(msgspec.Struct, frozen=True):
    """A request that the handler saw; also what it is answered with."""

    path: str
    fronts: list[str]
    body_bytes: int


class Origin:
    """``port``, and all requests ``seen`` so far, in their order."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Seen] = []

    async def answer(self, exchange: Exchange) -> Response:
        """Remember the request; tell it to whoever sent it."""
        request = exchange.request
        fronts = request.headers.get_all(FRONT_FIELD)
        seen = Seen(request.path, fronts, len(request.body))
        self.seen.append(seen)
        return json(200, msgspec.json.encode(seen))


@contextlib.contextmanager
def running() -> Iterator[Origin]:
    """An origin on a free port, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="origin")
    thread.start()
    try:
        origin = Origin(0)
        router = Router()
        for method in METHODS:
            router.add_rest(method, origin.answer, except_under="//")
        limits = HttpLimits(linger_timeout_s=0.2)

        listening = listen(Site(router=router, limits=limits), "127.0.0.1", 0)
        listener = asyncio.run_coroutine_threadsafe(listening, loop).result(10)
        origin.port = listener.port
        yield origin
        asyncio.run_coroutine_threadsafe(listener.stop(0.0), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
