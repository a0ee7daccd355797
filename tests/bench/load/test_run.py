"""The load generator against servers whose pace and faults are known."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop

from bench.load.connections import MAX_SENT
from bench.load.distribution import parse_distribution
from bench.load.plan import Api
from tests.bench.load.servers import (
    DONE,
    END,
    HEAD,
    Piece,
    chunk,
    measured,
    on_loop,
    paced,
    serving,
    stream,
    token,
    whole,
)


def test_a_run_counts_every_token_and_tells_its_times() -> None:
    async def test() -> None:
        async with serving(paced(tokens=10, gap_s=0.01)) as (port, _):
            found = await measured(port, requests=5)
        assert (found.finished, found.failed, found.tokens) == (5, 0, 50)
        assert found.first.count == 5
        assert found.gap.count == 45
        assert 0.009 < found.first.percentile_s(50) < 0.2
        assert 0.009 < found.gap.percentile_s(50) < 0.2
        assert 0.09 < found.whole.percentile_s(50) < 1.0

    on_loop(test)


def test_a_server_that_closes_after_each_answer_is_dialled_again() -> None:
    async def test() -> None:
        async with serving([*paced(tokens=2, gap_s=0.0), b""]) as (port, asked):
            found = await measured(port, requests=20, streams=4)
        assert (found.finished, found.failed, found.tokens) == (20, 0, 40)
        assert len(asked) == 20  # none was read twice

    on_loop(test)


def test_a_connection_that_is_lost_before_it_is_of_use_ends_its_call_and_no_run_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dial = uvloop.Loop.create_connection

    async def late(*words: Any, **values: Any) -> Any:
        """As on a busy machine: who dials is told late."""
        transport, connection = await dial(*words, **values)
        while connection.is_open:
            await asyncio.sleep(0.001)
        return transport, connection

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def test() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setattr(uvloop.Loop, "create_connection", late)
            found = await measured(port, requests=3, duration_s=5.0)
        assert found.errors == {"connection lost": 3}

    on_loop(test)


@pytest.mark.parametrize("cut", [1, 7, 50, 1000])
def test_a_run_counts_the_same_however_the_answer_is_cut_into_reads(cut: int) -> None:
    answer = b"".join(piece for piece in paced(tokens=6, gap_s=0.0) if isinstance(piece, bytes))
    pieces: list[Piece] = []
    for at in range(0, len(answer), cut):
        pieces += [answer[at : at + cut], 0.0]

    async def test() -> None:
        async with serving(pieces) as (port, _):
            found = await measured(port, requests=2)
        assert (found.finished, found.failed, found.tokens) == (2, 0, 12)

    on_loop(test)


def test_a_run_counts_events_that_chunks_break_in_two() -> None:
    body = token() + token() + token() + DONE
    chunks = [chunk(body[at : at + 11]) for at in range(0, len(body), 11)]

    async def test() -> None:
        async with serving([HEAD, *chunks, END]) as (port, _):
            found = await measured(port, requests=1)
        assert (found.finished, found.tokens) == (1, 3)

    on_loop(test)


@pytest.mark.parametrize(
    ("plain", "written"), [(b"\n", b"\r\n"), (b'":', b'": '), (b'"content":', b'"content": ')]
)
def test_a_run_counts_tokens_of_servers_that_write_them_otherwise(
    plain: bytes, written: bytes
) -> None:
    events = [event.replace(plain, written) for event in (token(b""), *[token()] * 3, DONE)]

    async def test() -> None:
        async with serving(stream(*events)) as (port, _):
            found = await measured(port, requests=2)
        assert (found.finished, found.failed, found.tokens) == (2, 0, 6)

    on_loop(test)


def test_an_open_loop_counts_from_when_requests_should_have_begun() -> None:
    slow = whole(b'{"usage":{"completion_tokens":1}}')
    answer: list[Piece] = [0.05, *slow]

    async def test() -> None:
        async with serving(answer) as (port, _):
            closed = await measured(port, duration_s=1.0, is_streamed=False)
            # One stream serves 20 a second; 60 a second arrive.
            opened = await measured(
                port, duration_s=1.0, is_streamed=False, arrivals_per_s=60.0, drain_s=0.2
            )
        assert closed.whole.percentile_s(99) < 0.15
        assert opened.whole.percentile_s(90) > 0.4
        assert opened.queued.percentile_s(90) > 0.35

    on_loop(test)


def test_an_open_loop_begins_as_many_requests_as_its_rate_says() -> None:
    async def test() -> None:
        async with serving(whole(b"{}")) as (port, _):
            found = await measured(
                port, duration_s=1.0, is_streamed=False, arrivals_per_s=200.0, streams=50
            )
        assert 150 < found.started < 250
        assert found.finished == found.started

    on_loop(test)


def test_a_closed_loop_keeps_as_many_streams_as_it_is_told() -> None:
    async def test() -> None:
        async with serving(paced(tokens=1, gap_s=0.1)) as (port, _):
            found = await measured(port, streams=7, duration_s=0.55)
        assert 28 <= found.finished <= 42  # 7 at a time, 5 or 6 times
        assert {moment.in_flight for moment in found.moments} <= {7}

    on_loop(test)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        (whole(b"{}", b"503 Service Unavailable"), "HTTP 503"),
        (
            stream(token(), b'data: {"error":{"message":"no","code":"agent_lost"}}\n\n', DONE),
            "in the stream: agent_lost",
        ),
        (
            stream(b'data: {"error": {"message": "no", "code": 500}}\r\n\r\n', DONE),
            "in the stream: 500",
        ),
        (stream(token()), "the answer ended early"),
        ([HEAD, chunk(token()), b""], "connection lost"),
        ([b""], "connection lost"),
        ([HEAD, b"no size\r\n"], "not HTTP: invalid literal for int() with base 16: b'no size'"),
    ],
    ids=["refused", "told", "told otherwise", "early", "cut", "silent", "rubbish"],
)
def test_errors_are_counted_by_kind(pieces: Sequence[Piece], kind: str) -> None:
    async def test() -> None:
        async with serving(pieces) as (port, _):
            found = await measured(port, requests=2)
        assert found.errors == Counter({kind: 2})
        assert found.finished == 0

    on_loop(test)


def test_a_request_that_came_too_late_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.connection.PATIENCE_S", 0.0)  # any request is late
    answers = iter([[b""], [b""], stream(token(), DONE), [HEAD, chunk(token()), b""]])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.writelines(piece for piece in next(answers) if isinstance(piece, bytes))
        writer.close()

    async def test() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            found = await measured(server.sockets[0].getsockname()[1], streams=1, requests=2)
        assert (found.finished, found.errors) == (1, {"connection lost": 1})

    on_loop(test)


def test_a_server_that_hangs_up_again_and_again_has_lost_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.load.connection.PATIENCE_S", 0.0)
    asked = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.close()

    async def test() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            found = await measured(server.sockets[0].getsockname()[1], streams=1, requests=2)
        assert (found.finished, found.errors) == (0, {"connection lost": 2})
        assert asked == 2 * MAX_SENT

    on_loop(test)


def test_a_server_that_is_not_there_is_an_error_of_its_own_kind() -> None:
    async def test() -> None:
        async with serving([]) as (port, _):
            pass
        found = await measured(port, requests=1)
        assert found.errors == Counter({"cannot connect: Connection refused": 1})

    on_loop(test)


def test_an_answer_that_takes_too_long_times_out() -> None:
    async def test() -> None:
        async with serving(stream(token(), 30.0)) as (port, _):
            found = await measured(port, requests=1, timeout_s=0.2)
        assert found.errors == Counter({"timed out": 1})

    on_loop(test)


def test_what_is_under_way_at_the_end_is_cut_and_no_error() -> None:
    async def test() -> None:
        async with serving(stream(token(), 30.0)) as (port, _):
            found = await measured(port, streams=3, duration_s=0.3, drain_s=0.1)
        assert (found.cut, found.failed, found.finished) == (3, 0, 0)
        assert found.unanswered == 0
        assert found.tokens == 3

    on_loop(test)


def test_a_run_ends_even_if_its_timers_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    timeout = asyncio.timeout

    async def test() -> None:
        async with serving(stream(*[token()] * 1000, DONE)) as (port, _):
            # As on a machine where reading leaves no time for them.
            monkeypatch.setattr(asyncio, "timeout", lambda _: timeout(None))
            found = await measured(port, streams=3, duration_s=0.1, drain_s=0.0)
            monkeypatch.undo()
        assert found.failed == 0
        assert 1 <= found.cut <= 3

    on_loop(test)


def test_what_had_no_answer_yet_at_the_end_is_told_apart() -> None:
    async def test() -> None:
        async with serving([30.0]) as (port, _):
            found = await measured(port, streams=3, duration_s=0.3, drain_s=0.1)
        assert (found.cut, found.unanswered, found.failed) == (3, 3, 0)

    on_loop(test)


def test_an_answer_of_the_warm_up_that_breaks_later_is_an_error() -> None:
    async def test() -> None:
        async with serving([HEAD, chunk(token()), 0.5, b""]) as (port, _):
            found = await measured(port, requests=1, duration_s=30.0, warmup_s=0.2)
        assert found.errors == Counter({"connection lost": 1})

    on_loop(test)


def test_the_watched_process_is_measured_over_the_time_that_counts() -> None:
    async def test() -> None:
        async with serving(stream(token(), DONE)) as (port, _):
            found = await measured(
                port, duration_s=0.4, warmup_s=0.2, watched_pid=os.getpid(), drain_s=0.1
            )
        # This very process: what the run counts of itself, within the clocks' grain.
        assert found.watched_cpu_s == pytest.approx(found.cpu_s, abs=0.05)
        assert found.watched_cpu_s > 0

    on_loop(test)


def test_a_watched_process_that_is_not_there_is_told_as_nothing() -> None:
    async def test() -> None:
        async with serving(stream(token(), DONE)) as (port, _):
            found = await measured(port, requests=1, watched_pid=2**22 + 1)
        assert found.watched_cpu_s is None
        assert found.finished == 1

    on_loop(test)


def test_nothing_of_the_warm_up_is_counted() -> None:
    async def test() -> None:
        async with serving(paced(tokens=1, gap_s=0.02)) as (port, asked):
            found = await measured(port, duration_s=0.6, warmup_s=0.4)
        assert 0 < found.finished < len(asked) / 2

    on_loop(test)


def test_a_conversation_carries_each_answer_into_the_next_question() -> None:
    async def test() -> None:
        async with serving(stream(token(b"one"), token(b" two"), DONE)) as (port, asked):
            await measured(port, turns=3, requests=6)
        conversations = [json.loads(body)["messages"] for body in asked]
        assert [len(one) for one in conversations] == [1, 3, 5, 1, 3, 5]
        assert conversations[2][:3] == conversations[1]
        assert conversations[1][1] == {"role": "assistant", "content": "one two"}

    on_loop(test)


def test_prompts_of_a_group_open_alike_and_go_on_differently() -> None:
    async def test() -> None:
        async with serving(whole(b"{}")) as (port, asked):
            await measured(
                port,
                api=Api.COMPLETIONS,
                requests=20,
                shared_prefix=50,
                prefixes=2,
                is_streamed=False,
                prompt=parse_distribution("9"),
            )
        prompts = [json.loads(body)["prompt"].split() for body in asked]
        assert {len(words) for words in prompts} == {59}
        assert len({" ".join(words[:50]) for words in prompts}) == 2
        assert len({" ".join(words[50:]) for words in prompts}) == 20

    on_loop(test)


def test_the_age_of_stamped_tokens_is_measured() -> None:
    async def test() -> None:
        stamp = asyncio.get_running_loop().time() * 1e9 - 250e6
        async with serving(stream(token(b"x<t%d>" % stamp), DONE)) as (port, _):
            found = await measured(port, requests=1, are_stamped=True)
        assert found.age.count == 1
        assert 0.24 < found.age.percentile_s(50) < 0.5

    on_loop(test)
