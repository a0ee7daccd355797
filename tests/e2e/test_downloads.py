"""Models that come from elsewhere, as operators see them come, fail and arrive."""

import hashlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.models.url_cache import Entry
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    Process,
    ask,
    is_alive,
    raw_prompt,
    tokens_of,
    wait_until,
)
from tests.hub import FileServer, ServedFile
from tests.tiny_gguf import write_tiny_gguf

IDLE_DOWNLOAD = {
    "download_current": 0,
    "download_filename": None,
    "download_indeterminate": True,
    "download_total": 0,
}


class Site:
    """A fleet whose agents know one server of models, and one cache."""

    def __init__(self, folder: Path, fleet: Fleet, server: FileServer) -> None:
        self.fleet = fleet
        self.server = server
        self.cache = folder / "cache"
        self.hub_cache = folder / "hub"
        self.model = write_tiny_gguf(folder / "model.gguf").read_bytes()
        self.env = {
            "HF_ENDPOINT": server.endpoint,
            "HF_HUB_CACHE": str(self.hub_cache),
            "PADDLER_CACHE_DIR": str(self.cache),
            "NO_PROXY": "127.0.0.1",
        }

    def start_agent(self, name: str) -> Process:
        return self.fleet.start_agent(name, 1, env=self.env)

    def put(self, model: Any) -> None:
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        state["inference_parameters"] |= {"context_size": 512, "n_batch": 512}
        self.fleet.put_state(state | {"model": model})

    def put_url(self, path: str) -> str:
        self.put({"Url": {"url": self.server.url(path)}})
        return self.server.url(path)

    def put_hub(self, filename: str) -> None:
        self.put({"HuggingFace": {"repo_id": "org/repo", "revision": "main", "filename": filename}})

    def agents(self) -> dict[str, dict[str, Any]]:
        return {agent["name"]: agent for agent in self.fleet.snapshot()}

    def wait_issues(self, *issues: Any) -> None:
        wait_until(
            lambda: [agent["issues"] for agent in self.fleet.snapshot()] == [list(issues)],
            f"the issues are {issues}",
        )

    def wait_serving(self, names: set[str]) -> None:
        wait_until(
            lambda: (
                {name for name, agent in self.agents().items() if agent["slots_total"]} == names
            ),
            f"{names} serve",
        )

    def entry(self, path: str) -> Entry:
        return Entry(self.cache, self.server.url(path))


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with FileServer() as server, Fleet(folder, *PATIENT) as fleet:
        site = Site(folder, fleet, server)
        site.start_agent("agent-1")
        wait_until(fleet.snapshot, "the agent is there")
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """A site with one agent; what the test put is given up after it."""
    yield shared_site
    shared_site.put("None")
    shared_site.wait_issues()


@pytest.fixture
def empty_site(tmp_path: Path) -> Iterator[Site]:
    """A site of its own, without an agent."""
    with FileServer() as server, Fleet(tmp_path, *PATIENT) as fleet:
        yield Site(tmp_path, fleet, server)


def test_a_model_of_the_hub_is_downloaded_and_served(site: Site) -> None:
    file = site.server.add_to_hub("q8/tiny.gguf", site.model, holds_at=100_000).served
    site.put_hub("q8/tiny.gguf")
    wait_until(lambda: site.fleet.snapshot()[0]["download_filename"], "the download is shown")
    (agent,) = site.fleet.snapshot()
    assert agent["download_filename"] == "q8/tiny.gguf"
    assert agent["download_total"] == len(site.model)
    assert not agent["download_indeterminate"]
    assert agent["state_application_status"] == "Applied"
    file.go.set()
    site.fleet.wait_slots(1)
    (agent,) = site.fleet.snapshot()
    assert agent | IDLE_DOWNLOAD == agent
    assert agent["issues"] == []
    assert Path(agent["model_path"]).is_relative_to(site.hub_cache)
    assert len(tokens_of(ask(site.fleet.inference, raw_prompt("Once", 3)))) == 3


def test_a_model_in_parts_behind_an_address_is_downloaded_and_served(
    site: Site, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", tensors_per_file=5)
    parts = sorted(tmp_path.glob("tiny-*.gguf"))
    assert len(parts) > 1
    for part in parts:
        site.server.add(f"/{part.name}", part.read_bytes())
    site.put_url(f"/{parts[0].name}")
    site.fleet.wait_slots(1)
    assert len(tokens_of(ask(site.fleet.inference, raw_prompt("Once", 3)))) == 3


URL_FAULTS = {
    401: "DownloadServerDeniedAccess",
    403: "DownloadServerDeniedAccess",
    404: "ModelDoesNotExistAtUrl",
    410: "DownloadServerRejectedRequest",
    503: "DownloadServerErrored",
}
HUB_FAULTS = {
    401: "HuggingFacePermissions",
    404: "HuggingFaceModelDoesNotExist",
    500: "DownloadServerErrored",
}


def test_what_servers_refuse_is_shown_until_something_else_is_wanted(site: Site) -> None:
    for status, variant in URL_FAULTS.items():
        site.server.add(f"/{status}.gguf", site.model, status=status)
        url = site.put_url(f"/{status}.gguf")
        site.wait_issues({variant: {"model_path": url}})
    for status, variant in HUB_FAULTS.items():
        site.server.add_to_hub(f"{status}.gguf", site.model).status = status
        site.put_hub(f"{status}.gguf")
        site.wait_issues({variant: {"model_path": f"org/repo/main/{status}.gguf"}})
    for url, variant in {
        "http://127.0.0.1:1/m.gguf": "DownloadServerIsUnreachable",
        "models/m.gguf": "DownloadUrlIsMalformed",
    }.items():
        site.put({"Url": {"url": url}})
        site.wait_issues({variant: {"model_path": url}})
    site.server.add("/page.gguf", b"<html>Sign in</html>")
    url = site.put_url("/page.gguf")
    site.wait_issues({"ModelCannotBeLoaded": {"model_path": url}})
    (agent,) = site.fleet.snapshot()
    assert agent | IDLE_DOWNLOAD == agent
    assert agent["state_application_status"] == "Applied"


def breaks_off(site: Site, file: ServedFile, entry: Entry) -> Callable[[], object]:
    file.cuts_at = 50_000

    def repair() -> None:
        file.cuts_at = None

    return repair


def full_disk(site: Site, file: ServedFile, entry: Entry) -> Callable[[], object]:
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    entry.partial.symlink_to("/dev/full")
    return entry.partial.unlink


def not_writable(site: Site, file: ServedFile, entry: Entry) -> Callable[[], object]:
    folder = entry.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(folder.with_name("aside"))
    folder.touch()

    def repair() -> None:
        folder.unlink()
        folder.with_name("aside").rename(folder)

    return repair


def corrupted(site: Site, file: ServedFile, entry: Entry) -> Callable[[], object]:
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    entry.path.write_bytes(b"something else")
    return lambda: None  # repairs itself


@pytest.mark.parametrize(
    ("break_it", "variant"),
    [
        (breaks_off, "DownloadInterrupted"),
        (full_disk, "CacheStorageIsFull"),
        (not_writable, "CacheDirectoryIsNotWritable"),
        (corrupted, "ModelCacheIsCorrupted"),
    ],
)
def test_what_is_repaired_is_downloaded_by_itself(
    site: Site, break_it: Callable[[Site, ServedFile, Entry], Callable[[], object]], variant: str
) -> None:
    path = f"/{variant}.gguf"
    file = site.server.add(path, site.model)
    repair = break_it(site, file, site.entry(path))
    url = site.put_url(path)
    site.wait_issues({variant: {"model_path": url}})
    repair()
    site.fleet.wait_slots(1)
    site.wait_issues()
    assert site.entry(path).path.read_bytes() == site.model


def test_the_old_model_serves_until_the_new_one_is_there(site: Site) -> None:
    site.server.add("/old.gguf", site.model)
    site.put_url("/old.gguf")
    site.fleet.wait_slots(1)
    file = site.server.add("/new.gguf", site.model, holds_at=100_000)
    site.put_url("/new.gguf")
    wait_until(lambda: site.fleet.snapshot()[0]["download_filename"], "the download has begun")
    for _ in range(3):
        assert len(tokens_of(ask(site.fleet.inference, raw_prompt("Once", 20)))) == 20
    running = Answer(site.fleet.inference, raw_prompt("Once", 400))
    running.first()
    file.go.set()
    late = Answer(site.fleet.inference, raw_prompt("And then", 3))
    assert len(tokens_of(running.rest())) == 399
    assert len(tokens_of(late.rest())) == 3
    new = str(site.entry("/new.gguf").path)
    wait_until(lambda: site.fleet.snapshot()[0]["model_path"] == new, "the new model serves")


def test_a_newer_state_abandons_a_download_and_keeps_what_came(site: Site, tmp_path: Path) -> None:
    file = site.server.add("/slow.gguf", site.model, holds_at=100_000)
    site.put_url("/slow.gguf")
    entry = site.entry("/slow.gguf")
    wait_until(lambda: entry.partial.exists() and entry.partial.stat().st_size, "bytes came")
    (agent,) = site.fleet.agents
    (fetching,) = agent.children()
    local = write_tiny_gguf(tmp_path / "local.gguf")
    asked_at = time.monotonic()
    site.put({"LocalToAgent": str(local)})
    wait_until(lambda: not is_alive(fetching), "the download has ended")
    assert time.monotonic() - asked_at < 1
    site.fleet.wait_slots(1)
    assert site.fleet.snapshot()[0]["model_path"] == str(local)
    kept = entry.partial.stat().st_size
    file.go.set()
    site.put_url("/slow.gguf")
    wait_until(
        lambda: site.fleet.snapshot()[0]["model_path"] == str(entry.path), "the first one serves"
    )
    assert file.ranges == [None, f"bytes={kept}-"]


def test_of_several_agents_one_downloads_and_the_others_wait_and_take_over(
    empty_site: Site,
) -> None:
    site = empty_site
    agents = {name: site.start_agent(name) for name in ("a", "b", "c")}
    file = site.server.add_to_hub("tiny.gguf", site.model, holds_at=100_000).served
    site.put_hub("tiny.gguf")
    etag = hashlib.sha256(site.model).hexdigest()
    lock = site.hub_cache / ".locks" / "models--org--repo" / f"{etag}.lock"
    name = {"model_path": "org/repo/main/tiny.gguf"}
    issue = {"HuggingFaceCannotAcquireLock": {"lock_path": str(lock), "model_path": name}}

    def waiting() -> list[str]:
        return [name for name, agent in site.agents().items() if agent["issues"] == [issue]]

    wait_until(lambda: len(waiting()) == 2, "two agents show that they wait")
    (downloading,) = set(agents) - set(waiting())
    assert site.agents()[downloading]["download_filename"] == "tiny.gguf"
    assert len(file.ranges) == 1
    agents[downloading].signal(signal.SIGKILL)
    agents[downloading].wait()
    wait_until(lambda: len(file.ranges) == 2, "another one takes over")
    file.go.set()
    site.wait_serving(set(agents) - {downloading})
    assert [agent["issues"] for agent in site.fleet.snapshot()] == [[], []]
    assert file.ranges[1] is not None  # it went on where the dead one ended
    assert len(file.ranges) == 2


def test_agents_that_are_told_to_stop_stop_at_once_whatever_they_wait_for(
    empty_site: Site,
) -> None:
    site = empty_site
    file = site.server.add("/slow.gguf", site.model, holds_at=100_000)
    agents = [site.start_agent(name) for name in ("a", "b")]
    url = site.put_url("/slow.gguf")
    # One of the two downloads. The other one says after a while what it waits for.
    issue = {"CacheCannotAcquireLock": {"model_path": url}}
    wait_until(
        lambda: sorted((a["issues"] for a in site.fleet.snapshot()), key=len) == [[], [issue]],
        "one waits for the other",
    )
    assert file.is_held.is_set()
    children = [pid for agent in agents for pid in agent.children()]
    assert len(children) == 2
    told_at = time.monotonic()
    for agent in agents:
        agent.signal(signal.SIGTERM)
    assert [agent.wait() for agent in agents] == [0, 0]
    assert time.monotonic() - told_at < 2
    assert not any(is_alive(pid) for pid in children)
    assert site.entry("/slow.gguf").partial.stat().st_size > 0
