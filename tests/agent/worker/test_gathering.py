from paddler.agent.worker.batch import BatchSequence, PlacedImage
from paddler.agent.worker.gathering import FEWEST_ANSWERS, GATHERED_TOKENS, to_gather


def answer(slot: int, said: int, *, is_repeatable: bool = False) -> BatchSequence:
    """One with a prompt of ten tokens, all decoded, and so many more."""
    sequence = BatchSequence(slot, [1] * 10, is_repeatable=is_repeatable)
    sequence.advance(10, 1)
    for _ in range(said):
        sequence.append(2)
        sequence.advance(1, 2)
    return sequence


def test_all_are_gathered_when_one_has_said_enough() -> None:
    answers = [answer(slot, said) for slot, said in enumerate((GATHERED_TOKENS, 3, 2))]
    assert to_gather(answers) == answers
    assert [sequence.settled for sequence in answers] == [10, 10, 10]


def test_nobody_is_gathered_before() -> None:
    assert to_gather(answer(slot, GATHERED_TOKENS - 1) for slot in range(8)) == []


def test_few_answers_stay_as_they_lie_also_when_another_comes() -> None:
    answers = [answer(slot, 100) for slot in range(FEWEST_ANSWERS - 1)]
    assert to_gather(answers) == []
    assert [sequence.loose for sequence in answers] == [0] * len(answers)
    third = answer(7, GATHERED_TOKENS)
    assert to_gather([*answers, third]) == [third]


def test_a_single_cell_lies_well() -> None:
    answers = [answer(slot, GATHERED_TOKENS) for slot in range(FEWEST_ANSWERS)]
    assert to_gather([*answers, answer(7, 1)]) == answers


def test_what_was_gathered_or_shared_stays() -> None:
    answers = [answer(slot, GATHERED_TOKENS) for slot in range(FEWEST_ANSWERS)]
    for sequence in answers:
        sequence.settle(sequence.position)
    assert to_gather(answers) == []
    answers[0].settle(3)  # what is shared of it was settled before
    assert answers[0].loose == 0


def test_repeatable_answers_and_prompts_stay() -> None:
    answers = [answer(slot, GATHERED_TOKENS) for slot in range(FEWEST_ANSWERS)]
    prompt = BatchSequence(8, [1] * 100)
    prompt.advance(50, 1)
    assert to_gather([answer(7, 20, is_repeatable=True), prompt, *answers]) == answers


def test_an_image_before_an_answer_is_not_moved() -> None:
    sequence = BatchSequence(0, [1, -1, -1, -1, 1], images=[PlacedImage(1, 3, 2)])
    sequence.advance(1, 1)
    sequence.advance_image(2)
    sequence.advance(1, 3)
    assert (sequence.position, sequence.settled, sequence.loose) == (4, 4, 0)
