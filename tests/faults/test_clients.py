"""Clients that are many, slow, silent or deaf, and others beside them that are served."""

import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.descriptors import allow_many_sockets
from paddler.errors import StartError
from paddler.messages.link import StartStream
from paddler.proto.ws import WebSocket
from tests.e2e.fleet import PATIENT, Fleet, Process, raw_prompt, wait_until
from tests.faults.crowd import Crowd, Member, post, prompt, upgrade
from tests.faults.hand_agent import HandAgent
from tests.faults.reports import ReportFault

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KIB: Final = 1024
MIB: Final = 1024 * KIB
SLOTS: Final = 8
SETTLE_S: Final = 60.0
# The machine may be busy: what waits for others here waits for tens of seconds.
SERVED_WITHIN_S: Final = 10.0

IDLE: Final = 10_000
IDLE_KIB: Final = 16.0
SLOW: Final = 250  # heads, and as many bodies
HEAD_LIMIT_S: Final = 10.0
BODY_LIMIT_S: Final = 30.0
STREAMS: Final = 2_000
STREAM_TOKENS: Final = 20
DEAF: Final = 6
LONG: Final = 1_000_000
SIPPING: Final = 30
SIPPED_TOKENS: Final = 4_000  # half of what may be unsent
SIP_BYTES: Final = 20 * KIB
SIP_EVERY_S: Final = 0.1
SMALL_BYTES: Final = 4096

RAW_PROMPT: Final = "/api/v1/continue_from_raw_prompt"
HEALTH: Final = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"


def answer_s(fleet: Fleet) -> float:
    """How long somebody else waits for a short answer; an error if that is too long."""
    began_at = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", fleet.inference, timeout=SERVED_WITHIN_S)
    with contextlib.closing(connection):
        body = json.dumps(raw_prompt("And", 3))
        connection.request("POST", RAW_PROMPT, body, {"content-type": "application/json"})
        lines = connection.getresponse().read().splitlines()
    assert b'"Done"' in lines[-1], lines
    assert len(lines) == 4
    took_s = time.monotonic() - began_at
    assert took_s < SERVED_WITHIN_S
    return took_s


class Watch:
    """What the balancer holds, and how long others waited while it was looked at.

    ``slots``: of the agents that stay.
    """

    def __init__(self, fleet: Fleet, slots: int = SLOTS) -> None:
        assert fleet.balancer is not None
        self._fleet = fleet
        self._slots = slots
        self.balancer: Process = fleet.balancer
        for _ in range(5):
            answer_s(fleet)  # the first ones fill caches, which is no leak
        self.descriptors = self.balancer.descriptors()
        self.memory_bytes = self.balancer.memory_bytes()
        self.answers_s: list[float] = []
        self._asked_at = 0.0

    def others_are_served(self) -> None:
        """Ask as somebody else, a few times a second."""
        if time.monotonic() - self._asked_at > 0.2:
            self.answers_s.append(answer_s(self._fleet))
            self._asked_at = time.monotonic()

    def nothing_is_left(self) -> None:
        """Return once the balancer holds what it held at first, and serves with all slots."""
        fleet = self._fleet
        wait_until(
            lambda: self.balancer.descriptors() <= self.descriptors,
            f"{self.descriptors} descriptors are open, as before",
            SETTLE_S,
        )
        wait_until(lambda: at_rest(fleet, self._slots), "no slot is held", SETTLE_S)
        answer_s(fleet)

    def told(self) -> str:
        """How long others waited for their short answers, in words."""
        times = sorted(self.answers_s)
        if not times:  # it was over before anybody else asked
            return "no answer to others fell into that time"
        middle, most = times[len(times) // 2] * 1000, times[-1] * 1000
        return (
            f"{len(times)} answers to others take {middle:.0f} ms (median), {most:.0f} ms at most"
        )


def at_rest(fleet: Fleet, slots: int) -> bool:
    """Whether that many slots are ready, none is held, and nobody waits for one."""
    return (fleet.slots_ready(), fleet.slots_busy(), fleet.buffered()) == (slots, 0, 0)


@contextlib.contextmanager
def served(folder: Path, *flags: str) -> Iterator[Fleet]:
    """A balancer with a scripted agent."""
    with Fleet(folder, *PATIENT) as fleet:
        fleet.start_scripted(1, SLOTS, *flags)
        fleet.wait_slots(SLOTS)
        yield fleet


def room_for(count: int) -> None:
    """Descriptors for this process's end of all those connections."""
    try:
        allow_many_sockets(count)
    except StartError as error:
        pytest.skip(str(error))


def ends_of(members: list[Member]) -> Counter[tuple[int, str]]:
    return Counter((member.status, member.end) for member in members)


def test_ten_thousand_idle_connections_cost_little_and_others_are_served(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(f"{IDLE:,} idle connections, half of them answered once")
    room_for(IDLE)
    with served(tmp_path, "--rate", "200") as fleet, Crowd() as crowd:
        watch = Watch(fleet)
        # Half of them have been answered once, as clients that keep their connections.
        idle = crowd.join(fleet.inference, IDLE // 2)
        watch.others_are_served()
        idle += crowd.join(fleet.inference, IDLE // 2, HEALTH)
        asked = idle[IDLE // 2 :]
        crowd.play(lambda: all(one.is_answered for one in asked), "all are answered", SETTLE_S)
        wait_until(
            lambda: watch.balancer.descriptors() > IDLE,
            "all connections are accepted",
            SETTLE_S,
        )
        each_kib = (watch.balancer.memory_bytes() - watch.memory_bytes) / IDLE / KIB
        assert each_kib < IDLE_KIB
        for _ in range(20):
            watch.answers_s.append(answer_s(fleet))
        # They are still good: the idle time that they may take is longer than this test.
        some = asked[::100]
        for one in some:
            crowd.ask_again(one, HEALTH)
        crowd.play(lambda: all(one.is_answered for one in some), "they are of use", SETTLE_S)
        assert ends_of(some) == {(200, ""): len(some)}
        assert not any(one.end for one in idle)
        with report.recovering():
            crowd.leave(idle)
            watch.nothing_is_left()
        report.outcome = (
            f"{each_kib:.1f} KiB each; none is closed, and {len(some)} that ask again are "
            f"answered; {watch.told()}"
        )


def test_slow_heads_and_bodies_are_told_408_and_others_are_served(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(
        f"{SLOW} clients whose request heads trickle, and {SLOW} whose bodies do, with a length or "
        "in chunks"
    )
    room_for(2 * SLOW)
    with served(tmp_path, "--rate", "200") as fleet, Crowd() as crowd:
        watch = Watch(fleet)
        began_at = time.monotonic()
        start = f"POST {RAW_PROMPT} HTTP/1.1\r\nhost: a\r\n".encode()
        heads = crowd.join(fleet.inference, SLOW, start)
        sized = crowd.join(fleet.inference, SLOW // 2, start + b"content-length: 1000000\r\n\r\n")
        chunked = crowd.join(
            fleet.inference, SLOW - SLOW // 2, start + b"transfer-encoding: chunked\r\n\r\n"
        )
        bodies = sized + chunked
        crowd.drip(heads, b"x-y: z\r\n", 0.5)
        crowd.drip(sized, b" ", 0.5)
        crowd.drip(chunked, b"1\r\n \r\n", 0.5)

        def are_over(members: list[Member]) -> bool:
            watch.others_are_served()
            return all(member.end for member in members)

        with report.recovering():
            crowd.play(lambda: are_over(heads), "the heads are given up", HEAD_LIMIT_S + SETTLE_S)
            heads_s = time.monotonic() - began_at
            assert ends_of(heads) == {(408, "closed"): SLOW}
            crowd.play(lambda: are_over(bodies), "the bodies are given up", BODY_LIMIT_S + SETTLE_S)
            bodies_s = time.monotonic() - began_at
            assert ends_of(bodies) == {(408, "closed"): SLOW}
            watch.nothing_is_left()
        report.outcome = (
            f"{len(heads)} told 408 after {heads_s:.0f} s and {len(bodies)} after {bodies_s:.0f} s"
            f"; {watch.told()}"
        )


def test_clients_that_never_read_are_cut_and_their_slots_are_free(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(
        f"{DEAF // 3} clients each of the native, OpenAI and WebSocket services that never read "
        "their streams"
    )
    flags = ("--rate", "2500", "--tokens", str(LONG), "--stamp")
    with served(tmp_path, *flags) as fleet, Crowd() as crowd:
        watch = Watch(fleet)
        completion = {"model": "m", "prompt": "Once", "max_tokens": LONG, "stream": True}
        job = {"id": "1", "request": {"ContinueFromRawPrompt": raw_prompt("Once", LONG)}}
        message = WebSocket(is_client=True).send_text(json.dumps({"Request": job}).encode())
        deaf = [
            one
            for port, wire in (
                (fleet.inference, prompt(LONG)),
                (fleet.openai, post("/v1/completions", completion)),
                (fleet.inference, upgrade("/api/v1/inference_socket") + message),
            )
            for one in crowd.join(
                port, DEAF // 3, wire, is_reading=False, receive_bytes=SMALL_BYTES
            )
        ]
        wait_until(lambda: fleet.slots_busy() == DEAF, "all of them have their slots", SETTLE_S)
        peak_bytes = 0
        began_at = time.monotonic()

        def are_cut() -> bool:
            nonlocal peak_bytes
            peak_bytes = max(peak_bytes, watch.balancer.memory_bytes())
            watch.others_are_served()
            return fleet.slots_busy() == 0

        with report.recovering():
            crowd.play(are_cut, "their slots are free", 60.0)
            took_s = time.monotonic() - began_at
            grown_mib = (peak_bytes - watch.memory_bytes) / MIB
            assert grown_mib < 6 * DEAF
            crowd.read_on(deaf)
            crowd.play(lambda: all(one.end for one in deaf), "they hear of it", SETTLE_S)
            assert not any(one.is_answered for one in deaf)  # what was cut looks like nothing else
            watch.nothing_is_left()
        report.outcome = (
            f"cut, and their slots free, after {took_s:.1f} s; {grown_mib / DEAF:.1f} MiB of "
            f"memory each until then; {watch.told()}"
        )


def test_clients_that_read_slowly_get_all_of_their_answers(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(
        f"{SIPPING} clients that read at {SIP_BYTES / SIP_EVERY_S / 1000:.0f} KB/s what is written "
        "at once"
    )
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(tmp_path, *PATIENT))
        crowd = stack.enter_context(Crowd())
        leaving = stack.enter_context(contextlib.ExitStack())
        agent = leaving.enter_context(HandAgent(fleet.management, "hand", "hand", SIPPING))
        slow = crowd.join(
            fleet.inference,
            SIPPING,
            prompt(SIPPED_TOKENS),
            is_reading=False,
            receive_bytes=4 * SMALL_BYTES,
        )
        stream_ids = [agent.next(StartStream).stream_id for _ in slow]
        fleet.start_scripted(1, SLOTS, "--rate", "200")
        fleet.wait_slots(SIPPING + SLOTS)
        watch = Watch(fleet)
        for _ in range(SIPPED_TOKENS // 100):
            agent.say(stream_ids * 100, b"word ")
        began_at = time.monotonic()
        crowd.sip(slow, SIP_BYTES, SIP_EVERY_S)

        def have_heard_all() -> bool:
            watch.others_are_served()
            return all(one.heard.count(b"word ") == SIPPED_TOKENS for one in slow)

        crowd.play(have_heard_all, "all have read what was said", SETTLE_S)
        took_s = time.monotonic() - began_at
        agent.finish(stream_ids)
        crowd.play(lambda: all(one.is_answered for one in slow), "all are answered", SETTLE_S)
        assert ends_of(slow) == {(200, ""): SIPPING}
        each_mb = len(slow[0].heard) / 1e6
        with report.recovering():
            crowd.leave(slow)
            leaving.close()  # it answers nobody else
            watch.nothing_is_left()
        report.outcome = (
            f"all have all of it, {each_mb:.1f} MB each, after {took_s:.1f} s; {watch.told()}"
        )


def test_two_thousand_streams_at_once_all_complete(
    tmp_path: Path, report_fault: ReportFault
) -> None:
    report = report_fault(f"{STREAMS:,} streams at once")
    room_for(STREAMS)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(tmp_path, *PATIENT))
        crowd = stack.enter_context(Crowd())
        agents = [
            stack.enter_context(HandAgent(fleet.management, name, name, STREAMS // 2))
            for name in ("a", "b")
        ]
        assert fleet.balancer is not None
        descriptors = fleet.balancer.descriptors()
        streams = crowd.join(fleet.inference, STREAMS, prompt(STREAM_TOKENS))
        started = {
            agent: [agent.next(StartStream).stream_id for _ in range(STREAMS // 2)]
            for agent in agents
        }
        assert fleet.slots_busy() == STREAMS
        began_at = time.monotonic()
        for count in range(1, STREAM_TOKENS + 1):
            for agent, stream_ids in started.items():
                agent.say(stream_ids, b"word ")
            crowd.play(
                lambda count=count: all(one.heard.count(b"word ") == count for one in streams),
                f"all clients have token {count}",
                SETTLE_S,
            )
        took_s = time.monotonic() - began_at
        for agent, stream_ids in started.items():
            agent.finish(stream_ids)
        crowd.play(lambda: all(one.is_answered for one in streams), "all are answered", SETTLE_S)
        assert ends_of(streams) == {(200, ""): STREAMS}
        assert all(b'"Done"' in one.heard for one in streams)
        assert at_rest(fleet, STREAMS)
        with report.recovering():
            crowd.leave(streams)
            wait_until(lambda: fleet.balancer.descriptors() <= descriptors, "sockets are closed")
            assert at_rest(fleet, STREAMS)
        report.outcome = (
            f"all complete, each of {STREAM_TOKENS} tokens reaches its client; a token for each of "
            f"them takes {took_s / STREAM_TOKENS:.2f} s in all, the clients' reading included"
        )
