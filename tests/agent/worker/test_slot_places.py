from collections.abc import Iterable

import pytest

from paddler.agent.worker.slot_places import best_place


@pytest.mark.parametrize(
    ("slot", "free", "busy", "place"),
    [
        pytest.param(5, [0, 1], [], 5, id="nobody is busy"),
        pytest.param(5, [1, 3], [0], 1, id="beside another"),
        pytest.param(5, [2, 6], [0, 1, 3, 4], 2, id="between others"),
        pytest.param(5, [0, 2, 6], [3, 4], 5, id="it is beside others already"),
        pytest.param(5, [0, 9], [3, 7], 5, id="all are alone"),
        pytest.param(9, [6, 2], [3, 5], 2, id="the first of equals"),
    ],
)
def test_busy_slots_stay_in_few_runs(
    slot: int, free: Iterable[int], busy: list[int], place: int
) -> None:
    assert best_place(slot, free, busy) == place
