"""The fetching process as the agent sees it: real processes, real downloads."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from paddler.agent.models.causes import Cause, ModelUnavailable, issue_of
from paddler.agent.models.fetching import fetch, shown
from paddler.agent.models.url_cache import Entry
from paddler.messages.fetch import FetchEvent, FetchJob, HubJob, Receiving, UrlJob, Waiting
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

CONTENT = gguf_bytes(200_000)


class Fetching:
    """One fetch as a task, and what it told."""

    def __init__(self, url: str) -> None:
        self.events: list[FetchEvent] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(fetch(UrlJob(url), self._on_event))

    def _on_event(self, event: FetchEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[list[FetchEvent]], bool]) -> None:
        while not condition(self.events):
            assert not self.task.done(), self.task
            self._changed.clear()
            await self._changed.wait()


def children() -> set[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return {int(pid) for pid in path.read_text().split()}


def run(test: Coroutine[Any, Any, None]) -> None:
    async def body() -> None:
        before = children()
        async with asyncio.timeout(30):
            await test
        assert children() == before

    asyncio.run(body())


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PADDLER_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_model_is_fetched_and_told_of(server: FileServer, cache: Path) -> None:
    async def test() -> None:
        fetching = Fetching(server.url("/m.gguf"))
        path = await fetching.task
        assert path == str(Entry(cache, server.url("/m.gguf")).path)
        assert fetching.events[-1] == Receiving(filename="m.gguf", received=200_000, total=200_000)

    server.add("/m.gguf", CONTENT)
    run(test())


def test_a_failure_is_raised_with_its_issue(server: FileServer) -> None:
    async def test() -> None:
        fetching = Fetching(server.url("/m.gguf"))
        with pytest.raises(ModelUnavailable, match="404") as caught:
            await fetching.task
        assert caught.value.issue == issue_of(Cause.MISSING, UrlJob(server.url("/m.gguf")))

    run(test())


def test_an_address_may_be_as_long_as_a_state() -> None:
    async def test() -> None:
        job = UrlJob("http://h/" + "é" * 500_000)
        with pytest.raises(ModelUnavailable) as caught:
            await Fetching(job.url).task
        assert caught.value.issue == issue_of(Cause.MALFORMED, job)

    run(test())


def test_a_process_that_cannot_be_started_is_told() -> None:
    async def test() -> None:
        job = UrlJob("http://127.0.0.1:1/m.gguf")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(ModelUnavailable, match="cannot start a process") as caught:
                await fetch(job, print)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.issue == issue_of(Cause.INTERRUPTED, job)

    run(test())


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (UrlJob("https://user:secret@host:1/a/m.gguf?token=secret#x"), "host:1/a/m.gguf"),
        (UrlJob("https://host?secret"), "host"),
        (UrlJob("nowhere"), ""),
        (HubJob(repo_id="a/b", revision="main", filename="m.gguf"), "a/b/main/m.gguf"),
    ],
)
def test_logs_name_a_model_without_its_secrets(job: FetchJob, text: str) -> None:
    assert shown(job) == text


def test_a_cancelled_fetch_ends_at_once_and_keeps_what_came(
    server: FileServer, cache: Path
) -> None:
    async def test() -> None:
        fetching = Fetching(url)
        partial = Entry(cache, url).partial
        while not (partial.exists() and partial.stat().st_size > 50_000):
            await asyncio.sleep(0.01)  # between two looks at what another process does
        started_at = asyncio.get_running_loop().time()
        fetching.task.cancel()
        await asyncio.wait((fetching.task,))
        assert asyncio.get_running_loop().time() - started_at < 1
        size = partial.stat().st_size
        file.go.set()
        again = Fetching(url)
        assert Path(await again.task).read_bytes() == CONTENT
        assert file.ranges == [None, f"bytes={size}-"]

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    url = server.url("/m.gguf")
    run(test())


def test_a_killed_fetch_is_an_interruption_and_who_waits_takes_over(server: FileServer) -> None:
    async def test() -> None:
        before = children()
        first = Fetching(url)
        await asyncio.to_thread(file.is_held.wait, 20)
        (pid,) = children() - before
        second = Fetching(url)
        await second.until(lambda events: events == [Waiting()])
        file.go.set()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelUnavailable, match="status -9") as caught:
            await first.task
        assert caught.value.issue == issue_of(Cause.INTERRUPTED, UrlJob(url))
        assert Path(await second.task).read_bytes() == CONTENT

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    url = server.url("/m.gguf")
    run(test())


def test_a_wait_for_the_lock_can_be_cancelled(server: FileServer) -> None:
    async def test() -> None:
        first = Fetching(server.url("/m.gguf"))
        await asyncio.to_thread(file.is_held.wait, 20)
        second = Fetching(server.url("/m.gguf"))
        await second.until(lambda events: events == [Waiting()])
        for fetching in (second, first):
            fetching.task.cancel()
            await asyncio.wait((fetching.task,), timeout=1)
            assert fetching.task.cancelled()

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    run(test())


def test_the_loop_goes_on_while_a_server_says_nothing(server: FileServer) -> None:
    async def test() -> None:
        fetching = Fetching(server.url("/m.gguf"))
        await asyncio.to_thread(file.is_held.wait, 20)
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        for _ in range(100):
            await asyncio.sleep(0)
        assert loop.time() - started_at < 1
        fetching.task.cancel()
        await asyncio.wait((fetching.task,))

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    run(test())
