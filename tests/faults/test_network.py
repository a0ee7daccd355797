"""The network between agents and balancer: slow, one-way, cut in the middle, out of order.

Whatever it does, no request is left without an end, no slot stays taken, and the agents come
back by themselves.
"""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.scripted.script import WORDS
from paddler.messages import link as wire
from paddler.proto.ws import WebSocket
from tests.e2e.fleet import PATIENT, Fleet, raw_prompt, wait_until
from tests.e2e.proxy import Proxy, Towards
from tests.faults.crowd import Crowd, prompt, upgrade
from tests.faults.hand_agent import HandAgent, hello
from tests.faults.reports import ReportFault
from tests.faults.stage import Client

pytestmark = pytest.mark.e2e

SLOTS: Final = 4
LONG: Final = 1_000_000
SOON_S: Final = 60.0
PACE: Final = ("--rate", "50", "--tokens", str(LONG))
TOKEN: Final = b'"ContentToken"'
ENDED: Final = "502 Agent controller connection closed"
ENDS: Final = {Towards.TARGET: "the balancer", Towards.CALLER: "the agent"}
REPLACED: Final = (1008, "replaced by a newer connection of the same agent")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A balancer without agents."""
    with Fleet(tmp_path, *PATIENT, "--max-buffered-requests", "300") as fleet:
        yield fleet


def wait_serving(fleet: Fleet, slots: int) -> None:
    """Wait until that many slots are ready; they have to be as good as new."""
    wait_until(lambda: fleet.slots_ready() == slots, f"{slots} slots are ready", SOON_S)
    wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "none is held", SOON_S)
    with Crowd() as crowd:
        clients = crowd.join(fleet.inference, slots, prompt(LONG))
        crowd.play(lambda: all(TOKEN in one.heard for one in clients), "every slot tells", SOON_S)
        assert fleet.slots_busy() == slots
        crowd.leave(clients)
        wait_until(lambda: fleet.slots_busy() == 0, "all of them are given back", SOON_S)
        (last,) = crowd.join(fleet.inference, 1, prompt(3))
        crowd.play(lambda: last.is_answered, "a request is answered", SOON_S)
        assert last.heard.count(TOKEN) == 3


def in_background(fleet: Fleet, prompt: str, tokens: int) -> Client:
    """A request whose answer is read by a thread of its own."""
    client = Client()
    client.start(fleet.inference, raw_prompt(prompt, tokens))
    return client


# --- slow and silent -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("towards", Towards)
def test_link_at_one_byte_a_second_is_given_up_and_forgiven(
    fleet: Fleet, towards: Towards, report_fault: ReportFault
) -> None:
    report = report_fault(f"an agent's link at one octet a second towards {ENDS[towards]}")
    with Proxy(fleet.management) as network:
        fleet.start_scripted(1, SLOTS, *PACE, through=network.port)
        fleet.wait_slots(SLOTS)
        begun = in_background(fleet, "Once", LONG)
        wait_until(lambda: begun.tokens, "the answer has begun")
        network.trickle(1.0, towards)
        began_at = time.monotonic()
        late = in_background(fleet, "And", 3)  # goes to the agent whose link is slow now
        wait_until(lambda: fleet.slots_busy() == 2, "both have their slots")
        fleet.start_scripted(1, SLOTS, *PACE, "--name-prefix", "near-")
        assert begun.ended.wait(SOON_S), "the answer on the slow link has no end"
        noticed_s = time.monotonic() - began_at
        assert begun.outcome == ENDED
        # Nothing of this one had come: another agent has it.
        assert late.ended.wait(SOON_S), "the request on the slow link has no end"
        assert late.outcome == "completed"
        assert {message["Response"]["generated_by"] for message in late.messages} == {"near-1"}
        assert [agent["name"] for agent in fleet.snapshot()] == ["near-1"]
        with report.recovering():
            network.thaw()
            wait_serving(fleet, 2 * SLOTS)
        report.outcome = (
            f"given up after {noticed_s:.0f} s: the answer that had begun ends with "
            f"`{begun.outcome}`, the request that had not is {late.outcome} by another agent"
        )


@pytest.mark.slow
@pytest.mark.parametrize("towards", Towards)
def test_agent_that_dials_into_silence_dials_again(
    fleet: Fleet, towards: Towards, report_fault: ReportFault
) -> None:
    report = report_fault(f"an agent dials, and nothing comes to {ENDS[towards]}")
    assert fleet.balancer is not None
    with Proxy(fleet.management) as network:
        network.freeze(towards)  # accepted by the kernel, then nothing: half open from the start
        fleet.start_scripted(1, SLOTS, *PACE, through=network.port)
        wait_until(lambda: network.accepted >= 1, "the agent dials", SOON_S)
        dialed_at = time.monotonic()
        wait_until(lambda: network.accepted >= 2, "the agent gives up and dials again", SOON_S)
        patience_s = time.monotonic() - dialed_at
        assert fleet.snapshot() == []
        with report.recovering():
            network.thaw()
            wait_serving(fleet, SLOTS)
        wait_until(lambda: sockets_of(fleet, fleet.management) == 1, "one link is left", SOON_S)
        report.outcome = f"it gives up after {patience_s:.0f} s and dials again; one link is left"


def sockets_of(fleet: Fleet, port: int) -> int:
    """Connections to one of the balancer's ports that are established."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    here, established = f"0100007F:{port:04X}", "01"
    return sum(line.split()[1] == here and line.split()[3] == established for line in lines)


# --- cut -----------------------------------------------------------------------------------------

# A link's message is a header of 2 octets, 4 of mask, 12 of the data frame, and a word; pongs go
# between them.
CUTS: Final = (1, 2, 5, 6, 7, 17, 18, 19, 23, 24, 40, 100)
TOLD: Final = frozenset(word.decode() for word in WORDS)


def test_frame_cut_in_the_middle_ends_its_stream_by_name(
    fleet: Fleet, report_fault: ReportFault
) -> None:
    report = report_fault(f"an agent's link is cut within a frame, at {len(CUTS)} places")
    with Proxy(fleet.management) as network:
        fleet.start_scripted(1, SLOTS, *PACE, through=network.port)
        fleet.wait_slots(SLOTS)
        outcomes = Counter[str]()
        for octets in CUTS:
            running = in_background(fleet, "Once", LONG)
            wait_until(lambda running=running: running.tokens, "the answer has begun", SOON_S)
            with report.recovering():
                network.cut_after(octets)
                assert running.ended.wait(SOON_S), "the answer whose frame was cut has no end"
                wait_serving(fleet, SLOTS)
            assert running.outcome == ENDED
            # The cut one is not told, not even in part.
            assert set(running.tokens) <= TOLD
            outcomes[running.outcome] += 1
        assert network.accepted == len(CUTS) + 1
        report.outcome = (
            f"{len(CUTS)} answers: {told(outcomes)}; what came of the frame is not told"
        )


def told(outcomes: Counter[str]) -> str:
    """How requests ended, in words."""
    return ", ".join(
        f"{count} {outcome}" if outcome == "completed" else f"{count} ended with `{outcome}`"
        for outcome, count in outcomes.most_common()
    )


# --- twice, and out of order ---------------------------------------------------------------------


def test_newest_connection_of_an_agent_wins_and_the_older_one_is_closed(
    fleet: Fleet, report_fault: ReportFault
) -> None:
    report = report_fault("an agent's id connects twice")
    with (
        HandAgent(fleet.management, "twin", "first", SLOTS) as first,
        contextlib.ExitStack() as stack,
    ):
        begun, fresh = (in_background(fleet, prompt, 2) for prompt in ("Once", "And"))
        streams = {}
        for _ in range(2):
            start = first.next(wire.StartStream)
            streams[start.job.request.raw_prompt] = start.stream_id
        first.say([streams["Once"]], b"told")
        wait_until(lambda: begun.tokens == ["told"], "the first has told something")
        with report.recovering():
            second = stack.enter_context(HandAgent(fleet.management, "twin", "second", SLOTS))
            assert first.closed() == REPLACED
            # What had begun has a named end; what had not is started again, on the newest.
            assert begun.ended.wait(SOON_S), "the answer of the older connection has no end"
            assert begun.outcome == ENDED
            again = second.next(wire.StartStream)
            assert again.job.request.raw_prompt == "And"
            second.say([again.stream_id], b"told")
            second.finish([again.stream_id])
            assert fresh.ended.wait(SOON_S), "the answer of the newer connection has no end"
            assert (fresh.tokens, fresh.outcome) == (["told"], "completed")
            (agent,) = fleet.snapshot()
            assert (agent["name"], agent["slots_total"]) == ("second", SLOTS)
            assert agent["slots_processing"] == 0
        code, reason = REPLACED
        report.outcome = (
            f"the older connection is closed with {code}, {reason!r}: what had begun there ends "
            f"with `{begun.outcome}`, what had not is {fresh.outcome} by the newest"
        )
    wait_until(lambda: fleet.snapshot() == [], "both are gone")


def test_hello_of_a_connection_that_was_given_up_comes_late_and_does_no_harm(
    fleet: Fleet, report_fault: ReportFault
) -> None:
    report = report_fault("a connection that the agent has given up delivers its greeting late")
    with Proxy(fleet.management) as near, Proxy(fleet.management) as far:
        fleet.start_scripted(1, SLOTS, *PACE, through=near.port)
        fleet.wait_slots(SLOTS)
        (agent,) = fleet.snapshot()
        # Its earlier connection: the hello is under way when the agent gives it up.
        with socket.create_connection(("127.0.0.1", far.port), timeout=SOON_S) as earlier:
            earlier.sendall(upgrade(f"/api/v1/agent_socket/{agent['id']}"))
            assert earlier.recv(4096).startswith(b"HTTP/1.1 101 ")
            far.freeze(Towards.TARGET)
            earlier.sendall(WebSocket(is_client=True).send_text(hello("late", SLOTS)))
        assert fleet.snapshot()[0]["name"] == agent["name"]
        with report.recovering():
            far.thaw()
            # To the balancer it is the newest one; the agent, told so, dials once more.
            wait_until(lambda: near.accepted >= 2, "the agent dials again", SOON_S)
            wait_serving(fleet, SLOTS)
        assert [(one["id"], one["name"]) for one in fleet.snapshot()] == [
            (agent["id"], agent["name"])
        ]
        report.outcome = (
            f"it replaces the living one; the agent dials again (dials: {near.accepted - 1}), and "
            "is there once, with all slots"
        )


def test_agents_that_lose_their_links_all_the_time_keep_serving(
    fleet: Fleet, report_fault: ReportFault
) -> None:
    report = report_fault("eight agents lose their links twice a second, and go on to")
    fleet.start_scripted(8, SLOTS, "--rate", "200", "--reconnect-every", "0.5", "--seed", "1")
    fleet.wait_slots(8 * SLOTS)
    clients = [in_background(fleet, f"Tale {number}:", 10) for number in range(300)]
    for client in clients:
        assert client.ended.wait(SOON_S), "a request has no end"
    ends = Counter(client.outcome for client in clients)
    assert set(ends) <= {"completed", ENDED}
    assert ends["completed"] > 0

    def agents_and_slots() -> tuple[int, int]:
        # Of one answer: by the next one another agent has lost its link.
        agents = fleet.snapshot()
        return len({agent["id"] for agent in agents}), sum(agent["slots_total"] for agent in agents)

    with report.recovering():
        wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "none is held", SOON_S)
        wait_until(
            lambda: agents_and_slots() == (8, 8 * SLOTS), "all agents are there again, once", SOON_S
        )
    report.outcome = f"{len(clients)} requests: {told(ends)}, none without an end"
