"""Gauges, heard by a real UDP socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from paddler.balancer.pool import Pool
from paddler.balancer.statsd import encode_gauge, report_gauges
from paddler.balancer.waitline import Waitline
from paddler.config import Address
from tests.balancer.test_pool import join


@pytest.mark.parametrize(
    ("prefix", "datagram"),
    [
        ("paddler_", b"paddler_.slots_total:3|g"),
        ("fleet.", b"fleet.slots_total:3|g"),
        ("a.b", b"a.b.slots_total:3|g"),
        ("", b"slots_total:3|g"),
    ],
)
def test_a_gauge_is_one_line(prefix: str, datagram: bytes) -> None:
    assert encode_gauge(prefix, "slots_total", 3) == datagram


@contextlib.contextmanager
def server(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.bind((host, 0))
        udp.setblocking(False)
        yield udp


def address_of(udp: socket.socket) -> Address:
    host, port = udp.getsockname()[:2]
    return Address(text="stats", host=host, port=port)


async def hear(udp: socket.socket) -> list[bytes]:
    """The next three datagrams."""
    loop = asyncio.get_running_loop()
    return [await loop.sock_recv(udp, 1000) for _ in range(3)]


def on_loop(
    test: Callable[[Pool, Waitline], Coroutine[Any, Any, None]],
) -> None:
    async def run() -> None:
        pool = Pool()
        async with asyncio.timeout(10):
            await test(pool, Waitline(pool, limit=10, timeout_s=60.0))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@contextlib.asynccontextmanager
async def reporting(
    address: Address, pool: Pool, waitline: Waitline
) -> AsyncIterator[asyncio.Task[None]]:
    report = asyncio.create_task(report_gauges(address, "paddler_", 0.001, pool, waitline))
    try:
        yield report
    finally:
        report.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await report


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_three_gauges_are_sent_at_once_and_again(host: str) -> None:
    async def test(pool: Pool, waitline: Waitline) -> None:
        with server(host) as udp:
            async with reporting(address_of(udp), pool, waitline):
                assert await hear(udp) == [
                    b"paddler_.slots_processing:0|g",
                    b"paddler_.slots_total:0|g",
                    b"paddler_.requests_buffered:0|g",
                ]
                join(pool, "a", 2)
                assert pool.claim() is not None
                assert pool.claim() is not None
                waiting = asyncio.create_task(waitline.wait_slot(waitline.take_ticket()))
                while await hear(udp) != [
                    b"paddler_.slots_processing:2|g",
                    b"paddler_.slots_total:2|g",
                    b"paddler_.requests_buffered:1|g",
                ]:
                    pass
                waiting.cancel()
                await asyncio.wait([waiting])

    on_loop(test)


def test_a_server_that_cannot_be_reached_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(pool: Pool, waitline: Waitline) -> None:
        nowhere = Address(text="stats:1", host="255.255.255.255", port=1)  # broadcast: refused
        async with reporting(nowhere, pool, waitline) as report:
            while len(caplog.records) < 2:
                await asyncio.sleep(0)
            assert not report.done()

    with caplog.at_level(logging.WARNING, "paddler.balancer.statsd"):
        on_loop(test)
    assert caplog.messages[0].startswith("cannot report to StatsD at stats:1: ")
