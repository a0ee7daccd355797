"""Listening and stopping."""

import asyncio
import contextlib
import resource
import socket

import pytest

from paddler.descriptors import Descriptors
from paddler.net.server import listen
from tests.net.conftest import Run
from tests.net.peers import Client, Socket, Waiting, connect, get, health, serving, site_of

SITE = site_of(("GET", "/health", health))


def test_taken_port_is_an_os_error(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener:
            with pytest.raises(OSError, match="ddress already in use"):
                await listen(SITE, listener.host, listener.port)

    run(check())


def test_port_can_be_listened_on_again_at_once(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            await client.ask(get("/health", "Connection: close\r\n"))
        again = await listen(SITE, listener.host, listener.port)
        await again.stop(0.0)

    run(check())


def test_clients_that_come_together_do_not_wait_for_a_round_of_the_loop_each(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener:
            with contextlib.ExitStack() as clients:
                for _ in range(32):
                    client = socket.create_connection((listener.host, listener.port))
                    clients.enter_context(client)
                for _ in range(12):
                    await asyncio.sleep(0)
                assert len(listener.connections) == 32
            await listener.connections.wait_empty()

    run(check())


def test_closed_listener_accepts_nobody_but_serves_who_is_there(run: Run) -> None:
    async def check() -> None:
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            await client.ask(get("/health"))
            listener.close()
            assert (await client.ask(get("/health"))).status == 200
            with pytest.raises(OSError, match="onnect"):
                await Client.connect(listener)

    run(check())


def test_stop_closes_idle_connections_at_once(run: Run) -> None:
    async def check() -> None:
        listener = await listen(SITE, "127.0.0.1", 0)
        async with await Client.connect(listener) as client:
            await client.ask(get("/health"))
            await listener.stop(60.0)
            assert await client.is_ended()

    run(check())


def test_stop_lets_requests_finish_and_says_close(run: Run) -> None:
    async def check() -> None:
        handler = Waiting()
        listener = await listen(site_of(("GET", "/", handler)), "127.0.0.1", 0)
        async with await Client.connect(listener) as client:
            client.send(get("/"))
            await handler.entered.wait()
            stopping = asyncio.ensure_future(listener.stop(60.0))
            await asyncio.sleep(0)
            assert not stopping.done()
            handler.let_go.set()
            answer = await client.answer()
            assert (answer.status, answer.headers.get("connection")) == (200, "close")
            await stopping

    run(check())


def test_stop_cuts_what_is_left_after_the_grace_time(run: Run) -> None:
    async def check() -> None:
        handler = Waiting(starts=True)
        listener = await listen(site_of(("GET", "/", handler)), "127.0.0.1", 0)
        async with await Client.connect(listener) as client:
            client.send(get("/"))
            await handler.entered.wait()
            await listener.stop(0.0)
            assert handler.is_cancelled
            with contextlib.suppress(ConnectionError):
                assert not (await client.reader.read()).endswith(b"0\r\n\r\n")

    run(check())


def test_stop_closes_websockets_with_a_reason(run: Run) -> None:
    async def check() -> None:
        listener = await listen(Socket().site, "127.0.0.1", 0)
        client = await connect(listener)
        await listener.stop(0.0)
        assert await client.closed == (1001, "Server shutting down")

    run(check())


def test_listener_survives_running_out_of_descriptors(run: Run) -> None:
    async def check() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        async with serving(SITE) as listener, await Client.connect(listener) as client:
            await client.ask(get("/health"))
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket() as late:
                highest = late.fileno()
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
                try:
                    late.connect((listener.host, listener.port))  # by the kernel, not accepted
                    assert (await client.ask(get("/health"))).status == 200
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            async with await Client.connect(listener) as next_client:
                assert (await next_client.ask(get("/health"))).status == 200

    run(check())


def test_a_connection_without_room_is_told_so_and_closed_while_others_go_on(run: Run) -> None:
    async def check() -> None:
        descriptors = Descriptors()
        listener = await listen(SITE, "127.0.0.1", 0, None, descriptors)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with await Client.connect(listener) as client:
            await client.ask(get("/health"))
            with socket.socket() as next_one:
                limit = next_one.fileno() + 8  # all kept back
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
            try:
                descriptors.look()
                async with await Client.connect(listener) as late:
                    refusal = await late.answer()
                    assert (refusal.status, refusal.headers.get("connection")) == (503, "close")
                    assert b"too many connections" in refusal.body
                    assert await late.is_ended()
                assert (await client.ask(get("/health"))).status == 200
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            descriptors.look()
            async with await Client.connect(listener) as next_client:
                assert (await next_client.ask(get("/health"))).status == 200
        await listener.stop(0.0)

    run(check())
