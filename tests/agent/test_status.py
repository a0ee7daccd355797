"""What the agent says of itself, and when."""

from paddler.agent.status import StatusBoard
from paddler.messages.agents import AgentIssue, AgentStatus, ModelPath, SlotError

MISSING = AgentIssue(model_file_does_not_exist=ModelPath("/m"))
LOCKED_A = AgentIssue(cache_cannot_acquire_lock=ModelPath("a"))
LOCKED_B = AgentIssue(cache_cannot_acquire_lock=ModelPath("b"))
SLOT = AgentIssue(slot_cannot_start=SlotError("no memory", 0))


def test_changes_are_told_once() -> None:
    board = StatusBoard(4)
    told: list[AgentStatus] = []
    board.watch(told.append)
    board.change(slots_total=4)
    board.change(slots_total=4)
    assert told == [AgentStatus(desired_slots_total=4, slots_total=4)]
    assert board.status == told[0]


def test_issues_of_files_and_worker_stand_side_by_side_in_their_order() -> None:
    board = StatusBoard(4)
    board.change_issues("worker", (SLOT, MISSING))
    board.change_issues("files", (LOCKED_B, LOCKED_A, MISSING), slots_total=1)
    assert board.status.issues == (LOCKED_A, LOCKED_B, MISSING, SLOT)
    assert board.status.slots_total == 1
    board.change_issues("worker", ())
    assert board.status.issues == (LOCKED_A, LOCKED_B, MISSING)
    board.change_issues("files", ())
    assert board.status.issues == ()


def test_slots_stand_in_the_order_of_their_numbers() -> None:
    board = StatusBoard(257)
    slots = [AgentIssue(slot_cannot_start=SlotError("no room", n)) for n in range(257)]
    board.change_issues("worker", tuple(reversed(slots)))
    assert board.status.issues == tuple(slots)


def test_issues_that_stay_are_told_once() -> None:
    board = StatusBoard(4)
    told: list[AgentStatus] = []
    board.watch(told.append)
    board.change_issues("files", (MISSING,))
    board.change_issues("files", (MISSING,))
    assert len(told) == 1
