import pytest

from paddler.agent.worker.prefix_cache import CopyPrice, Held, PrefixCache, Taken, common_prefix


@pytest.mark.parametrize(
    ("left", "right", "limit", "length"),
    [
        ([], [1], 9, 0),
        ([1, 2], [1, 2, 3], 9, 2),
        ([1, 2, 3], [1, 9, 3], 9, 1),
        ([1, 2, 3], [1, 2, 3], 2, 2),
        ([1], [1], 0, 0),
        ([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 9, 7], 9, 5),
        ([9, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7], 9, 0),
    ],
)
def test_common_prefix_ends_where_tokens_differ(
    left: list[int], right: list[int], limit: int, length: int
) -> None:
    assert common_prefix(left, right, limit=limit) == length


COPIES = CopyPrice(least_tokens=16, cells_for_a_token=100)


def cache_holding(
    *held: list[int], copies: CopyPrice | None = None, most_swapped: int = 0
) -> PrefixCache:
    cache = PrefixCache(len(held), copies=copies, most_swapped=most_swapped)
    for _ in held:
        cache.take([0])
    for slot, tokens in enumerate(held):
        cache.give_back(slot, tokens)
    return cache


def running(held: dict[int, list[int]]) -> dict[int, Held]:
    return {slot: Held(tokens, len(tokens)) for slot, tokens in held.items()}


def test_prompt_takes_the_slot_with_the_longest_common_prefix() -> None:
    assert cache_holding([1, 2], [1, 2, 3, 9], [7]).take([1, 2, 3, 4]) == Taken(1, 3, 1)


def test_last_prompt_token_is_always_decoded_again() -> None:
    assert cache_holding([1, 2, 3]).take([1, 2, 3]) == Taken(0, 2, 0)


def test_prompt_without_a_prefix_prefers_a_slot_that_holds_nothing() -> None:
    assert cache_holding([1, 2], [], [3]).take([9]) == Taken(1, 0, 1)


def test_prompt_without_a_prefix_takes_the_slot_unused_for_longest() -> None:
    cache = cache_holding([1, 2], [3], [4])
    cache.give_back(cache.take([1, 2, 5]).slot, [1, 2, 5])
    assert cache.take([9]) == Taken(1, 0, 1)


def test_prompt_that_starts_afresh_shares_nothing_and_spares_what_is_held() -> None:
    cache = cache_holding([1, 2, 3], [], [4])
    assert cache.take([1, 2, 3, 4], afresh=True) == Taken(1, 0, 1)
    assert cache.take([1, 2, 3, 4]) == Taken(0, 3, 0)
    assert cache.take([4, 5], afresh=True) == Taken(2, 0, 2)


def test_of_slots_that_hold_nothing_the_first_is_taken() -> None:
    cache = cache_holding([1], [], [])
    cache.give_back(cache.take([9]).slot, [])  # free for a shorter time than the next
    assert cache.take([9]) == Taken(1, 0, 1)


@pytest.mark.parametrize(
    ("holds", "length", "taken"),
    [
        (200, 16, Taken(1, 16, 0)),
        (200, 15, Taken(1, 0, 1)),
        (3000, 31, Taken(1, 31, 0)),
        (3000, 30, Taken(1, 0, 1)),  # all of it would be copied for those
    ],
    ids=str,
)
def test_what_slots_cannot_have_in_common_is_copied_if_that_is_worth_it(
    holds: int, length: int, taken: Taken
) -> None:
    held = [*range(holds)]
    prompt = [*held[:length], -1]
    free = PrefixCache(2, copies=COPIES)
    free.take([0])
    free.give_back(0, held)
    assert free.take(prompt) == taken
    in_use = PrefixCache(2, copies=COPIES)
    in_use.take([0])
    assert in_use.take(prompt, running=running({0: held})) == taken
    assert free.take([*held, -1]) == Taken(0, holds, 0)  # its own are no copy


def test_what_a_free_slot_holds_is_taken_where_a_copy_of_more_costs_more_than_that() -> None:
    held = [*range(200)]
    for more, taken in ((2, Taken(0, 100, 0)), (3, Taken(0, 103, 1))):
        cache = PrefixCache(2, copies=COPIES)
        assert [cache.take([0]).slot, cache.take([0]).slot] == [0, 1]
        cache.give_back(0, held[:100])
        assert cache.take([*held[: 100 + more], 1000], running=running({1: held})) == taken


def test_of_equal_beginnings_the_one_with_the_least_behind_it_is_copied() -> None:
    begin = [*range(24)]
    longer, shorter = [*begin, *[1000] * 3000], [*begin, *[2000] * 80]
    for held, source in (([longer, shorter, []], 1), ([shorter, longer, []], 0)):
        assert cache_holding(*held, copies=COPIES).take([*begin, -1]) == Taken(2, 24, source)


@pytest.mark.parametrize("free", [[*range(20), *[1000] * 3000], [0, *[1000] * 200], [1000]])
def test_a_copy_is_worth_it_beside_another_that_is_not(free: list[int]) -> None:
    cache = cache_holding(free, [], copies=COPIES)
    in_use = running({5: [*range(200)]})
    assert cache.take([*range(30), -1], running=in_use) == Taken(1, 30, 5)


def test_all_cells_of_a_slot_in_use_count_for_a_copy() -> None:
    begin = [*range(24)]
    for cells, shared in ((2399, 24), (2400, 0)):
        in_use = {5: Held(begin, cells)}
        cache = cache_holding([], copies=COPIES)
        assert cache.take([*begin, -1], running=in_use).shared == shared


@pytest.mark.parametrize(
    ("known", "cells", "shared"),
    [(0, 40, 40), (24, 40, 40), (25, 40, 0), (40, 40, 0), (20, 1999, 40), (20, 2000, 0)],
    ids=str,
)
def test_a_slot_in_use_finds_what_is_worth_a_copy_beside_what_it_has(
    known: int, cells: int, shared: int
) -> None:
    begin = [*range(40)]
    cache = cache_holding([7], copies=COPIES)
    in_use = {3: Held(begin[:known], known), 4: Held(begin, cells)}
    assert cache.find([*begin, -1], running=in_use, known=known)[1] == shared


def test_a_traded_slot_has_been_free_as_long_as_the_one_in_its_place() -> None:
    cache = cache_holding([1], [2], [3])
    assert cache.take([9]).slot == 0
    cache.trade(0, 1, is_moved=True)
    assert sorted(cache.free_slots) == [0, 2]
    assert cache.held(0) == [2]
    assert cache.take([9]) == Taken(0, 0, 0)


def test_a_traded_slot_holds_nothing_if_nothing_was_moved() -> None:
    cache = cache_holding([1], [2], [3])
    assert cache.take([9]).slot == 0
    cache.trade(0, 2, is_moved=False)
    assert {slot: cache.held(slot) for slot in cache.free_slots} == {0: [], 1: [2]}


LONG = [*range(100, 200)]


def test_another_conversation_is_kept_where_an_empty_slot_can_share_its_beginning() -> None:
    cache = cache_holding([1, 2, *LONG], [])
    assert cache.take([1, 2, 3]) == Taken(1, 2, 0)
    assert cache.take([1, 2, *LONG, 3]) == Taken(0, 102, 0)


def test_next_turn_of_a_conversation_takes_its_slot_over() -> None:
    assert cache_holding([1, 2, 3, 4, 5], []).take([1, 2, 3, 4, 6, 7]) == Taken(0, 4, 0)


def test_another_conversation_gives_way_where_no_slot_is_empty() -> None:
    assert cache_holding([1, 2, *LONG], [7]).take([1, 2, 3]) == Taken(0, 2, 0)


@pytest.mark.parametrize(
    ("held", "taken"),
    [
        ([[7], []], Taken(1, 3, 5)),  # an empty slot
        ([[7], [8]], Taken(0, 3, 5)),  # the one unused for longest
        ([[1, 2], [7]], Taken(0, 3, 5)),
        ([[7], [1, 2, 3]], Taken(1, 3, 1)),  # a free one has as much
    ],
)
def test_a_slot_in_use_shares_what_it_holds(held: list[list[int]], taken: Taken) -> None:
    in_use = running({4: [1, 2], 5: [1, 2, 3, 4]})
    assert cache_holding(*held).take([1, 2, 3, 9], running=in_use) == taken


def test_a_slot_in_use_shares_nothing_where_no_part_can_be_kept() -> None:
    cache = PrefixCache(1, keeps_parts=False)
    assert cache.take([1, 2, 3], running=running({4: [1, 2]})) == Taken(0, 0, 0)


def test_all_slots_taken_leaves_none_free() -> None:
    cache = PrefixCache(1)
    assert cache.has_free_slot
    cache.take([1])
    assert not cache.has_free_slot


def test_forgetting_starts_with_the_slot_unused_for_longest() -> None:
    cache = cache_holding([], [1], [2])
    assert [cache.forget_oldest() for _ in range(3)] == [1, 2, None]
    assert cache.take([2, 3]).shared == 0


def test_slots_in_use_are_never_forgotten() -> None:
    cache = cache_holding([1, 2])
    cache.take([1, 2, 3])
    assert cache.forget_oldest() is None


@pytest.mark.parametrize(
    ("prompt", "taken"),
    [
        ([1, 2, 9, 9], Taken(0, 2, 0)),
        ([1, 2, 3, 4, 9], Taken(1, 4, 1)),
        ([1, 2, 3, 4], Taken(0, 2, 0)),
        ([1, 9], Taken(2, 0, 2)),
    ],
)
def test_part_of_a_slot_counts_for_nothing_where_none_can_be_kept(
    prompt: list[int], taken: Taken
) -> None:
    cache = PrefixCache(3, keeps_parts=False)
    for _ in range(3):
        cache.take([0])
    for slot, held in enumerate([[1, 2], [1, 2, 3, 4], []]):
        cache.give_back(slot, held)
    assert cache.take(prompt) == taken


def swap_all(cache: PrefixCache, *, least: int = 1) -> list[int]:
    """Swap out as much as can be; the slots."""
    swapped = []
    while (slot := cache.next_to_swap(least=least)) is not None:
        assert cache.forget_for(slot) == []
        cache.set_swapped(slot)
        swapped.append(slot)
    return swapped


def test_the_longest_is_swapped_out_first_and_short_ones_are_not() -> None:
    assert swap_all(cache_holding([1] * 3, [1] * 9, [1], [], most_swapped=99), least=2) == [1, 0]


def test_what_was_swapped_out_first_makes_room_for_more() -> None:
    cache = cache_holding([1] * 6, [2] * 3, [3] * 5, [4] * 1, most_swapped=10)
    for slot, forgotten in ((0, []), (1, []), (3, []), (2, [0])):
        assert cache.forget_for(slot) == forgotten
        cache.set_swapped(slot)
    assert [cache.is_swapped(slot) for slot in range(4)] == [False, True, True, True]


def test_what_is_swapped_out_is_found_and_takes_no_room() -> None:
    cache = cache_holding(LONG, [4], most_swapped=200)
    assert swap_all(cache, least=2) == [0]
    assert cache.forget_oldest() == 1
    assert cache.forget_oldest() is None
    assert cache.take([*LONG, 1]) == Taken(0, 100, 0, is_swapped=True)
    assert not cache.is_swapped(0)


def test_what_is_swapped_out_is_brought_in_only_if_that_is_worth_it() -> None:
    cache = cache_holding([*LONG, 1, 2, 3], [], [], most_swapped=200)
    assert swap_all(cache) == [0]
    prompt = [*LONG, 1, 2, 3, 4]
    assert cache.take(prompt, running=running({5: LONG[:39]})) == Taken(0, 103, 0, is_swapped=True)
    cache = cache_holding([*LONG, 1, 2, 3], [], [], most_swapped=200)
    assert swap_all(cache) == [0]
    assert cache.take(prompt, running=running({5: LONG[:40]})) == Taken(1, 40, 5)
    assert cache.take(LONG[:60]) == Taken(2, 0, 2)


@pytest.mark.parametrize("afresh", [True, False])
def test_nothing_is_brought_in_for_who_shares_nothing(afresh: bool) -> None:
    cache = cache_holding(LONG, most_swapped=100)
    assert swap_all(cache) == [0]
    assert cache.take([*LONG, 1] if afresh else [1, 2], afresh=afresh) == Taken(0, 0, 0)


def test_a_slot_that_comes_back_can_be_swapped_out_again() -> None:
    cache = cache_holding(LONG, most_swapped=100)
    for _ in range(2):
        assert swap_all(cache) == [0]
        cache.give_back(cache.take(LONG).slot, LONG)
