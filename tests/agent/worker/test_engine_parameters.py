"""Every value that a request samples with, and every type of cache, does what it is for."""

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.worker.batch import BatchSequence, Chunk, plan_step
from paddler.agent.worker.engine import DecodeOutcome, GrammarRefused, NoToken
from paddler.agent.worker.engine_llama import EngineError, LlamaEngine, Model
from paddler.agent.worker.gbnf.writing import Gbnf
from paddler.agent.worker.logprobs import TokenLogprobs
from paddler.messages.link import Sampling
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, InferenceParameters
from tests.tiny_gguf import write_tiny_gguf

PROMPT = "The capital of"

# Nothing but a draw by the model's own probabilities.
OFF = Sampling(
    temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, presence_penalty=0.0, frequency_penalty=0.0,
    seed=1,
)  # fmt: skip


def parameters(**changes: Any) -> InferenceParameters:
    small = {"context_size": 256, "penalty_repeat": 1.0}
    return msgspec.structs.replace(DEFAULT_INFERENCE_PARAMETERS, **small | changes)


def asking(**values: Any) -> Sampling:
    return msgspec.structs.replace(OFF, **values)


class Position:
    """The real model behind a prompt: draws are from the same logits, however many."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self.prompt = engine.tokenize(PROMPT, limit=100)
        sequence = BatchSequence(0, list(self.prompt))
        assert engine.decode([Chunk(sequence, sequence.pending)]) is DecodeOutcome.DECODED

    def draws(
        self, sampling: Sampling, count: int = 1, *, grammar: Gbnf | None = None,
        prompt: list[int] | None = None,
    ) -> list[int]:  # fmt: skip
        """Tokens that one request draws here; each counts as said before the next."""
        self.engine.open(0, self.prompt if prompt is None else prompt, sampling, grammar)
        drawn = [self.engine.sample([0])[0] for _ in range(count)]
        self.engine.release(0)
        assert not any(isinstance(token, NoToken) for token in drawn)
        return [token for token in drawn if not isinstance(token, NoToken)]

    def logprobs(self, sampling: Sampling) -> TokenLogprobs:
        """Of one draw, with the 20 likeliest."""
        self.engine.open(0, [], msgspec.structs.replace(sampling, top_logprobs=20), None)
        self.engine.sample([0])
        found = self.engine.logprobs(0)
        self.engine.release(0)
        assert found is not None
        return found

    @property
    def likeliest(self) -> list[int]:
        return [token for token, _ in self.logprobs(OFF).top]


@contextmanager
def position(model: Model, **changes: Any) -> Iterator[Position]:
    with LlamaEngine(model, parameters=parameters(**changes), slots=1, threads=1) as engine:
        yield Position(engine)


@pytest.fixture(scope="module")
def here(smollm2: Model) -> Iterator[Position]:
    with position(smollm2) as here:
        yield here


# --- each value ---------------------------------------------------------------------------------


def test_temperature_spreads_the_draws(here: Position) -> None:
    best = here.likeliest[0]
    assert set(here.draws(asking(temperature=0.0), 20)) == {best}
    drawn = [here.draws(asking(temperature=t), 200) for t in (0.3, 1.0, 3.0)]
    shares = [tokens.count(best) / len(tokens) for tokens in drawn]
    kinds = [len(set(tokens)) for tokens in drawn]
    assert shares == sorted(shares, reverse=True)
    assert kinds == sorted(set(kinds))


def test_cold_draws_are_those_of_the_clusters_temperature_where_none_is_asked_for(
    smollm2: Model,
) -> None:
    with position(smollm2, temperature=0.0, penalty_presence=0.0) as here:
        assert set(here.draws(Sampling(), 20)) == {here.likeliest[0]}


@pytest.mark.parametrize("top_k", [1, 3])
def test_top_k_leaves_the_likeliest(here: Position, top_k: int) -> None:
    drawn = here.draws(asking(top_k=top_k, temperature=5.0), 100)
    assert set(drawn) == set(here.likeliest[:top_k])


def test_top_p_leaves_the_likeliest_that_make_up_a_share(here: Position) -> None:
    top = here.logprobs(OFF).top
    probabilities = [math.e**logprob for _, logprob in top]
    share = sum(probabilities[:3]) - probabilities[2] / 2
    drawn = here.draws(asking(top_p=share), 300)
    assert set(drawn) == {token for token, _ in top[:3]}


def test_min_p_leaves_those_near_the_likeliest(here: Position) -> None:
    top = here.logprobs(OFF).top
    between = math.e ** ((top[2][1] + top[3][1]) / 2 - top[0][1])
    drawn = here.draws(asking(min_p=between), 300)
    assert set(drawn) == {token for token, _ in top[:3]}


def test_presence_penalty_counts_once_and_frequency_penalty_each_time(here: Position) -> None:
    (first, best), (second, next_best), *_ = here.logprobs(OFF).top
    most_of_the_gap = (best - next_best) * 0.6
    greedy = asking(temperature=0.0)
    plain = msgspec.structs.replace(greedy, presence_penalty=most_of_the_gap)
    assert here.draws(plain, 4, prompt=[]) == [first] * 4
    growing = msgspec.structs.replace(greedy, frequency_penalty=most_of_the_gap)
    assert here.draws(growing, 3, prompt=[]) == [first, first, second]
    forbidding = msgspec.structs.replace(greedy, presence_penalty=100.0)
    assert here.draws(forbidding, 5, prompt=[]) == here.likeliest[:5]


def test_penalties_know_the_prompt(here: Position) -> None:
    first, second = here.likeliest[:2]
    forbidding = asking(temperature=0.0, presence_penalty=100.0)
    assert here.draws(forbidding, prompt=[first]) == [second]


def test_repeat_penalty_makes_what_was_said_less_likely(smollm2: Model) -> None:
    with position(smollm2, penalty_repeat=2.0) as here:
        greedy = asking(temperature=0.0)
        drawn = here.draws(greedy, 3, prompt=[])
        assert drawn == here.likeliest[:3]
        assert here.draws(greedy, prompt=[drawn[0]]) == [drawn[1]]


@pytest.mark.parametrize(
    ("last_n", "order"),
    [(0, [0, 0, 0, 0]), (1, [0, 1, 0, 1]), (2, [0, 1, 2, 0]), (-1, [0, 1, 2, 3])],
)
def test_penalties_look_back_as_far_as_they_are_told(
    smollm2: Model, last_n: int, order: list[int]
) -> None:
    with position(smollm2, penalty_last_n=last_n) as here:
        drawn = here.draws(asking(temperature=0.0, presence_penalty=100.0), 4, prompt=[])
        assert drawn == [here.likeliest[at] for at in order]


def test_penalties_of_the_cluster_count_where_the_request_has_none(smollm2: Model) -> None:
    with position(smollm2, penalty_presence=100.0, penalty_frequency=0.0, temperature=0.0) as here:
        assert here.draws(Sampling(), 3, prompt=[]) == here.likeliest[:3]
    with position(smollm2, penalty_presence=0.0, penalty_frequency=100.0, temperature=0.0) as here:
        assert here.draws(Sampling(), 3, prompt=[]) == here.likeliest[:3]


def test_seed_decides_the_draws(here: Position) -> None:
    hot = [here.draws(asking(temperature=2.0, seed=seed), 20) for seed in (7, 7, 8)]
    assert hot[0] == hot[1] != hot[2]


def test_same_seed_says_the_same_on_an_idle_slot(smollm2: Model) -> None:
    said = []
    with LlamaEngine(smollm2, parameters=parameters(), slots=2, threads=1) as engine:
        prompt = engine.tokenize(PROMPT, limit=100)
        for slot, seed in ((0, 5), (1, 5), (0, 6)):
            sequence = BatchSequence(slot, list(prompt))
            engine.open(slot, prompt, asking(temperature=1.5, seed=seed), None)
            for _ in range(6):
                assert engine.decode([Chunk(sequence, sequence.pending)]) is DecodeOutcome.DECODED
                sequence.advance(sequence.pending, 1)
                sequence.append(*engine.sample([slot]))  # type: ignore[arg-type]
            engine.release(slot)
            engine.keep(slot, 0)
            said.append(sequence.tokens)
    assert said[0] == said[1] != said[2]


def test_a_repeatable_prompt_is_decoded_to_the_bit_alike_at_any_speed(smollm2: Model) -> None:
    # Tokens without sense: of no other text are the logits as sensitive to how sums are made.
    prompt = random.Random(1).choices(range(100, 40_000), k=200)
    floats = parameters(k_cache_dtype="F16", v_cache_dtype="F16")
    seen = []
    with LlamaEngine(smollm2, parameters=floats, slots=2, threads=2) as engine:
        for alone in (16, 100, 256):
            sequence = BatchSequence(0, prompt, is_repeatable=True)
            while sequence.pending:
                (chunk,) = plan_step(
                    [sequence], n_batch=engine.n_batch, max_prefill_beside_decode=1,
                    max_prefill_alone=alone,
                )  # fmt: skip
                assert engine.decode([chunk]) is DecodeOutcome.DECODED
                sequence.advance(chunk.tokens, 1)
            engine.open(0, prompt, asking(top_logprobs=20), None)
            engine.sample([0])
            seen.append(engine.logprobs(0))
            engine.release(0)
            engine.keep(0, 0)
    assert seen[0] is not None
    assert seen[0] == seen[1] == seen[2]


# --- bias ---------------------------------------------------------------------------------------

YES_OR_NO = Gbnf('root ::= " yes" | " no"', "root")


def test_bias_forces_and_bans_tokens(here: Position) -> None:
    first, second, *_, far = here.likeliest
    greedy = asking(temperature=0.0)
    assert here.draws(msgspec.structs.replace(greedy, logit_bias={far: 100.0})) == [far]
    assert here.draws(msgspec.structs.replace(greedy, logit_bias={first: -100.0})) == [second]
    hot = asking(temperature=2.0, logit_bias={first: -100.0})
    assert first not in here.draws(hot, 200)


def test_bias_comes_before_everything_else(here: Position) -> None:
    far = here.likeliest[-1]
    assert set(here.draws(asking(logit_bias={far: 100.0}, top_k=1, temperature=3.0), 20)) == {far}


def test_bias_counts_under_a_grammar(here: Position) -> None:
    yes, no = (here.engine.tokenize(text, limit=9)[0] for text in (" yes", " no"))
    for token in (yes, no):
        biased = asking(logit_bias={token: 50.0})
        assert here.draws(biased, grammar=YES_OR_NO) == [token]
    banned = asking(logit_bias={here.likeliest[0]: 100.0})
    [token] = here.draws(banned, grammar=YES_OR_NO)
    assert b" yes".startswith(here.engine.piece(token)) or b" no".startswith(
        here.engine.piece(token)
    )


def test_bias_of_tokens_that_the_model_does_not_have_is_without_effect(here: Position) -> None:
    greedy = asking(temperature=0.0, logit_bias={-1: 100.0, 10**9: 100.0})
    assert here.draws(greedy) == here.likeliest[:1]


# --- log probabilities --------------------------------------------------------------------------


def test_logprobs_are_of_the_models_own_logits_whatever_was_done_to_them(here: Position) -> None:
    plain = here.logprobs(OFF)
    assert sum(math.e**logprob for _, logprob in plain.top) < 1.0
    assert [logprob for _, logprob in plain.top] == sorted(
        (logprob for _, logprob in plain.top), reverse=True
    )
    far = plain.top[-1]
    for changed in (
        asking(temperature=0.0, logit_bias={far[0]: 100.0}),
        asking(top_k=1, logit_bias={far[0]: 100.0}),
        asking(presence_penalty=2.0, temperature=3.0, logit_bias={far[0]: 100.0}),
    ):
        found = here.logprobs(changed)
        assert found.top == plain.top
        assert (found.token, found.logprob) == far


def test_logprobs_are_told_to_those_who_asked(here: Position) -> None:
    here.engine.open(0, [], OFF, None)
    here.engine.sample([0])
    assert here.engine.logprobs(0) is None
    here.engine.release(0)
    here.engine.open(0, [], asking(top_logprobs=0), None)
    [token] = here.engine.sample([0])
    found = here.engine.logprobs(0)
    assert found is not None
    assert (found.token, found.top) == (token, [])
    here.engine.release(0)
    assert here.engine.logprobs(0) is None


def test_logprobs_are_those_of_the_slots_own_position(smollm2: Model) -> None:
    with LlamaEngine(smollm2, parameters=parameters(), slots=2, threads=1) as engine:
        sequences = [
            BatchSequence(slot, engine.tokenize(text, limit=100))
            for slot, text in enumerate(("1 2 3 4", "The sky is"))
        ]
        assert engine.decode([Chunk(s, s.pending) for s in sequences]) is DecodeOutcome.DECODED
        greedy = asking(temperature=0.0, top_logprobs=3)
        for slot in (0, 1):
            engine.open(slot, [], greedy, None)
        tokens = engine.sample([0, 1])
        found = [engine.logprobs(slot) for slot in (0, 1)]
        for token, logprobs in zip(tokens, found, strict=True):
            assert logprobs is not None
            assert logprobs.top[0] == (token, logprobs.logprob)
        assert found[0] != found[1]


# --- grammars -----------------------------------------------------------------------------------


def test_grammar_that_could_end_the_process_is_refused(here: Position) -> None:
    for text in ('root ::= root "x"', "root ::= " + "(" * 100_000, 'root ::= "unterminated'):
        with pytest.raises(GrammarRefused, match="grammar"):
            here.engine.open(0, [], OFF, Gbnf(text, "root"))


def test_grammar_that_grows_with_every_token_ends_its_answer_only(
    here: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddler.agent.worker.sampling.MAX_GRAMMAR_S", 0.0)
    here.engine.open(0, [], OFF, YES_OR_NO)
    [token] = here.engine.sample([0])
    assert isinstance(token, NoToken)
    assert "too ambiguous" in token.reason
    here.engine.release(0)
    monkeypatch.undo()
    assert here.draws(OFF, grammar=YES_OR_NO)


# --- cache types --------------------------------------------------------------------------------

DTYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")


@pytest.mark.parametrize(
    ("k", "v"), [*((dtype, "F16") for dtype in DTYPES), *(("Q8_0", dtype) for dtype in DTYPES)]
)
def test_cache_has_the_types_asked_for_and_the_model_still_knows_its_words(
    smollm2: Model, caplog: pytest.LogCaptureFixture, k: str, v: str
) -> None:
    with caplog.at_level(logging.DEBUG, "llama.cpp"):
        engine = LlamaEngine(
            smollm2, parameters=parameters(k_cache_dtype=k, v_cache_dtype=v), slots=1, threads=1
        )
    with engine:
        [line] = [line for line in caplog.messages if "K (" in line and "V (" in line]
        assert f"K ({k.lower()})" in line
        assert f"V ({v.lower()})" in line
        sequence = BatchSequence(
            0, engine.tokenize("Monday, Tuesday, Wednesday, Thursday,", limit=100)
        )
        assert engine.decode([Chunk(sequence, sequence.pending)]) is DecodeOutcome.DECODED
        engine.open(0, [], asking(temperature=0.0), None)
        [token] = engine.sample([0])
        assert isinstance(token, int)
        assert engine.piece(token) == b" Friday"


def test_cache_type_that_does_not_fit_the_model_is_refused_with_the_engines_reason(
    tmp_path: Path, smollm2: Model
) -> None:
    path = write_tiny_gguf(tmp_path / "narrow.gguf", heads=4)
    with Model(str(path), n_gpu_layers=0, on_progress=lambda _: True) as narrow:
        for changes in ({"k_cache_dtype": "Q8_0"}, {"v_cache_dtype": "Q4_0"}):
            plain = {"k_cache_dtype": "F16", "v_cache_dtype": "F16"}
            with pytest.raises(EngineError, match="head"):
                LlamaEngine(narrow, parameters=parameters(**plain | changes), slots=1, threads=1)
        LlamaEngine(narrow, parameters=parameters(**plain), slots=1, threads=1).close()
