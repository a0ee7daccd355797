"""Which of the free slots a request is best served in, where each slot has cells of its own.

llama.cpp decodes slots at once whose numbers follow one another: those of a step are as many
passes over the weights as they are runs. (SmolLM2-135M, 8 of 16 slots busy, two threads: 42 ms a
step in one run, 77 ms with an idle slot behind each.)
"""

from collections.abc import Container, Mapping
from typing import Final

# What a slot holds is moved if it is no more than this: longer than some passes over the weights
# a move, for which all answers wait, shall not take.
MOST_MOVED_TOKENS: Final = 4096


def best_place(slot: int, free: Mapping[int, int], busy: Container[int]) -> int:
    """``slot``, or the free one with which the busy slots are in fewer runs.

    ``free``: how many tokens each holds, which would have to be moved to ``slot``.
    """

    def cost(place: int) -> tuple[int, int]:
        added_runs = 1 - (place - 1 in busy) - (place + 1 in busy)
        return added_runs, free[place] if place != slot else -1  # nothing is moved

    places = [place for place in sorted(free) if free[place] <= MOST_MOVED_TOKENS]
    return min((slot, *places), key=cost)
