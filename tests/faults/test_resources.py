"""A machine that runs short of something: it is told in words, and all goes on by itself later."""

import contextlib
import http.client
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.e2e.fleet import (
    PATIENT,
    Fleet,
    Process,
    ask,
    get,
    raw_prompt,
    request,
    tokens_of,
    wait_until,
)
from tests.faults.reports import ReportFault
from tests.faults.resources import (
    PAGE_BYTES,
    WallClock,
    limited,
    small_disk,
    virtual_bytes,
)
from tests.faults.stage import Client
from tests.hub import FileServer
from tests.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMALL = {"context_size": 512, "n_batch": 512}
HOUR_S = 3600
JUMP_HOURS = 5
ENDLESS = 4000  # tokens: more than come during a test
STATE = "/api/v1/balancer_desired_state"


def put(fleet: Fleet, model: Any, **parameters: Any) -> tuple[int, bytes]:
    """Ask for a model; status and body of the answer."""
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    state["inference_parameters"] |= SMALL | parameters
    state["model"] = model
    return request(fleet.management, "PUT", STATE, json.dumps(state).encode())


def put_url(fleet: Fleet, url: str) -> None:
    assert put(fleet, {"Url": {"url": url}})[0] == 204


def wait_issues(fleet: Fleet, *issues: Any) -> None:
    wait_until(
        lambda: [agent["issues"] for agent in fleet.snapshot()] == [[*issues]],
        f"the issues are {issues}",
    )


def issue_events(fleet: Fleet, issue: str) -> list[str]:
    """What the journal has of an issue, oldest first."""
    events = json.loads(get(fleet.management, "/api/v1/events")[1])["events"]
    return [event["kind"] for event in events if issue in event["text"]]


def lines(process: Process, text: str) -> list[str]:
    """The lines of a log that hold ``text``."""
    return [line for line in process.log.splitlines() if text in line]


def serves(fleet: Fleet) -> bool:
    return len(tokens_of(ask(fleet.inference, raw_prompt("So", 3)))) == 3


def only(names: Iterable[str]) -> str:
    """The one name that there is."""
    (name,) = names
    return name


def model_path(fleet: Fleet) -> str:
    (agent,) = fleet.snapshot()
    return str(agent["model_path"])


def ask_aside(fleet: Fleet, body: dict[str, Any]) -> Client:
    """A request that runs on."""
    client = Client()
    threading.Thread(target=client.run, args=(fleet.inference, body), daemon=True).start()
    return client


@contextlib.contextmanager
def downloading(folder: Path, cache: Path) -> Iterator[tuple[FileServer, Fleet, Process]]:
    """A server of files, and a fleet whose one agent keeps in ``cache`` what it fetches there."""
    with FileServer() as files, Fleet(folder, *PATIENT) as fleet:
        env = {"PADDLER_CACHE_DIR": str(cache), "NO_PROXY": "127.0.0.1"}
        yield files, fleet, fleet.start_agent("agent", 1, env=env)


# --- disks --------------------------------------------------------------------------------------


def test_a_full_cache_is_told_once_and_the_old_model_serves_until_there_is_space(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault("the disk of the model cache is full")
    old = write_tiny_gguf(tmp_path / "old.gguf")
    content = write_tiny_gguf(tmp_path / "new.gguf", seed=2).read_bytes()
    with (
        small_disk(tmp_path / "cache", kib=1024) as disk,
        downloading(tmp_path, disk.path) as (files, fleet, agent),
    ):
        fleet.put_model(old, **SMALL)
        fleet.wait_slots(1)
        disk.fill(spare_bytes=20 * PAGE_BYTES)
        file = files.add("/new.gguf", content)
        url = files.url("/new.gguf")
        began_at = time.monotonic()
        put_url(fleet, url)
        issue = {"CacheStorageIsFull": {"model_path": url}}
        wait_issues(fleet, issue)
        wait_until(lambda: len(file.ranges) >= 3, "it is tried again and again")
        tries, tried_s = len(file.ranges), time.monotonic() - began_at
        wait_issues(fleet, issue)
        assert model_path(fleet) == str(old)
        assert serves(fleet)
        assert issue_events(fleet, "CacheStorageIsFull") == ["issue_raised"]
        (said,) = lines(agent, "cannot get the model")
        assert "ERROR" in said
        assert "No space left on device" in said
        with report.recovering():
            disk.clear()
            new = str(disk.path)
            wait_until(lambda: model_path(fleet).startswith(new), "the new model is loaded")
            wait_issues(fleet)
            fleet.wait_slots(1)
            assert serves(fleet)
        assert issue_events(fleet, "CacheStorageIsFull") == ["issue_raised", "issue_cleared"]
        report.outcome = (
            f"issue `{only(issue)}`, told by one event and one error in the agent's log, though "
            f"tried {tries} times in {tried_s:.0f} s; the old model serves meanwhile, the new one "
            "once there is space"
        )


def test_a_read_only_cache_serves_what_it_has_and_takes_more_once_it_may(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault("the model cache is read-only")
    content = write_tiny_gguf(tmp_path / "model.gguf").read_bytes()
    with (
        small_disk(tmp_path / "cache", kib=1024) as disk,
        downloading(tmp_path, disk.path) as (files, fleet, agent),
    ):
        disk.set_writable(False)
        for name in ("/first.gguf", "/second.gguf"):
            files.add(name, content)
            url = files.url(name)
            before = model_path(fleet) if name == "/second.gguf" else "None"
            # The second time what a download needs beside the model is there.
            disk.set_writable(False)
            put_url(fleet, url)
            issue = {"CacheDirectoryIsNotWritable": {"model_path": url}}
            wait_issues(fleet, issue)
            assert model_path(fleet) == before
            assert before == "None" or serves(fleet)
            assert "Read-only file system" in lines(agent, "cannot get the model")[-1]
            with report.recovering():
                disk.set_writable(True)
                wait_issues(fleet)
                wait_until(lambda path=before: model_path(fleet) != path, "the next one is loaded")
                fleet.wait_slots(1)
                assert serves(fleet)
        disk.set_writable(False)
        put_url(fleet, files.url("/first.gguf"))
        wait_until(lambda: model_path(fleet) == before, "what is there is loaded")
        wait_issues(fleet)
        report.outcome = (
            f"issue `{only(issue)}`, and the agent's log has the reason; what runs serves, what is "
            "in the cache can be loaded, and what is not is loaded once it can be written"
        )


def test_a_state_that_a_full_disk_cannot_take_is_refused_and_the_one_before_stays(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault("the disk of the state file is full")
    with small_disk(tmp_path / "state", kib=64) as disk:
        path = disk.path / "state.json"
        with Fleet(tmp_path, "--state-database", f"file://{path}") as fleet:
            assert fleet.balancer is not None
            fleet.put_model("/first.gguf")
            told, kept = get(fleet.management, STATE), path.read_bytes()
            disk.fill()
            for _ in range(2):
                status, body = put(fleet, {"LocalToAgent": "/second.gguf"})
                assert (status, body) == (
                    500,
                    f"cannot write {path}: No space left on device".encode(),
                )
            assert get(fleet.management, STATE) == told
            assert path.read_bytes() == kept
            assert sorted(disk.path.iterdir()) == [
                *(disk.path / "filler", path, path.with_name("state.json.lock"))
            ]
            said = lines(fleet.balancer, "No space left on device")
            assert len(said) == 2
            assert all("ERROR" in line and "the state before stays" in line for line in said)
            with report.recovering():
                disk.clear()
                assert put(fleet, {"LocalToAgent": "/second.gguf"})[0] == 204
            told = get(fleet.management, STATE)
            assert b"/second.gguf" in told[1]
            fleet.balancer.stop()
            fleet.start_balancer()
            assert get(fleet.management, STATE) == told
            report.outcome = (
                f"{len(said)} `PUT`s of {len(said)} answered {status}, with the reason, and an "
                "error each in the balancer's log; the state before stays in force and on the "
                "disk, and the next `PUT` works"
            )


# --- the clock ----------------------------------------------------------------------------------


def test_a_clock_that_jumps_by_hours_ends_wakes_and_reorders_nothing(
    tmp_path: Path, smollm2_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(f"the wall clocks jump by {JUMP_HOURS} hours, forth and back")
    clock = WallClock(tmp_path)
    with Fleet(tmp_path, *PATIENT, env=clock.env) as fleet:

        def seconds_at(ahead_s: int) -> int:
            """How long the balancer's clock has been so far ahead, as its history tells."""
            samples = json.loads(get(fleet.management, "/api/v1/history")[1])["samples"]
            now = time.time() + ahead_s
            return sum(abs(sample["at"] - now) < HOUR_S for sample in samples)

        fleet.start_agent("agent", 1, env=clock.env)
        fleet.put_model(smollm2_path, context_size=4096)
        fleet.wait_slots(1)
        idle = http.client.HTTPConnection("127.0.0.1", fleet.inference, timeout=30)
        idle.request("GET", "/health")
        idle.getresponse().read()
        local_address = idle.sock.getsockname()
        (before,) = fleet.snapshot()
        running = ask_aside(fleet, raw_prompt("Once", ENDLESS))
        wait_until(lambda: running.tokens, "an answer has begun")
        waiting = ask_aside(fleet, raw_prompt("Twice", 3))
        wait_until(lambda: fleet.buffered() == 1, "a request waits")
        for hours in (JUMP_HOURS, -JUMP_HOURS):
            seen = len(running.tokens)
            with report.recovering():
                clock.step(hours * HOUR_S)
                wait_until(lambda seen=seen: len(running.tokens) > seen, "a token comes")
            seen = len(running.tokens)
            # Longer than anybody waits between two looks at the time: links ping every 3 s.
            wait_until(lambda ahead_s=hours * HOUR_S: seconds_at(ahead_s) > 4, "it is then")
            # An event while it is another time.
            for action in ("drain", "resume"):
                path = f"/api/v1/agent/{before['id']}/{action}"
                assert request(fleet.management, "POST", path)[0] in (200, 204)
            wait_until(lambda seen=seen: len(running.tokens) > seen, "tokens go on to come")
            assert not running.ended.is_set()
            assert fleet.buffered() == 1
        running.leave()
        assert waiting.ended.wait(60)
        assert (waiting.outcome, len(waiting.tokens)) == ("completed", 3)
        idle.request("GET", "/health")
        assert idle.getresponse().read() == b"OK"
        assert idle.sock.getsockname() == local_address, "the idle connection was closed"
        idle.close()
        (agent,) = json.loads(get(fleet.management, "/api/v1/agent_details")[1])["agents"]
        assert agent["id"] == before["id"]
        assert (agent["details"]["reconnects"], agent["details"]["worker_restarts"]) == (0, 0)
        events = json.loads(get(fleet.management, "/api/v1/events")[1])["events"]
        ids = [event["id"] for event in events]
        assert ids == sorted(set(ids))
        at = [event["at"] for event in events]
        assert max(at) - min(at) > 9 * HOUR_S, "no event came at another time"
        kinds = [event["kind"] for event in events]
        assert kinds.count("agent_drained") == 2
        assert {"agent_left", "issue_raised", "requests_refused"}.isdisjoint(kinds)
        report.outcome = (
            f"nothing is told; an answer goes on ({len(running.tokens)} tokens), a request waits "
            f"and is then {waiting.outcome}, an idle connection and the agent's link stay "
            f"({agent['details']['reconnects']} reconnects), ids of events go up"
        )


# --- descriptors --------------------------------------------------------------------------------


def knock(port: int) -> tuple[socket.socket, bytes]:
    """A connection that has sent a request, and what came first."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    with contextlib.suppress(ConnectionError):
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        return client, client.recv(65_536)
    return client, b""


def test_clients_beyond_the_descriptors_are_told_and_whoever_is_served_is_served_on(
    tmp_path: Path, smollm2_path: Path, report_fault: ReportFault
) -> None:
    limit = 64
    report = report_fault(f"the balancer's descriptors, of which it may have {limit}")
    with (
        Fleet(tmp_path, *PATIENT, max_descriptors=limit) as fleet,
        contextlib.ExitStack() as clients,
    ):
        assert fleet.balancer is not None
        fleet.start_agent("agent", 1)
        fleet.put_model(smollm2_path, context_size=4096)
        fleet.wait_slots(1)
        running = ask_aside(fleet, raw_prompt("Once", ENDLESS))
        wait_until(lambda: running.tokens, "an answer has begun")
        served, refused = 0, 0
        for _ in range(150):
            client, answer = knock(fleet.inference)
            clients.callback(client.close)
            served += answer.startswith(b"HTTP/1.1 200 ")
            refused += answer.startswith(b"HTTP/1.1 503 ")
        assert served + refused == 150, "a client got no answer"
        assert served > 10
        assert refused > 50
        # In the shape that clients of that service know.
        client, answer = knock(fleet.openai)
        client.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        assert "too many connections" in json.loads(body)["error"]["message"]
        # Operators get in, and may take all that is left.
        assert len(fleet.snapshot()) == 1
        for _ in range(60):
            client, _ = knock(fleet.management)
            clients.callback(client.close)
        said, *_ = lines(fleet.balancer, "descriptors run out")  # said again after a minute
        assert "WARN" in said
        assert f"of the {limit} that this process may have" in said
        assert "ulimit -n" in said
        seen = len(running.tokens)
        wait_until(lambda: len(running.tokens) > seen, "tokens go on to come")
        with report.recovering():
            clients.close()
            wait_until(lambda: knock_once(fleet.inference), "clients are served again")
        assert knock_once(fleet.management)
        assert not running.ended.is_set()
        running.leave()
        assert serves(fleet)
        report.outcome = (
            f"a warning; of {served + refused} connections to the inference service {served} are "
            f"answered and {refused} told 503 and closed; the answer under way goes on, operators "
            "get in"
        )


def knock_once(port: int) -> bool:
    client, answer = knock(port)
    client.close()
    return answer.startswith(b"HTTP/1.1 200 ")


def test_an_agent_out_of_descriptors_says_so_and_goes_on_once_it_has_some(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault("an agent's descriptors, all of which are in use")
    if os.getuid() != 0:
        pytest.skip("agents keep their descriptors to themselves: only root counts them")
    model = write_tiny_gguf(tmp_path / "model.gguf")
    cache = tmp_path / "cache"
    with downloading(tmp_path, cache) as (files, fleet, agent):
        files.add("/model.gguf", model.read_bytes())
        wait_until(fleet.snapshot, "the agent is there")
        (before,) = fleet.snapshot()
        url = files.url("/model.gguf")
        interrupted = {"DownloadInterrupted": {"model_path": url}}
        unloaded = {"ModelCannotBeLoaded": {"model_path": str(model)}}
        had = agent.descriptors()
        with limited(agent.pid, resource.RLIMIT_NOFILE, had):
            put_url(fleet, url)
            wait_issues(fleet, interrupted)
            assert "Too many open files" in lines(agent, "cannot start a process")[-1]
            fleet.put_model(model, **SMALL)
            wait_issues(fleet, unloaded)
            assert "Too many open files" in lines(agent, "cannot start a worker")[-1]
            wait_until(lambda: lines(agent, "descriptors run out"), "the shortage is told")
            assert agent.descriptors() == had, "what was tried is left open"
        with report.recovering():
            fleet.wait_slots(1)
            wait_issues(fleet)
            assert serves(fleet)
        put_url(fleet, url)
        wait_until(lambda: str(cache) in model_path(fleet), "the other is loaded")
        assert fleet.snapshot()[0]["id"] == before["id"]
        warnings = lines(agent, "descriptors run out")
        assert len(warnings) == 1
        report.outcome = (
            f"{len(warnings)} warning; a download has issue `{only(interrupted)}`, a model "
            f'`{only(unloaded)}`, each with "Too many open files" in the log; the agent stays '
            "connected, and loads the model by itself once it may"
        )


# --- memory -------------------------------------------------------------------------------------

MIB = 1 << 20


def worker_of(agent: Process) -> int:
    (pid,) = agent.children()
    return pid


@pytest.mark.parametrize(
    ("what", "spare_mib", "context_size", "issue"),
    [
        ("the weights", 30, 512, "ModelCannotBeLoaded"),
        ("the context", 400, 65_536, "SlotCannotStart"),
    ],
    ids=["weights", "context"],
)
def test_a_model_that_memory_does_not_hold_is_told_and_a_smaller_one_serves(
    tmp_path: Path,
    smollm2_path: Path,
    report_fault: ReportFault,
    what: str,
    spare_mib: int,
    context_size: int,
    issue: str,
) -> None:
    report = report_fault(f"memory for {what} of a model")
    small = write_tiny_gguf(tmp_path / "small.gguf")
    with Fleet(tmp_path, *PATIENT) as fleet:
        # Without what is reserved for use that never comes.
        agent = fleet.start_agent("agent", 1, env={"MALLOC_ARENA_MAX": "1"})
        fleet.put_model(small, **SMALL)
        fleet.wait_slots(1)
        (before,) = fleet.snapshot()
        # What a worker takes for itself differs from machine to machine.
        limit = virtual_bytes(worker_of(agent)) + spare_mib * MIB
        with limited(agent.pid, resource.RLIMIT_AS, limit):
            fleet.put_model(smollm2_path, context_size=context_size)
            wait_until(lambda: fleet.snapshot()[0]["issues"], "the issue is told")
            (told,) = fleet.snapshot()[0]["issues"]
            assert [*told] == [issue]
            if issue == "SlotCannotStart":
                assert "insufficient memory" in told[issue]["error"]
            assert "ERROR" in lines(agent, "cannot load the model")[0]
            assert get(fleet.inference, "/health")[0] == 200
            fleet.put_model(small, **SMALL)
            fleet.wait_slots(1)
            wait_issues(fleet)
            assert serves(fleet)
        with report.recovering():
            fleet.put_model(smollm2_path, context_size=512)
            wait_until(lambda: model_path(fleet) == str(smollm2_path), "the large one is loaded")
            fleet.wait_slots(1)
            assert serves(fleet)
        assert fleet.snapshot()[0]["id"] == before["id"]
        report.outcome = (
            f"issue `{issue}`, and an error in the agent's log; the agent stays, and serves a "
            "smaller model meanwhile"
        )


def test_a_worker_that_runs_out_of_memory_is_replaced_and_every_request_has_an_end(
    tmp_path: Path, smollm2_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault("memory of a worker that runs, taken by a large request")
    with Fleet(tmp_path, *PATIENT) as fleet:
        # What is freed goes back to the system, and cannot serve what is large.
        agent = fleet.start_agent("agent", 2, env={"MALLOC_MMAP_THRESHOLD_": "131072"})
        fleet.put_model(smollm2_path, context_size=4096)
        fleet.wait_slots(2)
        (before,) = fleet.snapshot()
        worker = worker_of(agent)
        running = ask_aside(fleet, raw_prompt("Once", ENDLESS))
        wait_until(lambda: running.tokens, "an answer has begun")
        # Less than it has, so that whatever it frees does not help it; a request of 60 MB is more
        # than what lies free within its heap.
        with limited(worker, resource.RLIMIT_AS, virtual_bytes(worker) // 2):
            large = ask_aside(fleet, raw_prompt("word " * 12_000_000, 3))
            assert running.ended.wait(60), "the client is left without an end"
            with report.recovering():
                assert large.ended.wait(90), "the client is left without an end"
                fleet.wait_slots(2)
                assert worker_of(agent) != worker
                assert serves(fleet)
        assert running.outcome.startswith('502 agent "agent": worker ')
        # It was handed to the next worker, which had the memory to refuse it.
        assert "the prompt has" in large.outcome
        (after,) = fleet.snapshot()
        assert (after["id"], after["issues"]) == (before["id"], [])
        wait_until(lambda: fleet.slots_busy() == 0, "no slot is held")
        report.outcome = (
            f"the answer under way ends with `{running.outcome}`; the large request, which has no "
            "token yet, is started again in the next worker, which has the memory to refuse it; "
            "the agent stays"
        )
