from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from paddler.balancer.chronicle import MAX_REFUSALS, Chronicle
from paddler.balancer.journal import Event, Journal
from paddler.balancer.pool import Pool
from paddler.balancer.records import RequestOutcome
from paddler.messages.agents import AgentDetails, AgentIssue, AgentStatus, ModelPath, SlotError
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.balancer.test_measures import record
from tests.balancer.test_pool import Link

ISSUE = AgentIssue(model_file_does_not_exist=ModelPath("/a"))
STATUS = AgentStatus(desired_slots_total=1)


class Stage:
    """A pool whose changes are written down."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.chronicle = Chronicle(self.journal)
        self.pool: Pool[Link] = Pool(listener=self.chronicle)

    def join(self, **status: Any) -> Any:
        reported = msgspec.structs.replace(STATUS, **status)
        return self.pool.join("id-1", "gpu-1", reported, Link(), address="10.0.0.1")

    def new(self, act: Callable[[], object]) -> list[Event]:
        """The events that ``act`` makes."""
        last_id = self.journal.last_id
        act()
        return self.journal.after(last_id)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_agents_come_and_go() -> None:
    stage = Stage()
    (joined,) = stage.new(stage.join)
    assert (joined.kind, joined.agent_id, joined.agent_name) == ("agent_joined", "id-1", "gpu-1")
    assert joined.detail == {"address": "10.0.0.1"}
    agent = stage.pool.agents[0]
    (left,) = stage.new(lambda: stage.pool.leave(agent, "timed out"))
    assert (left.kind, left.text) == ("agent_left", 'agent "gpu-1" left: timed out')


def test_an_issue_is_raised_and_cleared_once() -> None:
    stage = Stage()
    agent = stage.join()

    def report(*issues: AgentIssue) -> None:
        stage.pool.update(agent, msgspec.structs.replace(agent.status, issues=issues))

    (raised,) = stage.new(lambda: report(ISSUE))
    assert raised.kind == "issue_raised"
    assert raised.detail == {"issue": {"ModelFileDoesNotExist": {"model_path": "/a"}}, "count": 1}
    assert stage.new(lambda: report(ISSUE)) == []
    (cleared,) = stage.new(report)
    assert cleared.kind == "issue_cleared"
    assert cleared.text == 'agent "gpu-1" is rid of the issue ModelFileDoesNotExist'


def test_what_each_slot_suffers_from_is_one_event() -> None:
    stage = Stage()
    slots = [AgentIssue(slot_cannot_start=SlotError("no room", n)) for n in range(257)]
    _, raised, other = stage.new(lambda: stage.join(issues=(*slots, ISSUE)))
    assert raised.text == 'agent "gpu-1" has the issue SlotCannotStart, 257 times'
    first = {"SlotCannotStart": {"error": "no room", "slot_index": 0}}
    assert raised.detail == {"issue": first, "count": 257}
    assert other.text == 'agent "gpu-1" has the issue ModelFileDoesNotExist'


def test_what_an_agent_brings_along_is_written_down_too() -> None:
    stage = Stage()
    events = stage.new(lambda: stage.join(issues=(ISSUE,), model_path="/m.gguf"))
    assert kinds(events) == ["agent_joined", "issue_raised", "model_loaded"]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"model_path": "/m"}, "model_loaded", 'agent "gpu-1" loaded /m'),
        ({"state_application_status": "Stuck"}, "agent_status", 'agent "gpu-1" is Stuck'),
    ],
)
def test_a_status_that_changes_is_told(change: dict[str, Any], kind: str, text: str) -> None:
    stage = Stage()
    agent = stage.join()
    changed = msgspec.structs.replace(STATUS, **change)
    (event,) = stage.new(lambda: stage.pool.update(agent, changed))
    assert (event.kind, event.text) == (kind, text)


def test_a_model_that_is_unloaded_is_told() -> None:
    stage = Stage()
    agent = stage.join(model_path="/m")
    (event,) = stage.new(lambda: stage.pool.update(agent, STATUS))
    assert (event.kind, event.text) == ("model_unloaded", 'agent "gpu-1" unloaded /m')


def test_a_worker_that_was_started_again_is_told() -> None:
    stage = Stage()
    agent = stage.join()

    def describe(restarts: int) -> None:
        details = AgentDetails(host="h", started_at=0.0, worker_restarts=restarts)
        stage.pool.describe(agent, details)

    # What happened before this balancer saw the agent is no news.
    assert stage.new(lambda: describe(3)) == []
    (event,) = stage.new(lambda: describe(4))
    assert (event.kind, event.detail) == ("worker_restarted", {"restarts": 4})
    assert stage.new(lambda: describe(4)) == []


def test_agents_that_share_too_few_cores_are_told_once() -> None:
    stage = Stage()
    one, two = (
        stage.pool.join(agent_id, agent_id, STATUS, Link()) for agent_id in ("id-1", "id-2")
    )

    def describe(agent: Any, *cores: int, host: str = "box") -> None:
        details = AgentDetails(host=host, started_at=0.0, threads=2, cores=cores)
        stage.pool.describe(agent, details)

    assert stage.new(lambda: describe(one, 0, 1)) == []
    assert stage.new(lambda: describe(two, 2, 3)) == []
    (event,) = stage.new(lambda: describe(two, 1, 2))
    assert event.kind == "host_oversubscribed"
    assert event.text.startswith("2 agents on host box compute with 4 threads on 3 cores")
    assert stage.new(lambda: describe(two, 1, 2)) == []
    stage.pool.leave(two)
    elsewhere = stage.pool.join("id-3", "id-3", STATUS, Link())
    assert stage.new(lambda: describe(elsewhere, 1, 2, host="other")) == []
    again = stage.pool.join("id-2", "id-2", STATUS, Link())
    assert kinds(stage.new(lambda: describe(again, 1, 2))) == ["host_oversubscribed"]


def test_agents_that_are_not_let_in_are_told_once_each_and_forgotten_in_the_end() -> None:
    stage = Stage()

    def refuse(agent_id: str) -> bool:
        return stage.chronicle.on_refused(agent_id, None, "too old")

    (event,) = stage.new(lambda: refuse("id-0"))
    assert (event.kind, event.text) == ("agent_refused", "unnamed agent was refused: too old")
    assert not refuse("id-0")
    for number in range(1, MAX_REFUSALS + 1):
        assert refuse(f"id-{number}")
    assert refuse("id-0")


def test_who_changed_the_state_is_told() -> None:
    stage = Stage()
    (event,) = stage.new(lambda: stage.chronicle.on_state(DEFAULT_DESIRED_STATE, "10.0.0.9"))
    assert (event.kind, event.detail) == ("state_changed", {"by": "10.0.0.9", "model": "None"})


def test_refused_requests_are_summed() -> None:
    stage = Stage()
    for outcome in (
        RequestOutcome.LINE_FULL,
        RequestOutcome.LINE_FULL,
        RequestOutcome.WAITED_TOO_LONG,
        RequestOutcome.COMPLETED,
    ):
        stage.chronicle.on_record(record(outcome=outcome))
    (event,) = stage.new(stage.chronicle.sum_refusals)
    assert event.text == (
        "3 requests were refused: 2 found the buffer full, 1 waited too long for a slot"
    )
    assert event.detail == {"line_full": 2, "waited_too_long": 1}
    assert stage.new(stage.chronicle.sum_refusals) == []
