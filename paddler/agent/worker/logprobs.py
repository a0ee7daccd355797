"""How likely a token was, and which others were likeliest, by the model's own logits."""

from typing import Any, Final, NamedTuple

import numpy as np

# OpenAI's number for what is as good as impossible; JSON has none for minus infinity.
LEAST_LOGPROB: Final = -9999.0


class TokenLogprobs(NamedTuple):
    """Natural logarithms of probabilities at the position of one token.

    ``top``: the likeliest tokens and theirs, the likeliest first. No sampling parameter,
    bias or grammar has touched them.
    """

    token: int
    logprob: float
    top: list[tuple[int, float]]


def token_logprobs(logits: Any, token: int, top: int) -> TokenLogprobs:
    """The log probabilities of ``token`` and of the ``top`` likeliest, by a position's logits.

    ``logits``: an array of a number for each token of the vocabulary; it is not kept.
    """
    exact = np.asarray(logits, np.float64)
    peak = exact.max()
    total = peak + np.log(np.exp(exact - peak).sum())
    count = min(top, len(exact))
    # The likeliest in any order, then in theirs; of two alike the lower id comes first.
    likeliest = np.argpartition(-exact, count - 1)[:count] if count else np.zeros(0, np.intp)
    ordered = sorted((-float(exact[index]), int(index)) for index in likeliest)

    def logprob(index: int) -> float:
        return max(LEAST_LOGPROB, float(exact[index] - total))

    return TokenLogprobs(token, logprob(token), [(index, logprob(index)) for _, index in ordered])
