"""What happens when a part is gone: nothing is lost without a word, and all comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    Process,
    ask,
    error_of,
    free_ports,
    is_alive,
    raw_prompt,
    tokens_of,
    wait_until,
)

LONG = 2000


@pytest.fixture
def pair(tmp_path: Path, smollm2_path: Path) -> Fleet:
    """A fleet of two agents with 4 slots each; to be used as a context."""
    return Fleet(tmp_path, *PATIENT)


def worker_of(agent: Process) -> int:
    (pid,) = agent.children()
    return pid


def test_a_client_that_leaves_frees_its_slot_at_once(fleet: Fleet) -> None:
    answer = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
    answer.first()
    assert fleet.slots_busy() == 1
    answer.cut()
    wait_until(lambda: fleet.slots_busy() == 0, "the slot is free", timeout_s=5)


def test_a_killed_worker_ends_its_streams_by_name_and_comes_back(fleet: Fleet) -> None:
    (agent,) = fleet.agents
    answer = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
    answer.first()
    os.kill(worker_of(agent), signal.SIGKILL)
    messages = answer.rest()
    assert error_of(messages) == {
        "code": 502,
        "description": 'agent "agent-1": worker killed by signal 9 (SIGKILL)',
    }
    # Asked at once: it waits in line until the worker is back, and is served.
    assert tokens_of(ask(fleet.inference, raw_prompt("And then", 3)))
    fleet.wait_slots(4)
    assert fleet.snapshot()[0]["state_application_status"] == "Applied"


def test_eight_streams_split_evenly_and_survive_one_agents_death(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        doomed = fleet.start_agent("doomed", 4)
        fleet.start_agent("steady", 4)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(8)
        answers = [Answer(fleet.inference, raw_prompt(f"Tale {n}:", 120)) for n in range(8)]
        owners = [answer.first()["Response"]["generated_by"] for answer in answers]
        assert sorted(owners) == ["doomed"] * 4 + ["steady"] * 4
        worker = worker_of(doomed)
        doomed.signal(signal.SIGKILL)
        for answer, owner in zip(answers, owners, strict=True):
            messages = answer.rest()
            if owner == "steady":
                assert "Done" in messages[-1]["Response"]["response"]["GeneratedToken"]
            else:
                assert error_of(messages) == {
                    "code": 502,
                    "description": "Agent controller connection closed",
                }
        assert doomed.wait() == -signal.SIGKILL
        wait_until(lambda: not is_alive(worker), "the worker ends with its agent", timeout_s=5)
        wait_until(lambda: len(fleet.snapshot()) == 1, "the dead agent is gone")
        assert tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))


def test_a_request_without_a_token_moves_to_another_agent_unseen(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        doomed = fleet.start_agent("doomed", 2)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(2)
        os.kill(worker_of(doomed), signal.SIGSTOP)  # takes requests, answers none
        answers = [Answer(fleet.inference, raw_prompt(f"Tale {n}:", 5)) for n in range(2)]
        wait_until(lambda: fleet.slots_busy() == 2, "both requests run on the first agent")
        fleet.start_agent("steady", 2)
        fleet.wait_slots(4)
        doomed.signal(signal.SIGKILL)
        for answer in answers:
            messages = answer.rest()
            assert {m["Response"]["generated_by"] for m in messages} == {"steady"}
            assert len(tokens_of(messages)) == 5
        doomed.wait()


def test_agents_outlive_a_restarted_balancer_with_their_model(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        agent = fleet.start_agent("steady", 2)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(2)
        worker = worker_of(agent)
        assert fleet.balancer is not None
        fleet.balancer.signal(signal.SIGKILL)
        fleet.balancer.wait()
        fleet.start_balancer()
        started_at = time.monotonic()
        fleet.wait_slots(2)
        assert time.monotonic() - started_at < 10
        assert worker_of(agent) == worker
        assert tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))


def test_a_balancer_killed_in_mid_answer_leaves_no_slot_taken(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        fleet.start_agent("steady", 1)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        answer = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
        answer.first()
        assert fleet.balancer is not None
        fleet.balancer.signal(signal.SIGKILL)
        fleet.balancer.wait()
        answer.cut()
        fleet.start_balancer()
        fleet.wait_slots(1)
        # The one slot is the old request's unless its loss was noticed.
        assert len(tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))) == 3


def test_sigterm_lets_a_short_answer_finish_and_leaves_no_process(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, *PATIENT, "--drain-timeout", "1m") as fleet:
        agent = fleet.start_agent("steady", 2)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(2)
        worker = worker_of(agent)
        short = Answer(fleet.inference, raw_prompt("Once upon a time", 60))
        short.first()
        assert fleet.balancer is not None
        fleet.balancer.signal(signal.SIGTERM)
        assert "Done" in short.rest()[-1]["Response"]["response"]["GeneratedToken"]
        assert fleet.balancer.wait() == 0
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert not is_alive(worker)


def test_sigterm_ends_a_long_answer_by_name_after_the_drain_timeout(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, "--drain-timeout", "300ms") as fleet:
        fleet.start_agent("steady", 1)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        running = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
        running.first()
        waiting = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
        wait_until(lambda: fleet.buffered() == 1, "one request waits")
        assert fleet.balancer is not None
        started_at = time.monotonic()
        fleet.balancer.signal(signal.SIGTERM)
        for answer in (running, waiting):
            assert error_of(answer.rest()) == {
                "code": 503,
                "description": "balancer is shutting down",
            }
        assert fleet.balancer.wait() == 0
        assert time.monotonic() - started_at < 5


def test_an_agent_told_to_stop_takes_nothing_new_and_finishes_what_runs(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        agent = fleet.start_agent("leaving", 2, "--drain-timeout", "20s")
        fleet.put_model(smollm2_path)
        fleet.wait_slots(2)
        running = Answer(fleet.inference, raw_prompt("Once upon a time", 100))
        running.first()
        agent.signal(signal.SIGTERM)
        wait_until(lambda: fleet.slots_ready() == 0, "the agent reports no slots", timeout_s=5)
        assert "Done" in running.rest()[-1]["Response"]["response"]["GeneratedToken"]
        assert agent.wait() == 0


def test_a_second_signal_ends_at_once(pair: Fleet, smollm2_path: Path) -> None:
    with pair as fleet:
        agent = fleet.start_agent("leaving", 1, "--drain-timeout", "10m")
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        running = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
        running.first()
        agent.signal(signal.SIGINT)
        wait_until(lambda: fleet.slots_ready() == 0, "the agent drains", timeout_s=5)
        agent.signal(signal.SIGINT)
        assert agent.wait(10) == 0
        assert error_of(running.rest())["code"] == 502


def test_a_swap_waits_for_running_requests_and_serves_late_ones_with_the_new_model(
    pair: Fleet, smollm2_path: Path
) -> None:
    with pair as fleet:
        agent = fleet.start_agent("steady", 2)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(2)
        old_worker = worker_of(agent)
        running = Answer(fleet.inference, raw_prompt("Once upon a time", 150))
        running.first()
        fleet.put_model(smollm2_path, context_size=2048)
        late = Answer(fleet.inference, raw_prompt("And then", 3))
        assert "Done" in running.rest()[-1]["Response"]["response"]["GeneratedToken"]
        assert len(tokens_of(late.rest())) == 3
        wait_until(lambda: agent.children() not in ([], [old_worker]), "a new worker serves")


def test_an_identical_state_reloads_nothing(fleet: Fleet, smollm2_path: Path) -> None:
    (agent,) = fleet.agents
    worker = worker_of(agent)
    fleet.put_model(smollm2_path, context_size=4096)
    assert fleet.slots_ready() == 4
    assert tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))
    assert worker_of(agent) == worker


def test_a_missing_model_is_an_issue_and_the_old_one_serves_on(
    fleet: Fleet, smollm2_path: Path
) -> None:
    fleet.put_model("/nowhere/model.gguf", context_size=4096)
    issue = {"ModelFileDoesNotExist": {"model_path": "/nowhere/model.gguf"}}
    wait_until(lambda: fleet.snapshot()[0]["issues"] == [issue], "the issue is shown")
    assert tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))
    fleet.put_model(smollm2_path, context_size=4096)
    wait_until(lambda: fleet.snapshot()[0]["issues"] == [], "the issue is gone")


def test_a_file_that_is_no_model_is_an_issue_that_stays_until_replaced(
    tmp_path: Path, smollm2_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with Fleet(tmp_path) as fleet:
        fleet.start_agent("steady", 1)
        fleet.put_model(broken)
        issue = {"ModelCannotBeLoaded": {"model_path": str(broken)}}
        wait_until(lambda: fleet.snapshot() and fleet.snapshot()[0]["issues"] == [issue], "issue")
        assert fleet.snapshot()[0]["state_application_status"] in ("AttemptedAndRetrying", "Stuck")
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        assert fleet.snapshot()[0]["issues"] == []


def test_an_agent_told_to_stop_while_it_swaps_models_stops(pair: Fleet, smollm2_path: Path) -> None:
    with pair as fleet:
        fleet.put_model(smollm2_path)
        for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
            agent = fleet.start_agent(f"leaving-{delay_s}", 1)
            fleet.wait_slots(1)
            fleet.put_model(smollm2_path, context_size=1024)
            time.sleep(delay_s)  # somewhere in the swap; each place has to hold
            fleet.put_model(smollm2_path, context_size=2048)
            agent.signal(signal.SIGTERM)
            assert agent.wait(10) == 0
            fleet.put_model(smollm2_path)


def test_a_prompt_of_many_megabytes_costs_its_sender_an_error_and_nobody_else_anything(
    fleet: Fleet,
) -> None:
    running = Answer(fleet.inference, raw_prompt("Once upon a time", 60))
    running.first()
    (message,) = ask(fleet.inference, raw_prompt("<|im_start|> word " * 1_200_000, 3))
    assert "evicted" in message["Response"]["response"]["GeneratedToken"]["SamplerError"]
    assert "Done" in running.rest()[-1]["Response"]["response"]["GeneratedToken"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_balancer_without_standard_streams_starts_and_stops(closed: str) -> None:
    management, inference = free_ports(2)
    words = ("-m", "paddler", "balancer", "--management-addr", f"127.0.0.1:{management}")
    program = [sys.executable, *words, "--inference-addr", f"127.0.0.1:{inference}"]
    balancer = subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *program])
    try:
        wait_until(lambda: can_connect(management), "the balancer listens")
        used = {os.readlink(f"/proc/{balancer.pid}/fd/{number}") for number in range(3)}
        assert not [name for name in used if name.startswith(("anon_inode:", "socket:"))]
        balancer.terminate()
        assert balancer.wait(timeout=10) == 0
    finally:
        balancer.kill()
        balancer.wait()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
