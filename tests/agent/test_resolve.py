"""From wanted states to files, with real downloads from a server that the test controls."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.activity import Activity, ActivityBoard, Phase
from paddler.agent.models.url_cache import Entry
from paddler.agent.resolve import NO_DOWNLOAD, Resolver, Target
from paddler.agent.status import StatusBoard
from paddler.messages.agents import AgentStatus
from paddler.messages.state import (
    DEFAULT_INFERENCE_PARAMETERS,
    ApplicableState,
    ChatTemplate,
    ModelReference,
    ModelSource,
    UrlModel,
)
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

CONTENT = gguf_bytes(200_000)
OTHER = gguf_bytes(1000, seed=2)


def state(
    model: ModelReference, projection: ModelReference = "None", template: str | None = None
) -> ApplicableState:
    return ApplicableState(
        chat_template_override=None if template is None else ChatTemplate(template),
        inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
        model=model,
        multimodal_projection=projection,
    )


def local(path: Path | str) -> ModelReference:
    return ModelSource(local_to_agent=str(path))


def behind(url: str) -> ModelReference:
    return ModelSource(url=UrlModel(url))


class Bench:
    """A resolver at work, what it found, and all that it reported."""

    def __init__(self) -> None:
        self.board = StatusBoard(1)
        self.activity = ActivityBoard()
        self.reports: list[AgentStatus] = []
        self.activities: list[Activity] = []
        self.found: list[Target | None] = []
        self._changed = asyncio.Event()
        self.board.watch(self.reports.append)
        self.board.watch(lambda _: self._changed.set())
        self.activity.watch(self._on_activity)
        # Retries are drawn from the lower end: half a second, then one.
        self.resolver = Resolver(self.board, self.activity, self._on_found, draw=lambda: 0.0)

    def _on_found(self, target: Target | None) -> None:
        self.found.append(target)
        self._changed.set()

    def _on_activity(self) -> None:
        self.activities.append(self.activity.now)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def issues(self) -> Any:
        return list(msgspec.to_builtins(self.board.status.issues))

    @property
    def download(self) -> dict[str, Any]:
        return {name: getattr(self.board.status, name) for name in NO_DOWNLOAD}


Test = Callable[[Bench], Coroutine[Any, Any, None]]


def on_bench(test: Test) -> None:
    async def body() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.resolver.run())
        try:
            async with asyncio.timeout(30):
                await test(bench)
        finally:
            assert not task.done(), task.result()
            task.cancel()
            await asyncio.wait((task,))

    asyncio.run(body())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.setenv("PADDLER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as server:
        yield server


def test_local_files_are_found_at_once(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(local(model), local(projection), template="{{ x }}"))
        assert bench.resolver.is_at_work
        await bench.until(lambda: bench.found)
        assert bench.found == [
            Target(str(model), str(projection), "{{ x }}", DEFAULT_INFERENCE_PARAMETERS)
        ]
        assert not bench.resolver.is_at_work
        assert bench.board.status.uses_chat_template_override
        assert bench.activities == []

    model, projection = tmp_path / "m.gguf", tmp_path / "p.gguf"
    model.touch()
    projection.touch()
    on_bench(test)


def test_no_model_is_resolved_whatever_the_projection() -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state("None", local("/nowhere.gguf")))
        await bench.until(lambda: bench.found == [None])
        assert bench.issues == []

    on_bench(test)


@pytest.mark.parametrize("missing", ["model", "projection"])
def test_a_missing_local_file_is_an_issue_until_it_is_there(tmp_path: Path, missing: str) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(local(here), local(gone)))
        if missing == "model":
            bench.resolver.want(state(local(gone)))
        await bench.until(lambda: bench.issues == [{issue: {"model_path": str(gone)}}])
        assert bench.activity.now.phase is Phase.RETRYING
        gone.touch()
        await bench.until(lambda: bench.found)
        assert bench.issues == []
        assert bench.activity.now.phase is Phase.IDLE

    here, gone = tmp_path / "here.gguf", tmp_path / "gone.gguf"
    here.touch()
    issue = {"model": "ModelFileDoesNotExist", "projection": "MultimodalProjectionCannotBeLoaded"}[
        missing
    ]
    on_bench(test)


def test_a_download_is_reported_from_its_start_to_its_end(
    server: FileServer, tmp_path: Path
) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(behind(url)))
        await bench.until(lambda: bench.board.status.download_filename)
        assert bench.download | {"download_current": 0} == {
            "download_current": 0,
            "download_filename": "m.gguf",
            "download_indeterminate": False,
            "download_total": 200_000,
        }
        file.go.set()
        await bench.until(lambda: bench.found)
        assert bench.download == NO_DOWNLOAD
        currents = [report.download_current for report in bench.reports]
        assert max(currents) == 200_000
        (target,) = bench.found
        assert target is not None
        assert target.model_path == str(Entry(tmp_path / "cache", url).path)
        assert {activity.phase for activity in bench.activities} == {Phase.DOWNLOADING, Phase.IDLE}

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    url = server.url("/m.gguf")
    on_bench(test)


def test_a_download_of_unknown_length_is_indeterminate(server: FileServer) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(behind(server.url("/m.gguf"))))
        await bench.until(lambda: bench.board.status.download_filename)
        assert bench.board.status.download_indeterminate
        assert bench.board.status.download_total == 0
        file.go.set()
        await bench.until(lambda: bench.found)

    file = server.add("/m.gguf", CONTENT, holds_at=100_000, has_length=False)
    on_bench(test)


def test_a_failed_download_keeps_its_issue_until_bytes_come_again(server: FileServer) -> None:
    async def test(bench: Bench) -> None:
        url = server.url("/m.gguf")
        issue = [{"DownloadServerErrored": {"model_path": url}}]
        bench.resolver.want(state(behind(url)))
        await bench.until(lambda: bench.issues == issue)
        assert bench.activity.now.phase is Phase.RETRYING
        assert bench.download == NO_DOWNLOAD
        shown = len(bench.reports)
        while len(file.ranges) < 2:  # another try changes nothing
            await asyncio.sleep(0.01)
        assert bench.reports[shown:] == []
        file.holds_at, file.status = 100_000, None
        await bench.until(lambda: bench.board.status.download_filename)
        assert bench.issues == []
        file.go.set()
        await bench.until(lambda: bench.found)

    file = server.add("/m.gguf", CONTENT, status=500)
    on_bench(test)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_that_gets_no_further_keeps_its_issue_without_a_word_more(
    server: FileServer, caplog: pytest.LogCaptureFixture, knows_ranges: bool
) -> None:
    async def test(bench: Bench) -> None:
        url = server.url("/m.gguf")
        issue = [{"DownloadInterrupted": {"model_path": url}}]
        bench.resolver.want(state(behind(url)))
        await bench.until(lambda: bench.issues == issue)
        shown, said = len(bench.reports), len(caplog.records)
        while len(file.ranges) < 3:
            await asyncio.sleep(0.01)
        assert {len(report.issues) for report in bench.reports[shown:]} == {1}
        assert [record for record in caplog.records[said:] if record.levelname != "DEBUG"] == []
        file.cuts_at = None
        file.holds_at = 150_000
        await bench.until(lambda: bench.board.status.download_current == 150_000)
        assert bench.issues == []
        file.go.set()
        await bench.until(lambda: bench.found)

    file = server.add("/m.gguf", CONTENT, cuts_at=100_000, knows_ranges=knows_ranges)
    caplog.set_level("DEBUG", "paddler.agent")
    on_bench(test)


def test_a_newer_state_abandons_a_download_at_once(server: FileServer, tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(behind(server.url("/slow.gguf"))))
        await bench.until(lambda: bench.board.status.download_filename == "slow.gguf")
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        bench.resolver.want(state(local(model)))
        await bench.until(lambda: bench.found)
        assert loop.time() - asked_at < 1
        assert [target.model_path for target in bench.found if target] == [str(model)]
        assert bench.download == NO_DOWNLOAD
        file.go.set()

    file = server.add("/slow.gguf", CONTENT, holds_at=100_000)
    model = tmp_path / "m.gguf"
    model.touch()
    on_bench(test)


def test_a_newer_state_clears_the_issue_of_the_one_before(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(local("/nowhere.gguf")))
        await bench.until(lambda: bench.issues)
        bench.resolver.want(state(local(model)))
        assert bench.issues == []
        await bench.until(lambda: bench.found)

    model = tmp_path / "m.gguf"
    model.touch()
    on_bench(test)


def test_the_same_state_again_is_not_resolved_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(local(model)))
        await bench.until(lambda: bench.found)
        bench.resolver.want(state(local(model)))
        assert not bench.resolver.is_at_work
        bench.resolver.look_again()
        await bench.until(lambda: len(bench.found) == 2)

    model = tmp_path / "m.gguf"
    model.touch()
    on_bench(test)


def test_giving_up_leaves_nothing_to_do(server: FileServer) -> None:
    async def test(bench: Bench) -> None:
        bench.resolver.want(state(behind(server.url("/slow.gguf"))))
        await bench.until(lambda: bench.board.status.download_filename)
        bench.resolver.want(None)
        await bench.until(lambda: bench.download == NO_DOWNLOAD)
        assert not bench.resolver.is_at_work
        assert bench.found == []
        bench.resolver.look_again()
        assert not bench.resolver.is_at_work
        file.go.set()

    file = server.add("/slow.gguf", CONTENT, holds_at=100_000)
    on_bench(test)


def test_the_end_is_not_forgotten_when_a_newer_state_comes_as_well() -> None:
    async def body() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.resolver.run())
        bench.resolver.want(state(local("/nowhere.gguf")))
        await bench.until(lambda: bench.issues)
        bench.resolver.want(state("None"))  # both at once
        task.cancel()
        await asyncio.wait((task,), timeout=10)
        assert task.cancelled()

    asyncio.run(body())


def test_who_waits_for_another_process_is_seen_to_wait(server: FileServer) -> None:
    async def test(bench: Bench) -> None:
        other = Bench()
        running = asyncio.create_task(other.resolver.run())
        bench.resolver.want(state(behind(server.url("/m.gguf"))))
        await bench.until(lambda: bench.board.status.download_filename)
        other.resolver.want(state(behind(server.url("/m.gguf"))))
        await other.until(lambda: other.activity.now.phase is Phase.WAITING_FOR_LOCK)
        assert other.issues == []  # not yet: agents often start together
        assert other.download == NO_DOWNLOAD
        file.go.set()
        await other.until(lambda: other.found)
        await bench.until(lambda: bench.found)
        assert bench.found == other.found
        running.cancel()
        await asyncio.wait((running,))

    file = server.add("/m.gguf", CONTENT, holds_at=100_000)
    on_bench(test)
