"""Models behind addresses, fetched from a real server into a real cache."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from paddler.agent.models.causes import Cause, SourceFailed
from paddler.agent.models.lock import held
from paddler.agent.models.url import fetch_from_url, file_name, part_urls
from paddler.agent.models.url_cache import Entry
from paddler.messages.fetch import FetchEvent, Receiving, UrlJob, Waiting
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

CONTENT = gguf_bytes(200_000)


class Fetches:
    """Fetches into one cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.events: list[FetchEvent] = []
        self.on_event: Callable[[FetchEvent], object] = self.events.append

    def run(self, url: str, *, long_wait_s: float = 60) -> Path:
        environ = {"PADDLER_CACHE_DIR": str(self.cache)}

        def report(event: FetchEvent) -> None:
            self.on_event(event)

        return Path(fetch_from_url(UrlJob(url), report, environ, long_wait_s=long_wait_s))

    def fails(self, url: str) -> Cause:
        with pytest.raises(SourceFailed) as caught:
            self.run(url)
        return caught.value.cause

    def entry(self, url: str) -> Entry:
        return Entry(self.cache, url)


@pytest.fixture
def fetches(tmp_path: Path) -> Fetches:
    return Fetches(tmp_path / "cache")


def test_a_model_is_fetched_once(server: FileServer, fetches: Fetches) -> None:
    server.add("/a/m.gguf", CONTENT)
    url = server.url("/a/m.gguf?download=true")
    path = fetches.run(url)
    assert path == fetches.entry(url).path
    assert path.read_bytes() == CONTENT
    assert fetches.events[-1] == Receiving(filename="m.gguf", received=200_000, total=200_000)
    assert fetches.run(url) == path
    assert len(server.requests) == 1


def test_what_broke_off_is_resumed(server: FileServer, fetches: Fetches) -> None:
    file = server.add("/m.gguf", CONTENT, cuts_at=70_000)
    url = server.url("/m.gguf")
    assert fetches.fails(url) is Cause.INTERRUPTED
    assert not fetches.entry(url).path.exists()
    file.cuts_at = None
    assert fetches.run(url).read_bytes() == CONTENT
    assert file.ranges == [None, "bytes=70000-"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "model.gguf",
        "ftp://models.example/m.gguf",
        "file:///m.gguf",
        "http://",
        "http:///m.gguf",
        "http://models example/m.gguf",
        "http://models.example:0/m.gguf",
        "http://models.example:65536/m.gguf",
        "http://models.example/\n",
        "http://[::1/m.gguf",
    ],
)
def test_what_is_no_address_is_malformed(fetches: Fetches, url: str) -> None:
    assert fetches.fails(url) is Cause.MALFORMED
    assert not fetches.cache.exists()


def test_without_a_cache_nothing_is_fetched(server: FileServer) -> None:
    server.add("/m.gguf", CONTENT)
    with pytest.raises(SourceFailed, match="PADDLER_CACHE_DIR") as caught:
        fetch_from_url(UrlJob(server.url("/m.gguf")), print, {})
    assert caught.value.cause is Cause.NOT_WRITABLE
    assert server.requests == []


def test_a_cache_below_a_file_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Fetches(tmp_path / "file" / "cache").fails(server.url("/m.gguf")) is Cause.NOT_WRITABLE


def test_a_cached_file_that_is_no_model_is_deleted_and_fetched_again(
    server: FileServer, fetches: Fetches
) -> None:
    server.add("/m.gguf", CONTENT)
    url = server.url("/m.gguf")
    entry = fetches.entry(url)
    entry.path.parent.mkdir(parents=True)
    entry.path.write_bytes(bytes(100))
    assert fetches.fails(url) is Cause.CORRUPTED
    assert fetches.run(url).read_bytes() == CONTENT


def test_who_waits_finds_what_the_other_fetched(server: FileServer, fetches: Fetches) -> None:
    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    url = server.url("/m.gguf")
    waiting = Fetches(fetches.cache)
    told: list[FetchEvent] = []

    def on_event(event: FetchEvent) -> None:
        told.append(event)
        if event != Waiting():
            file.go.set()

    waiting.on_event = on_event
    first = threading.Thread(target=fetches.run, args=(url,))
    first.start()
    file.is_held.wait(10)
    assert waiting.run(url, long_wait_s=0.01).read_bytes() == CONTENT
    first.join()
    assert len(file.ranges) == 1
    assert msgspec.to_builtins(told) == [
        {"type": "waiting"},
        {"type": "waiting", "issue": {"CacheCannotAcquireLock": {"model_path": url}}},
    ]


def test_the_lock_is_held_for_the_whole_download(server: FileServer, fetches: Fetches) -> None:
    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    url = server.url("/m.gguf")
    thread = threading.Thread(target=fetches.run, args=(url,))
    thread.start()
    file.is_held.wait(10)
    told: list[bool] = []

    def on_wait(is_long: bool) -> None:
        told.append(is_long)
        file.go.set()

    with held(fetches.entry(url).lock, on_wait):
        assert fetches.entry(url).path.exists()
    thread.join()
    assert told == [False]


def test_all_parts_are_fetched_and_the_first_is_the_path(
    server: FileServer, fetches: Fetches
) -> None:
    parts = [gguf_bytes(1000, seed) for seed in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        server.add(f"/m-0000{number}-of-00003.gguf", part)
    path = fetches.run(server.url("/m-00002-of-00003.gguf?x=/y"))
    assert path.name == "m-00001-of-00003.gguf"
    names = sorted(os.listdir(path.parent))
    assert [(path.parent / name).read_bytes() for name in names] == parts
    assert {seen.path.partition("?")[2] for seen in server.requests} == {"x=/y"}


def test_a_missing_part_is_a_missing_model(server: FileServer, fetches: Fetches) -> None:
    server.add("/m-00001-of-00002.gguf", CONTENT)
    assert fetches.fails(server.url("/m-00001-of-00002.gguf")) is Cause.MISSING


@pytest.mark.parametrize(
    ("url", "first", "name"),
    [
        ("http://h/a/m.gguf", "http://h/a/m.gguf", "m.gguf"),
        ("http://h/a%20b.gguf#x", "http://h/a%20b.gguf#x", "a b.gguf"),
        ("http://h", "http://h", "model.gguf"),
        ("http://h?a=/b.gguf", "http://h?a=/b.gguf", "model.gguf"),
        ("http://h/m-00002-of-00002.gguf?a#b", "http://h/m-00001-of-00002.gguf?a#b", None),
        ("http://h/..%2Fm.gguf", "http://h/..%2Fm.gguf", "m.gguf"),
    ],
)
def test_the_name_is_the_last_part_of_the_path(url: str, first: str, name: str | None) -> None:
    assert part_urls(url)[0] == first
    if name is not None:
        assert file_name(url) == name
