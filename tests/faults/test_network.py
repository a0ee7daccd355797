"""The network between agents and balancer: slow, one-way, cut in the middle, out of order.

Whatever it does, no request is left without an end, no slot stays taken, and the agents come
back by themselves.
"""

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
from tests.e2e.fleet import PATIENT, Fleet, error_of, raw_prompt, wait_until
from tests.e2e.proxy import Proxy, Towards
from tests.faults.crowd import Crowd, prompt, upgrade
from tests.faults.hand_agent import HandAgent, hello
from tests.faults.stage import Client

pytestmark = pytest.mark.e2e

SLOTS: Final = 4
LONG: Final = 1_000_000
SOON_S: Final = 60.0
PACE: Final = ("--rate", "50", "--tokens", str(LONG))
TOKEN: Final = b'"ContentToken"'
CONNECTION_ENDED: Final = {"code": 502, "description": "Agent controller connection closed"}
REPLACED: Final = (1008, "replaced by a newer connection of the same agent")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A balancer without agents."""
    with Fleet(tmp_path, *PATIENT, "--max-buffered-requests", "300") as fleet:
        yield fleet


def serves_with_all_slots(fleet: Fleet, slots: int) -> float:
    """How long it takes until that many slots are ready; they have to be as good as new."""
    began_at = time.monotonic()
    wait_until(lambda: fleet.slots_ready() == slots, f"{slots} slots are ready", SOON_S)
    took_s = time.monotonic() - began_at
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
    return took_s


def in_background(fleet: Fleet, prompt: str, tokens: int) -> Client:
    """A request whose answer is read by a thread of its own."""
    client = Client()
    client.start(fleet.inference, raw_prompt(prompt, tokens))
    return client


# --- slow and silent -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("towards", Towards)
def test_link_at_one_byte_a_second_is_given_up_and_forgiven(fleet: Fleet, towards: Towards) -> None:
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
        assert error_of(begun.messages) == CONNECTION_ENDED
        # Nothing of this one had come: another agent has it.
        assert late.ended.wait(SOON_S), "the request on the slow link has no end"
        assert late.outcome == "completed"
        assert {message["Response"]["generated_by"] for message in late.messages} == {"near-1"}
        assert [agent["name"] for agent in fleet.snapshot()] == ["near-1"]
        network.thaw()
        back_s = serves_with_all_slots(fleet, 2 * SLOTS)
        print(f"{towards.value}: given up after {noticed_s:.1f} s, back after {back_s:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("towards", Towards)
def test_agent_that_dials_into_silence_dials_again(fleet: Fleet, towards: Towards) -> None:
    assert fleet.balancer is not None
    with Proxy(fleet.management) as network:
        network.freeze(towards)  # accepted by the kernel, then nothing: half open from the start
        fleet.start_scripted(1, SLOTS, *PACE, through=network.port)
        wait_until(lambda: network.accepted >= 2, "the agent gives up and dials again", SOON_S)
        assert fleet.snapshot() == []
        network.thaw()
        back_s = serves_with_all_slots(fleet, SLOTS)
        print(f"{towards.value}: back after {back_s:.1f} s")
        wait_until(lambda: sockets_of(fleet, fleet.management) == 1, "one link is left", SOON_S)


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


def test_frame_cut_in_the_middle_ends_its_stream_by_name(fleet: Fleet) -> None:
    with Proxy(fleet.management) as network:
        fleet.start_scripted(1, SLOTS, *PACE, through=network.port)
        backs_s = []
        for octets in CUTS:
            cut_at = time.monotonic()
            fleet.wait_slots(SLOTS)
            backs_s.append(time.monotonic() - cut_at)
            running = in_background(fleet, "Once", LONG)
            wait_until(lambda running=running: running.tokens, "the answer has begun", SOON_S)
            network.cut_after(octets)
            assert running.ended.wait(SOON_S), "the answer whose frame was cut has no end"
            assert error_of(running.messages) == CONNECTION_ENDED
            # The cut one is not told, not even in part.
            assert set(running.tokens) <= TOLD
        serves_with_all_slots(fleet, SLOTS)
        assert network.accepted == len(CUTS) + 1
        print(f"{len(CUTS)} cuts, back after {max(backs_s[1:]):.1f} s at most")


# --- twice, and out of order ---------------------------------------------------------------------


def test_newest_connection_of_an_agent_wins_and_the_older_one_is_closed(fleet: Fleet) -> None:
    with HandAgent(fleet.management, "twin", "first", SLOTS) as first:
        begun, fresh = (in_background(fleet, prompt, 2) for prompt in ("Once", "And"))
        streams = {}
        for _ in range(2):
            start = first.next(wire.StartStream)
            streams[start.job.request.raw_prompt] = start.stream_id
        first.say([streams["Once"]], b"told")
        wait_until(lambda: begun.tokens == ["told"], "the first has told something")
        with HandAgent(fleet.management, "twin", "second", SLOTS) as second:
            assert first.closed() == REPLACED
            # What had begun has a named end; what had not is started again, on the newest.
            assert begun.ended.wait(SOON_S), "the answer of the older connection has no end"
            assert error_of(begun.messages) == CONNECTION_ENDED
            again = second.next(wire.StartStream)
            assert again.job.request.raw_prompt == "And"
            second.say([again.stream_id], b"told")
            second.finish([again.stream_id])
            assert fresh.ended.wait(SOON_S), "the answer of the newer connection has no end"
            assert (fresh.tokens, fresh.outcome) == (["told"], "completed")
            (agent,) = fleet.snapshot()
            assert (agent["name"], agent["slots_total"]) == ("second", SLOTS)
            assert agent["slots_processing"] == 0
    wait_until(lambda: fleet.snapshot() == [], "both are gone")


def test_hello_of_a_connection_that_was_given_up_comes_late_and_does_no_harm(
    fleet: Fleet,
) -> None:
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
        far.thaw()
        # To the balancer it is the newest one; the agent, told so, dials once more.
        wait_until(lambda: near.accepted >= 2, "the agent dials again", SOON_S)
        serves_with_all_slots(fleet, SLOTS)
        assert [(one["id"], one["name"]) for one in fleet.snapshot()] == [
            (agent["id"], agent["name"])
        ]


def test_agents_that_lose_their_links_all_the_time_keep_serving(fleet: Fleet) -> None:
    fleet.start_scripted(8, SLOTS, "--rate", "200", "--reconnect-every", "0.5", "--seed", "1")
    fleet.wait_slots(8 * SLOTS)
    clients = [in_background(fleet, f"Tale {number}:", 10) for number in range(300)]
    for client in clients:
        assert client.ended.wait(SOON_S), "a request has no end"
    ends = Counter(client.outcome for client in clients)
    assert set(ends) <= {"completed", "502 Agent controller connection closed"}
    assert ends["completed"] > 0
    print(ends)
    wait_until(lambda: (fleet.slots_busy(), fleet.buffered()) == (0, 0), "no slot is held", SOON_S)

    def agents_and_slots() -> tuple[int, int]:
        # Of one answer: by the next one another agent has lost its link.
        agents = fleet.snapshot()
        return len({agent["id"] for agent in agents}), sum(agent["slots_total"] for agent in agents)

    wait_until(
        lambda: agents_and_slots() == (8, 8 * SLOTS), "all agents are there again, once", SOON_S
    )
