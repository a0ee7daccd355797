import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.batch import (
    NO_TOKEN,
    TILE_TOKENS,
    BatchSequence,
    Phase,
    PlacedImage,
    PrefillPace,
    fair_shares,
    plan_step,
    shares_of,
)


def prefilling(slot: int, tokens: int, *, served_step: int = 0) -> BatchSequence:
    sequence = BatchSequence(slot, [0] * tokens)
    sequence.served_step = served_step
    return sequence


def decoding(slot: int, *, served_step: int = 0) -> BatchSequence:
    sequence = BatchSequence(slot, [0] * 4)
    sequence.advance(4, served_step)
    sequence.append(1)
    return sequence


def planned(
    sequences: list[BatchSequence], *, n_batch: int = 100, beside: int = 50, alone: int = 100
) -> list[tuple[int, int]]:
    chunks = plan_step(
        sequences, n_batch=n_batch, max_prefill_beside_decode=beside, max_prefill_alone=alone
    )
    return [(chunk.sequence.slot, chunk.tokens) for chunk in chunks]


@pytest.mark.parametrize(
    ("wants", "budget", "shares"),
    [
        ([], 10, []),
        ([3], 10, [3]),
        ([30], 10, [10]),
        ([30, 30], 10, [5, 5]),
        ([2, 30, 30], 12, [2, 5, 5]),
        ([30, 1, 4], 12, [7, 1, 4]),
        ([30, 30, 30], 10, [3, 3, 4]),
        ([5, 5], 2, [1, 1]),
    ],
)
def test_fair_shares_give_what_short_ones_leave_to_long_ones(
    wants: list[int], budget: int, shares: list[int]
) -> None:
    assert fair_shares(wants, budget) == shares


def cuts(tokens: int, budgets: list[int], *, n_batch: int = 512) -> list[int]:
    """How a repeatable prompt is cut, on a machine whose speed changes."""
    sequence = BatchSequence(0, [0] * tokens, is_repeatable=True)
    sizes = []
    while sequence.pending:
        alone = budgets[len(sizes) % len(budgets)]
        ((_, size),) = planned([sequence], n_batch=n_batch, beside=n_batch, alone=alone)
        sequence.advance(size, 1)
        sizes.append(size)
    return sizes


@pytest.mark.parametrize(
    ("tokens", "budget", "sizes"),
    [
        (1, 512, [1]),
        (63, 512, [63]),
        (64, 512, [64]),
        (200, 512, [192, 8]),
        (200, 150, [128, 64, 8]),
        (100, 16, [64, 16, 16, 4]),
    ],
)
def test_a_repeatable_prompt_is_cut_into_tiles_and_a_rest(
    tokens: int, budget: int, sizes: list[int]
) -> None:
    assert cuts(tokens, [budget]) == sizes


@given(
    tokens=st.integers(1, 700),
    budgets=st.lists(st.integers(16, 512), min_size=1, max_size=5),
    n_batch=st.integers(2, 512),
)
def test_each_token_of_a_repeatable_prompt_is_in_a_tile_or_not_at_any_speed(
    tokens: int, budgets: list[int], n_batch: int
) -> None:
    def in_tiles(budgets: list[int]) -> list[bool]:
        sizes = cuts(tokens, [min(budget, n_batch) for budget in budgets], n_batch=n_batch)
        assert sum(sizes) == tokens
        return [size >= TILE_TOKENS for size in sizes for _ in range(size)]

    assert in_tiles(budgets) == in_tiles([n_batch])


def test_a_repeatable_prompt_shares_a_batch_like_any_other() -> None:
    sequence = BatchSequence(0, [0] * 90, is_repeatable=True)
    assert planned([sequence, decoding(1)], beside=50) == [(1, 1), (0, 50)]
    assert planned([sequence, prefilling(1, 90)]) == [(0, 87), (1, 13)]


@given(wants=st.lists(st.integers(1, 50), max_size=8), extra=st.integers(0, 100))
def test_fair_shares_are_max_min_fair(wants: list[int], extra: int) -> None:
    budget = len(wants) + extra
    shares = fair_shares(wants, budget)
    assert sum(shares) == min(budget, sum(wants))
    assert all(1 <= share <= want for share, want in zip(shares, wants, strict=True))
    cut = [share for share, want in zip(shares, wants, strict=True) if share < want]
    assert not cut or max(shares) - min(cut) <= 1


@pytest.mark.parametrize(
    ("wants", "budget", "shares"),
    [
        ([], 10, []),
        ([3], 10, [3]),
        ([30], 10, [10]),
        ([30, 30], 16, [14, 2]),
        ([30, 29], 16, [2, 14]),
        ([30, 1, 4], 12, [7, 1, 4]),
        ([30, 30, 30], 48, [30, 14, 4]),
        ([5, 5], 2, [1, 1]),
        ([5, 5, 4], 4, [1, 1, 2]),
    ],
)
def test_shares_bring_who_is_nearest_to_the_end_there_first(
    wants: list[int], budget: int, shares: list[int]
) -> None:
    assert shares_of(wants, budget) == shares


@given(wants=st.lists(st.integers(1, 50), max_size=8), extra=st.integers(0, 100))
def test_shares_waste_nothing_and_starve_nobody(wants: list[int], extra: int) -> None:
    budget = len(wants) + extra
    shares = shares_of(wants, budget)
    assert sum(shares) == min(budget, sum(wants))
    for share, want in zip(shares, wants, strict=True):
        assert min(want, max(1, budget // 4 // len(wants))) <= share <= want


def test_prompts_that_outnumber_answers_may_let_them_wait_longer() -> None:
    def beside(answers: int, prompts: int) -> int:
        sequences = [decoding(slot) for slot in range(answers)]
        sequences += [prefilling(slot, 200) for slot in range(answers, answers + prompts)]
        chunks = planned(sequences, n_batch=512, beside=50, alone=130)
        return sum(tokens for _, tokens in chunks[answers:])

    assert [beside(2, prompts) for prompts in (1, 2, 3, 4, 6)] == [50, 50, 75, 100, 130]
    assert beside(3, 1) == 50


@pytest.mark.parametrize(
    ("decoded", "ready", "answers", "limits", "expected"),
    [
        pytest.param(256, 200, 3, {}, 64, id="a tile"),
        pytest.param(255, 200, 3, {}, 20, id="not behind few cells"),
        pytest.param(256, 63, 3, {}, 20, id="not if there are too few tokens"),
        pytest.param(256, 64, 3, {}, 64, id="if there are just enough"),
        pytest.param(256, 200, 3, {"alone": 63}, 20, id="not on a machine so slow"),
        pytest.param(256, 200, 3, {"n_batch": 66}, 20, id="not if the batch is smaller"),
        pytest.param(256, 200, 3, {"beside": 90}, 90, id="not less than without"),
    ],
)
def test_a_long_prompt_beside_answers_fills_a_tile(
    decoded: int, ready: int, answers: int, limits: dict[str, int], expected: int
) -> None:
    sequences = [decoding(slot) for slot in range(answers)]
    long = BatchSequence(answers, [0] * (decoded + ready), cached=decoded)
    chunks = planned([*sequences, long], **({"beside": 20, "n_batch": 512, "alone": 256} | limits))
    assert chunks[answers:] == [(answers, expected)]


def test_a_tile_goes_to_the_prompt_nearest_to_its_end_and_what_is_left_to_the_next() -> None:
    prompts = [BatchSequence(slot, [0] * (300 + n), cached=300) for slot, n in enumerate((90, 50))]
    assert planned([*prompts, decoding(2)], beside=20) == [(2, 1), (1, 50), (0, 14)]


@pytest.mark.parametrize("answers", [0, 1])
def test_a_batch_of_tiles_is_not_split_among_long_prompts(answers: int) -> None:
    running = [decoding(slot) for slot in range(answers)]
    prompts = [BatchSequence(slot, [0] * 900, cached=300) for slot in range(answers, answers + 3)]
    for sequence in prompts:
        sequence.wait_from(1)
    chunks = planned([*running, *prompts], n_batch=512, beside=70, alone=210)
    assert chunks[answers:] == [(answers, 210)]


def test_prompts_take_turns_with_a_quarter_of_the_tiles() -> None:
    served: list[int] = []
    running = [decoding(0)]
    running += [BatchSequence(slot, [0] * 10_000 * slot, cached=300) for slot in (1, 2, 3)]
    for step in range(1, 101):
        chunks = plan_step(
            running, n_batch=512, max_prefill_beside_decode=20, max_prefill_alone=256
        )
        for chunk in chunks[1:]:
            chunk.sequence.advance(chunk.tokens, step)
            served.append(chunk.sequence.slot)
    assert len(served) == 100
    assert served.count(2) == pytest.approx(100 / 12, abs=2)
    assert served.count(3) == pytest.approx(100 / 12, abs=2)


def test_a_long_prompt_is_not_starved_by_newcomers() -> None:
    answer, long = decoding(0), BatchSequence(1, [0] * 2000, cached=300)
    steps_of_long = []
    for step in range(1, 101):
        newcomer = BatchSequence(2, [0] * 64)
        newcomer.wait_from(step - 1)  # as one that came just now
        chunks = plan_step(
            [answer, long, newcomer],
            n_batch=512,
            max_prefill_beside_decode=16,
            max_prefill_alone=256,
        )
        for chunk in chunks[1:]:
            chunk.sequence.advance(chunk.tokens, step)
            if chunk.sequence is long:
                steps_of_long.append(step)
    assert steps_of_long[:3] == [9, 18, 27]


@pytest.mark.parametrize("tokens", [200, 255, 256])
def test_what_newcomers_leave_of_a_batch_is_not_the_turn_of_a_long_prompt(tokens: int) -> None:
    long = BatchSequence(1, [0] * 3300, cached=300)
    for step in range(1, 101):
        newcomer = BatchSequence(2, [0] * tokens)
        newcomer.wait_from(step - 1)
        chunks = plan_step(
            [long, newcomer], n_batch=512, max_prefill_beside_decode=16, max_prefill_alone=256
        )
        for chunk in chunks:
            chunk.sequence.advance(chunk.tokens, step)
        if not long.pending:
            break
    assert long.pending == 0


def test_sequence_prefills_until_its_prompt_is_decoded() -> None:
    sequence = BatchSequence(0, [1, 2, 3, 4, 5], cached=2)
    assert (sequence.phase, sequence.pending) == (Phase.PREFILL, 3)
    sequence.advance(2, 1)
    assert (sequence.phase, sequence.pending) == (Phase.PREFILL, 1)
    sequence.advance(1, 2)
    assert (sequence.phase, sequence.pending) == (Phase.DECODE, 0)
    sequence.append(6)
    assert (sequence.phase, sequence.pending) == (Phase.DECODE, 1)


def test_chunk_is_last_when_nothing_is_pending_after_it() -> None:
    sequence = prefilling(0, 10)
    (first,) = plan_step([sequence], n_batch=6, max_prefill_beside_decode=6, max_prefill_alone=6)
    sequence.advance(first.tokens, 1)
    (second,) = plan_step([sequence], n_batch=6, max_prefill_beside_decode=6, max_prefill_alone=6)
    assert (first.is_last, second.is_last) == (False, True)


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        pytest.param([], [], id="nothing runs"),
        pytest.param([prefilling(0, 200)], [(0, 100)], id="a lone prompt takes the batch"),
        pytest.param([decoding(0), decoding(1)], [(0, 1), (1, 1)], id="one token per answer"),
        pytest.param([prefilling(0, 9), decoding(1)], [(1, 1), (0, 9)], id="decode goes first"),
        pytest.param([prefilling(0, 200), decoding(1)], [(1, 1), (0, 50)], id="answers wait less"),
        pytest.param(
            [prefilling(0, 200), prefilling(1, 10)], [(0, 90), (1, 10)], id="short prompts finish"
        ),
        pytest.param(
            [prefilling(0, 200), prefilling(1, 200)], [(0, 87), (1, 13)], id="one after the other"
        ),
    ],
)
def test_step_holds(sequences: list[BatchSequence], expected: list[tuple[int, int]]) -> None:
    assert planned(sequences) == expected


def test_step_keeps_a_place_for_a_prompt_when_answers_fill_the_batch() -> None:
    sequences = [decoding(slot) for slot in range(4)] + [prefilling(4, 10)]
    assert planned(sequences, n_batch=4) == [(0, 1), (1, 1), (2, 1), (4, 1)]


def test_step_serves_first_who_was_served_longest_ago() -> None:
    sequences = [
        decoding(0, served_step=3),
        decoding(1, served_step=2),
        prefilling(2, 10, served_step=3),
        prefilling(3, 10, served_step=1),
    ]
    assert planned(sequences, n_batch=2) == [(1, 1), (3, 1)]


@pytest.mark.parametrize(
    ("most", "observed", "tokens"),
    [
        (512, [], 64),
        (32, [], 32),
        (512, [(512, 2.56)], 40),
        (512, [(512, 0.01)], 512),
        (512, [(100, 60.0)], 16),
        (512, [(512, 2.56), (8, 0.001)], 40),
        (512, [(512, 2.56), (64, 0.1)], 128),
        (512, [(512, 0.0)], 64),
    ],
)
def test_prefill_pace_is_what_decodes_within_a_pause(
    most: int, observed: list[tuple[int, float]], tokens: int
) -> None:
    pace = PrefillPace(most_beside_decode=most, most_alone=100_000)
    for batch_tokens, took_s in observed:
        pace.observe(batch_tokens, took_s)
    assert pace.beside_decode == tokens


def test_prefill_alone_may_take_longer_but_not_for_ever() -> None:
    pace = PrefillPace(most_beside_decode=512, most_alone=2048)
    assert pace.alone == 64
    pace.observe(512, 0.8)  # 640 tokens a second: half a second's
    assert (pace.beside_decode, pace.alone) == (128, 320)
    pace.observe(512, 2.56)  # 200: enough of them, since that takes less than two seconds
    assert (pace.beside_decode, pace.alone) == (40, 256)
    pace.observe(64, 1.0)  # 64: two seconds' are fewer
    assert (pace.beside_decode, pace.alone) == (16, 128)
    pace.observe(512, 0.01)
    assert (pace.beside_decode, pace.alone) == (512, 2048)


def test_a_prompt_alone_is_decoded_in_bounded_steps() -> None:
    assert planned([prefilling(0, 90), prefilling(1, 3)], alone=20) == [(0, 17), (1, 3)]


@given(
    prompts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    n_batch=st.integers(2, 40),
    beside=st.integers(1, 40),
    answer=st.integers(1, 5),
)
def test_every_sequence_is_served_within_bounds_until_it_ends(
    prompts: list[int], n_batch: int, beside: int, answer: int
) -> None:
    running = {slot: prefilling(slot, tokens) for slot, tokens in enumerate(prompts)}
    answered = dict.fromkeys(running, 0)
    steps = 0
    while running:
        steps += 1
        assert steps <= sum(prompts) + answer * len(prompts) + len(prompts)
        chunks = plan_step(
            running.values(),
            n_batch=n_batch,
            max_prefill_beside_decode=beside,
            max_prefill_alone=n_batch,
        )
        assert 0 < sum(chunk.tokens for chunk in chunks) <= n_batch
        phases = [chunk.sequence.phase for chunk in chunks]
        assert phases == sorted(phases, key=[Phase.DECODE, Phase.PREFILL].index)
        assert len({chunk.sequence.slot for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            assert 0 < chunk.tokens <= chunk.sequence.pending
            was_last = chunk.is_last
            chunk.sequence.advance(chunk.tokens, steps)
            if was_last:
                slot = chunk.sequence.slot
                answered[slot] += 1
                chunk.sequence.append(7)
                if answered[slot] == answer:
                    del running[slot]


def with_images(slot: int = 0, *, cached: int = 0) -> BatchSequence:
    """Two tokens, an image of 9 cells and 3 positions, one of 4 and 4, two tokens."""
    images = [PlacedImage(2, 9, 3), PlacedImage(11, 4, 4)]
    tokens = [5, 6, *[NO_TOKEN] * 13, 7, 8]
    return BatchSequence(slot, tokens, cached=cached, images=images)


def test_an_image_waits_for_the_text_before_it_and_text_for_an_image() -> None:
    sequence = with_images()
    seen = []
    while sequence.pending:
        seen.append((sequence.ready, sequence.next_image is not None, sequence.position))
        if sequence.next_image is None:
            sequence.advance(sequence.ready, 1)
        else:
            sequence.advance_image(1)
    assert seen == [(2, False, 0), (0, True, 2), (0, True, 5), (2, False, 9)]
    assert (sequence.decoded, sequence.position) == (17, 11)
    assert sequence.phase is Phase.DECODE


def test_a_batch_holds_no_cell_of_an_image() -> None:
    waiting = with_images(1, cached=2)
    assert planned([with_images(0), waiting, prefilling(2, 5)]) == [(0, 2), (2, 5)]
    assert planned([waiting]) == []


def test_the_last_text_before_an_image_is_not_the_last_of_the_prompt() -> None:
    (chunk,) = plan_step(
        [with_images()], n_batch=100, max_prefill_beside_decode=50, max_prefill_alone=100
    )
    assert not chunk.is_last


def test_only_what_stands_before_an_image_is_reusable() -> None:
    sequence = with_images()
    assert sequence.reusable == []
    sequence.advance(2, 1)
    assert sequence.reusable == [5, 6]
    sequence.advance_image(2)
    assert sequence.reusable == [5, 6]
    assert decoding(0).reusable == [0] * 4
