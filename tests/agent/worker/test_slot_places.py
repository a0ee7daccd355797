import pytest

from paddler.agent.worker.slot_places import MOST_MOVED_TOKENS, best_place


@pytest.mark.parametrize(
    ("slot", "free", "busy", "place"),
    [
        pytest.param(5, {0: 0, 1: 0}, [], 5, id="nobody is busy"),
        pytest.param(5, {1: 9, 3: 0}, [0], 1, id="beside another"),
        pytest.param(5, {2: 9, 6: 0}, [0, 1, 3, 4], 2, id="between others"),
        pytest.param(5, {0: 0, 2: 0, 6: 0}, [3, 4], 5, id="it is beside others already"),
        pytest.param(5, {0: 0, 9: 0}, [3, 7], 5, id="all are alone"),
        pytest.param(9, {6: 8, 4: 7, 2: 8}, [3, 5], 4, id="between two"),
        pytest.param(9, {6: 7, 2: 7}, [3, 5], 2, id="the first of equals"),
        pytest.param(9, {6: 7, 2: 8}, [3, 5], 6, id="the one that holds least"),
        pytest.param(9, {2: MOST_MOVED_TOKENS}, [3], 2, id="not too much to move"),
        pytest.param(9, {2: MOST_MOVED_TOKENS + 1}, [3], 9, id="too much to move"),
    ],
)
def test_busy_slots_stay_in_few_runs(
    slot: int, free: dict[int, int], busy: list[int], place: int
) -> None:
    assert best_place(slot, free, busy) == place
