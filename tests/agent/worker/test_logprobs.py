import math

import numpy as np
import pytest

from paddler.agent.worker.logprobs import LEAST_LOGPROB, TokenLogprobs, token_logprobs


def test_probabilities_are_those_of_all_tokens() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.4, 0.3], np.float32))
    found = token_logprobs(logits, 1, 2)
    assert found.token == 1
    assert found.logprob == pytest.approx(math.log(0.2))
    assert [token for token, _ in found.top] == [2, 3]
    assert [logprob for _, logprob in found.top] == pytest.approx([math.log(0.4), math.log(0.3)])


@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
def test_only_differences_of_logits_count(shift: float) -> None:
    logits = np.array([0.0, 1.0, 2.0], np.float32) + np.float32(shift)
    total = sum(math.exp(math.log(p)) for p in np.exp([0.0, 1.0, 2.0]))
    found = token_logprobs(logits, 0, 3)
    assert found.logprob == pytest.approx(-math.log(total))
    assert sum(math.exp(logprob) for _, logprob in found.top) == pytest.approx(1.0)


def test_sum_over_a_large_vocabulary_is_exact() -> None:
    found = token_logprobs(np.zeros(1_000_000, np.float32), 5, 1)
    assert found.logprob == pytest.approx(-math.log(1_000_000), abs=1e-12)


def test_of_tokens_alike_the_lower_id_comes_first() -> None:
    assert [token for token, _ in token_logprobs(np.zeros(9, np.float32), 0, 9).top] == [*range(9)]


def test_none_are_told_if_none_are_wanted() -> None:
    assert token_logprobs(np.zeros(3, np.float32), 1, 0) == TokenLogprobs(
        1, pytest.approx(-math.log(3)), []
    )


def test_impossible_token_has_a_number_that_json_knows() -> None:
    logits = np.array([0.0, -np.inf], np.float32)
    assert token_logprobs(logits, 1, 5) == TokenLogprobs(
        1, LEAST_LOGPROB, [(0, 0.0), (1, LEAST_LOGPROB)]
    )
