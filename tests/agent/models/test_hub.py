"""Models of the Hub, fetched from a real server into a real cache of the Hub's own layout."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import scan_cache_dir

from paddler.agent.models.causes import Cause, SourceFailed
from paddler.agent.models.hub import Hub, fetch_from_hub
from paddler.messages.fetch import FetchEvent, HubJob, Receiving, Waiting
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer, HubFile, commit_of

SIZE = 200_000
CONTENT = gguf_bytes(SIZE)
OTHER = gguf_bytes(SIZE, seed=2)


class Fetches:
    """Fetches from one server into one cache."""

    def __init__(self, server: FileServer, cache: Path) -> None:
        self.hub = Hub(endpoint=server.endpoint, cache=cache, is_offline=False)
        self.events: list[FetchEvent] = []
        self.on_event: Callable[[FetchEvent], object] = self.events.append

    def run(self, filename: str = "m.gguf", *, long_wait_s: float = 60, **changes: Any) -> Path:
        job = HubJob(repo_id="org/repo", revision="main", filename=filename)
        job = msgspec.structs.replace(job, **changes)

        def report(event: FetchEvent) -> None:
            self.on_event(event)

        return Path(fetch_from_hub(job, report, self.hub, long_wait_s=long_wait_s))

    def fails(self, filename: str = "m.gguf", **changes: Any) -> Cause:
        with pytest.raises(SourceFailed) as caught:
            self.run(filename, **changes)
        return caught.value.cause

    def change(self, **changes: Any) -> None:
        self.hub = msgspec.structs.replace(self.hub, **changes)

    @property
    def folder(self) -> Path:
        return self.hub.cache / "models--org--repo"


@pytest.fixture
def fetches(server: FileServer, tmp_path: Path) -> Fetches:
    return Fetches(server, tmp_path / "hub")


def test_a_model_is_fetched_into_the_hubs_own_layout(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("q8/m.gguf", CONTENT)
    path = fetches.run("q8/m.gguf")
    assert path == fetches.folder / "snapshots" / commit_of("main") / "q8" / "m.gguf"
    assert path.read_bytes() == CONTENT
    assert path.is_symlink()
    assert (fetches.folder / "refs" / "main").read_text() == commit_of("main")
    assert fetches.events[0] == Receiving(filename="q8/m.gguf", received=0, total=SIZE)
    assert fetches.events[-1] == Receiving(filename="q8/m.gguf", received=SIZE, total=SIZE)
    (repo,) = scan_cache_dir(fetches.hub.cache).repos
    assert (repo.repo_id, repo.size_on_disk) == ("org/repo", SIZE)


def test_what_is_cached_is_asked_about_and_not_fetched_again(
    server: FileServer, fetches: Fetches
) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    path = fetches.run()
    server.requests.clear()
    assert fetches.run() == path
    assert [seen.method for seen in server.requests] == ["HEAD"]


def test_a_commit_that_is_cached_needs_no_network(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    path = fetches.run()
    server.requests.clear()
    assert fetches.run(revision=commit_of("main")) == path
    assert server.requests == []


def test_the_revision_asked_for_is_the_revision_served(
    server: FileServer, fetches: Fetches
) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    server.add_to_hub("m.gguf", OTHER, revision="refs/pr/1")
    assert fetches.run().read_bytes() == CONTENT
    assert fetches.run(revision="refs/pr/1").read_bytes() == OTHER
    assert fetches.run().read_bytes() == CONTENT


def test_a_branch_that_moved_is_followed(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    fetches.run()
    server.add_to_hub("m.gguf", OTHER, commit=commit_of("later"))
    assert fetches.run().read_bytes() == OTHER
    assert (fetches.folder / "refs" / "main").read_text() == commit_of("later")


def test_a_branch_that_moved_to_what_is_here_is_noted(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT, commit=commit_of("later"))
    fetches.run(revision=commit_of("later"))
    server.add_to_hub("m.gguf", OTHER)
    fetches.run()
    server.add_to_hub("m.gguf", CONTENT, commit=commit_of("later"))
    server.requests.clear()
    assert fetches.run().read_bytes() == CONTENT
    assert server.gets() == []
    fetches.change(is_offline=True)
    assert fetches.run().read_bytes() == CONTENT


def test_a_cache_that_takes_no_notes_serves_what_it_has(
    server: FileServer, fetches: Fetches
) -> None:
    server.add_to_hub("m.gguf", CONTENT, commit=commit_of("later"))
    path = fetches.run(revision=commit_of("later"))
    (fetches.folder / "refs").touch()  # no folder
    assert fetches.run() == path


@pytest.mark.parametrize("trouble", ["offline", "unreachable", "errors", "denies", "forgot it"])
def test_what_is_cached_is_used_when_the_hub_does_not_help(
    server: FileServer, fetches: Fetches, trouble: str
) -> None:
    file = server.add_to_hub("m.gguf", CONTENT)
    path = fetches.run()
    server.requests.clear()
    match trouble:
        case "offline":
            fetches.change(is_offline=True)
        case "unreachable":
            fetches.change(endpoint="http://127.0.0.1:1")
        case "errors":
            file.status = 500
        case "denies":
            file.status = 401
        case "forgot it":
            file.status = 404
    assert fetches.run() == path
    assert server.gets() == []


def test_offline_without_a_copy_nothing_is_asked(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    fetches.change(is_offline=True)
    assert fetches.fails() is Cause.UNREACHABLE
    assert server.requests == []


def denied(file: HubFile) -> None:
    file.status, file.error_code = 401, "RepoNotFound"


def gated(file: HubFile) -> None:
    file.status, file.error_code = 403, "GatedRepo"


def no_repo(file: HubFile) -> None:
    file.status, file.error_code = 404, "RepoNotFound"


def no_revision(file: HubFile) -> None:
    file.status, file.error_code = 404, "RevisionNotFound"


def no_file(file: HubFile) -> None:
    file.status, file.error_code = 404, "EntryNotFound"


def bad_request(file: HubFile) -> None:
    file.status = 400


def broken(file: HubFile) -> None:
    file.status = 503


def no_hub(file: HubFile) -> None:
    file.is_plain = True


def cdn_denies(file: HubFile) -> None:
    file.served.status = 403


def cdn_breaks(file: HubFile) -> None:
    file.served.status = 500


def cut(file: HubFile) -> None:
    file.served.cuts_at = 70_000


def wrong_length(file: HubFile) -> None:
    file.says_size = SIZE + 1


def wrong_content(file: HubFile) -> None:
    file.served.content = OTHER


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (denied, Cause.DENIED),
        (gated, Cause.DENIED),
        (no_repo, Cause.MISSING),
        (no_revision, Cause.MISSING),
        (no_file, Cause.MISSING),
        (bad_request, Cause.REJECTED),
        (broken, Cause.ERRORED),
        (no_hub, Cause.ERRORED),
        (cdn_denies, Cause.DENIED),
        (cdn_breaks, Cause.ERRORED),
        (cut, Cause.INTERRUPTED),
        (wrong_length, Cause.INTERRUPTED),
    ],
)
def test_what_fails_has_its_cause_and_leaves_no_file(
    server: FileServer, fetches: Fetches, spoil: Callable[[HubFile], None], cause: Cause
) -> None:
    spoil(server.add_to_hub("m.gguf", CONTENT))
    assert fetches.fails() is cause
    assert list(fetches.folder.glob("snapshots/*/*")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"repo_id": "a/b/c"},
        {"repo_id": ""},
        {"repo_id": "../repo"},
        {"revision": ""},
        {"revision": "../../../../tmp/x"},
        {"filename": ""},
        {"filename": "../../m.gguf"},
        {"filename": "/m.gguf"},
        {"filename": "m\n.gguf"},
    ],
)
def test_a_name_that_no_repository_can_have_does_not_exist(
    server: FileServer, fetches: Fetches, changes: dict[str, str]
) -> None:
    assert fetches.fails(**changes) is Cause.MISSING
    assert server.requests == []


def test_an_unreachable_hub_is_told(fetches: Fetches) -> None:
    fetches.change(endpoint="http://127.0.0.1:1")
    assert fetches.fails() is Cause.UNREACHABLE


def test_a_cache_below_a_file_cannot_be_written(
    server: FileServer, fetches: Fetches, tmp_path: Path
) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    (tmp_path / "file").touch()
    fetches.change(cache=tmp_path / "file" / "hub")
    assert fetches.fails() is Cause.NOT_WRITABLE


def test_a_full_disk_is_told(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT, cuts_at=10_000)
    fetches.fails()
    (partial,) = fetches.folder.glob("blobs/*.incomplete")
    partial.unlink()
    partial.symlink_to("/dev/full")
    assert fetches.fails() is Cause.FULL


def test_what_broke_off_is_resumed(server: FileServer, fetches: Fetches) -> None:
    file = server.add_to_hub("m.gguf", CONTENT, cuts_at=70_000).served
    assert fetches.fails() is Cause.INTERRUPTED
    file.cuts_at = None
    fetches.events.clear()
    assert fetches.run().read_bytes() == CONTENT
    assert file.ranges == [None, "bytes=70000-"]
    assert fetches.events[0] == Receiving(filename="m.gguf", received=70_000, total=SIZE)


def test_a_beginning_of_something_else_is_noticed_and_deleted(
    server: FileServer, fetches: Fetches
) -> None:
    server.add_to_hub("m.gguf", CONTENT, cuts_at=70_000)
    fetches.fails()
    (partial,) = fetches.folder.glob("blobs/*.incomplete")
    partial.write_bytes(OTHER[:70_000])
    server.add_to_hub("m.gguf", CONTENT)
    assert fetches.fails() is Cause.CORRUPTED
    assert fetches.run().read_bytes() == CONTENT


@pytest.mark.parametrize("what", ["blob", "pointer"])
def test_a_cached_file_of_the_wrong_size_is_deleted_and_fetched_again(
    server: FileServer, fetches: Fetches, what: str
) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    path = fetches.run()
    if what == "pointer":  # as the library has it where there are no symbolic links
        path.unlink()
    path.write_bytes(CONTENT[:1000])
    assert fetches.fails() is Cause.CORRUPTED
    assert fetches.run().read_bytes() == CONTENT


def test_a_link_to_nowhere_is_repaired(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    path = fetches.run()
    path.resolve().unlink()
    assert fetches.run().read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(
    server: FileServer, fetches: Fetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.add_to_hub("m.gguf", CONTENT)
    fetches.run()
    to_hub = [seen for seen in server.requests if "/resolve/" in seen.path]
    to_cdn = [seen for seen in server.requests if "/cdn/" in seen.path]
    assert {seen.headers.get("authorization") for seen in to_hub} == {"Bearer hf_secret"}
    assert [seen.headers.get("authorization") for seen in to_cdn] == [None]


def test_who_waits_finds_what_the_other_fetched(server: FileServer, fetches: Fetches) -> None:
    file = server.add_to_hub("m.gguf", CONTENT, holds_at=100_000).served
    waiting = Fetches(server, fetches.hub.cache)
    told: list[FetchEvent] = []

    def on_event(event: FetchEvent) -> None:
        told.append(event)
        if event != Waiting():
            file.go.set()

    waiting.on_event = on_event
    first = threading.Thread(target=fetches.run)
    first.start()
    file.is_held.wait(10)
    assert waiting.run(long_wait_s=0.01).read_bytes() == CONTENT
    first.join()
    assert len(file.ranges) == 1
    (lock,) = (fetches.hub.cache / ".locks" / "models--org--repo").iterdir()
    issue = {"lock_path": str(lock), "model_path": {"model_path": "org/repo/main/m.gguf"}}
    assert msgspec.to_builtins(told) == [
        {"type": "waiting"},
        {"type": "waiting", "issue": {"HuggingFaceCannotAcquireLock": issue}},
    ]


def test_all_parts_are_fetched_from_one_commit(server: FileServer, fetches: Fetches) -> None:
    parts = [gguf_bytes(1000, seed) for seed in (1, 2)]
    for number, part in enumerate(parts, 1):
        server.add_to_hub(f"q8/m-0000{number}-of-00002.gguf", part)
    path = fetches.run("q8/m-00001-of-00002.gguf")
    assert path.name == "m-00001-of-00002.gguf"
    names = sorted(os.listdir(path.parent))
    assert [(path.parent / name).read_bytes() for name in names] == parts
    second = [seen.path for seen in server.requests if "00002-of" in seen.path]
    assert {path.split("/")[4] for path in second} == {commit_of("main")}
    server.requests.clear()
    fetches.change(is_offline=True)
    assert fetches.run("q8/m-00001-of-00002.gguf") == path


def test_a_large_file_is_left_to_the_library(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    fetches.change(max_plain_bytes=SIZE - 1)
    assert fetches.run().read_bytes() == CONTENT
    assert fetches.events[0] == Receiving(filename="m.gguf", received=0, total=SIZE)
    assert fetches.events[-1] == Receiving(filename="m.gguf", received=SIZE, total=SIZE)


def test_a_file_that_the_library_refuses_is_told(server: FileServer, fetches: Fetches) -> None:
    server.add_to_hub("m.gguf", CONTENT).says_size = 60_000_000_000
    assert fetches.fails() is Cause.REJECTED
