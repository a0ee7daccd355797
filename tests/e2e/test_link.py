"""Agents whose connection fails, or is ended on purpose."""

import signal
import time
from pathlib import Path

from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    ask,
    error_of,
    raw_prompt,
    tokens_of,
    wait_until,
)
from tests.e2e.proxy import Proxy

LONG = 2000
NOTICED_WITHIN_S = 15.0


def test_silence_is_noticed_by_both_sides_and_forgiven(tmp_path: Path) -> None:
    # Two fleets, so that both kinds of silence are waited for at the same time.
    folders = [tmp_path / name for name in ("lossy", "hung")]
    for folder in folders:
        folder.mkdir()
    with (
        Fleet(folders[0]) as lossy,
        Fleet(folders[1]) as hung,
        Proxy(lossy.management) as network,
    ):
        far = lossy.start_agent("far", 1, through=network.port)
        near = hung.start_agent("near", 1)
        wait_until(lambda: lossy.snapshot() and hung.snapshot(), "both agents are there")
        before = [fleet.snapshot()[0]["id"] for fleet in (lossy, hung)]
        assert hung.balancer is not None
        went_silent_at = time.monotonic()
        network.freeze()  # half open: no side hears anything, nobody is told of an end
        hung.balancer.signal(signal.SIGSTOP)
        wait_until(lambda: lossy.snapshot() == [], "the balancer gives its agent up")
        for agent in (far, near):
            wait_until(lambda a=agent: "no sign of life" in a.log, "the agent gives up")
        assert time.monotonic() - went_silent_at < NOTICED_WITHIN_S
        network.thaw()
        hung.balancer.signal(signal.SIGCONT)
        wait_until(
            lambda: (
                [[a["id"] for a in fleet.snapshot()] for fleet in (lossy, hung)]
                == [[agent_id] for agent_id in before]
            ),
            "both are back, each once",
        )


def test_a_cut_link_ends_what_runs_by_name_and_the_model_stays(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet, Proxy(fleet.management) as network:
        agent = fleet.start_agent("far", 1, through=network.port)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(1)
        (before,), workers = fleet.snapshot(), agent.children()
        running = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
        running.first()
        network.cut()
        assert error_of(running.rest()) == {
            "code": 502,
            "description": "Agent controller connection closed",
        }
        # The one slot is the old request's unless the agent ended it.
        assert len(tokens_of(ask(fleet.inference, raw_prompt("Still", 3)))) == 3
        (after,) = fleet.snapshot()
        assert after["id"] == before["id"]
        assert agent.children() == workers


def test_new_requests_go_elsewhere_while_an_agent_leaves_and_its_time_is_bounded(
    tmp_path: Path, smollm2_path: Path
) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        leaving = fleet.start_agent("leaving", 2, "--drain-timeout", "700ms")
        fleet.start_agent("steady", 2)
        fleet.put_model(smollm2_path)
        fleet.wait_slots(4)
        running: dict[str, Answer] = {}
        while set(running) != {"leaving", "steady"}:  # each goes to the least busy one
            answer = Answer(fleet.inference, raw_prompt("Once upon a time", LONG))
            running[answer.first()["Response"]["generated_by"]] = answer
        leaving.signal(signal.SIGTERM)
        wait_until(lambda: fleet.slots_ready() == 2, "it reports no slots", 5)
        late = ask(fleet.inference, raw_prompt("And then", 3))
        assert {message["Response"]["generated_by"] for message in late} == {"steady"}
        assert error_of(running["leaving"].rest()) == {
            "code": 502,
            "description": "Agent controller connection closed",
        }
        assert leaving.wait() == 0
        assert "Response" in running["steady"].first()
        running["steady"].cut()
        assert [agent["name"] for agent in fleet.snapshot()] == ["steady"]
