import asyncio

import msgspec
import pytest

from paddler.agent.jobs import Jobs
from paddler.messages import link as wire
from paddler.messages.inference import ContinueFromRawPrompt
from paddler.messages.link import FRAME_FINAL, FRAME_HEADER, FrameKind


class Recorder:
    """Plays worker and link, and remembers."""

    def __init__(self) -> None:
        self.to_worker: list[wire.FromBalancer] = []
        self.resets = 0
        self.to_balancer: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.to_worker.append(wire.decode_from_balancer(message))

    def reset(self) -> None:
        self.resets += 1

    def send_data(self, message: bytes) -> None:
        self.to_balancer.append(message)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def jobs(recorder: Recorder) -> Jobs:
    jobs = Jobs()
    jobs.connect(recorder, recorder)
    jobs.open_intake()
    return jobs


def start(stream_id: int) -> wire.StartStream:
    job = wire.RawPromptJob(ContinueFromRawPrompt(raw_prompt="x", max_tokens=1))
    return wire.StartStream(stream_id=stream_id, job=job)


def returned(message: bytes) -> dict[int, str]:
    """Stream ids and reasons of the frames that hand requests back."""
    found = {}
    while message:
        stream_id, kind, flags, _, length = FRAME_HEADER.unpack_from(message)
        assert (kind, flags) == (FrameKind.RETURNED, FRAME_FINAL)
        body = message[FRAME_HEADER.size : FRAME_HEADER.size + length]
        found[stream_id] = msgspec.json.decode(body)["reason"]
        message = message[FRAME_HEADER.size + length :]
    return found


def test_a_request_goes_to_the_worker(jobs: Jobs, recorder: Recorder) -> None:
    jobs.start(start(1))
    assert recorder.to_worker == [start(1)]
    assert len(jobs) == 1


def test_a_request_is_handed_back_while_nothing_serves(recorder: Recorder) -> None:
    jobs = Jobs()
    jobs.connect(recorder, recorder)
    jobs.start(start(1))
    jobs.open_intake()
    jobs.close_intake("swapping")
    jobs.start(start(2))
    assert [returned(m) for m in recorder.to_balancer] == [
        {1: "no model is loaded"},
        {2: "swapping"},
    ]
    assert recorder.to_worker == []
    assert len(jobs) == 0


def test_only_open_streams_are_stopped(jobs: Jobs, recorder: Recorder) -> None:
    jobs.start(start(1))
    jobs.stop(wire.StopStream(1))
    jobs.stop(wire.StopStream(2))
    assert recorder.to_worker[1:] == [wire.StopStream(1)]


def test_data_is_passed_on_as_it_is_and_finished_streams_are_forgotten(
    jobs: Jobs, recorder: Recorder
) -> None:
    jobs.start(start(1))
    jobs.start(start(2))
    jobs.on_worker_data(b"data", (1,))
    assert recorder.to_balancer == [b"data"]
    assert len(jobs) == 1


def test_a_dead_workers_requests_are_handed_back(jobs: Jobs, recorder: Recorder) -> None:
    jobs.start(start(1))
    jobs.start(start(2))
    jobs.on_worker_data(b"data", (1,))
    jobs.on_worker_gone("killed")
    assert returned(recorder.to_balancer[1]) == {2: "killed"}
    assert len(jobs) == 0
    jobs.on_worker_gone("killed")
    assert len(recorder.to_balancer) == 2


def test_a_lost_link_ends_what_runs(jobs: Jobs, recorder: Recorder) -> None:
    jobs.start(start(1))
    jobs.on_link_lost()
    jobs.on_link_lost()
    assert recorder.resets == 1
    assert len(jobs) == 0


def test_idle_is_reached_when_the_last_stream_ends(jobs: Jobs) -> None:
    async def test() -> None:
        await jobs.wait_idle()
        jobs.start(start(1))
        waiting = asyncio.create_task(jobs.wait_idle())
        await asyncio.sleep(0)
        assert not waiting.done()
        jobs.on_worker_data(b"data", (1,))
        await waiting

    asyncio.run(test())
