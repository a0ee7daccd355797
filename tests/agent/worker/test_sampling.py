from typing import Any

import msgspec
import numpy as np
import pytest
from llama_cpp import llama_cpp

from paddler.agent.worker.candidates import Candidates, SamplingFailed
from paddler.agent.worker.sampling import (
    SEEDS,
    Logits,
    Penalties,
    Plan,
    Sampler,
    SamplingValues,
    Stage,
    plan_of,
    resolve,
)
from paddler.messages.link import Sampling
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, InferenceParameters

OFF = SamplingValues(
    penalty_last_n=64,
    penalty_repeat=1.0,
    penalty_frequency=0.0,
    penalty_presence=0.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    temperature=1.0,
    seed=7,
)


def parameters(**changes: object) -> InferenceParameters:
    return msgspec.structs.replace(DEFAULT_INFERENCE_PARAMETERS, **changes)


def test_request_without_values_samples_with_the_clusters() -> None:
    values = resolve(DEFAULT_INFERENCE_PARAMETERS, Sampling(seed=5), context_size=4096)
    assert values == SamplingValues(
        penalty_last_n=4096,
        penalty_repeat=1.1,
        penalty_frequency=0.0,
        penalty_presence=0.8,
        top_k=80,
        top_p=0.8,
        min_p=0.05,
        temperature=0.8,
        seed=5,
    )


def test_request_wins_over_the_cluster_also_with_zero() -> None:
    said = Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=0,
        min_p=0.0,
        presence_penalty=0.0,
        frequency_penalty=-1.0,
        seed=0,
    )
    values = resolve(DEFAULT_INFERENCE_PARAMETERS, said, context_size=4096)
    assert (values.temperature, values.top_p, values.top_k, values.min_p) == (0.0, 0.5, 0, 0.0)
    assert (values.penalty_presence, values.penalty_frequency, values.seed) == (0.0, -1.0, 0)


@pytest.mark.parametrize(("asked", "used"), [(-1, 256), (0, 0), (64, 64), (10**9, 256)])
def test_penalties_look_back_at_most_on_the_context(asked: int, used: int) -> None:
    values = resolve(parameters(penalty_last_n=asked), Sampling(), context_size=256)
    assert values.penalty_last_n == used


@pytest.mark.parametrize(("asked", "used"), [(-1, SEEDS - 1), (SEEDS, 0), (2**64, 1)])
def test_any_seed_becomes_one_that_llama_cpp_keeps(asked: int, used: int) -> None:
    assert resolve(parameters(), Sampling(seed=asked), context_size=256).seed == used


def test_bias_is_that_of_the_request_or_none() -> None:
    assert resolve(parameters(), Sampling(), context_size=256).logit_bias == {}
    biased = Sampling(logit_bias={5: 2.0})
    assert resolve(parameters(), biased, context_size=256).logit_bias == {5: 2.0}


def test_requests_without_a_seed_get_different_ones() -> None:
    drawn = {resolve(parameters(), Sampling(), context_size=256).seed for _ in range(8)}
    assert len(drawn) > 1


DRAW = Stage("dist", (7,))


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        ({}, Plan((), None, 0, [DRAW])),
        ({"penalty_repeat": 1.5}, Plan((), Penalties(64, 1.5, 0.0, 0.0), 0, [DRAW])),
        ({"penalty_repeat": 1.5, "penalty_last_n": 0}, Plan((), None, 0, [DRAW])),
        ({"top_k": 5}, Plan((), None, 5, [Stage("top_k", (5,)), DRAW])),
        ({"top_k": 99}, Plan((), None, 0, [DRAW])),
        ({"top_p": 0.0}, Plan((), None, 0, [Stage("top_p", (0.0, 1)), DRAW])),
        ({"min_p": 0.1}, Plan((), None, 0, [Stage("min_p", (0.1, 1)), DRAW])),
        ({"temperature": 0.5}, Plan((), None, 0, [Stage("temp", (0.5,)), DRAW])),
        (
            {"logit_bias": {3: 1.5, 98: -100.0}, "penalty_repeat": 1.5},
            Plan(((3, 1.5), (98, -100.0)), Penalties(64, 1.5, 0.0, 0.0), 0, [DRAW]),
        ),
        ({"logit_bias": {-1: 5.0, 99: 5.0, 3: 0.0}}, Plan((), None, 0, [DRAW])),
        (
            {"temperature": 0.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1},
            Plan((), None, 1, [Stage("greedy", ())]),
        ),
        (
            {"temperature": 0.0, "penalty_frequency": 0.5},
            Plan((), Penalties(64, 1.0, 0.5, 0.0), 1, [Stage("greedy", ())]),
        ),
        (
            {"penalty_presence": 0.1, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "temperature": 2.0},
            Plan(
                (),
                Penalties(64, 1.0, 0.0, 0.1),
                5,
                [
                    Stage("top_k", (5,)),
                    Stage("top_p", (0.5, 1)),
                    Stage("min_p", (0.1, 1)),
                    Stage("temp", (2.0,)),
                    DRAW,
                ],
            ),
        ),
    ],
)
def test_plan_has_what_changes_something(changes: dict[str, Any], plan: Plan) -> None:
    assert plan_of(msgspec.structs.replace(OFF, **changes), vocabulary_size=99) == plan


# --- what is drawn ------------------------------------------------------------------------------


class WholeChain:
    """llama.cpp's own chain of all stages, each of which walks the whole vocabulary."""

    def __init__(self, values: SamplingValues, size: int) -> None:
        plan = plan_of(values, vocabulary_size=size)
        self._candidates = Candidates(size)
        self._chain: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        native = (llama_cpp.llama_logit_bias * len(plan.bias))(*plan.bias)
        self._add("logit_bias", size, len(plan.bias), native)
        if plan.penalties is not None:
            self._add("penalties", size, *plan.penalties)
        for stage in plan.chain:
            self._add(stage.name, *stage.arguments)

    def _add(self, name: str, *arguments: Any) -> None:
        sampler = getattr(llama_cpp, f"llama_sampler_init_{name}")(*arguments)
        llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)

    def sample(self, logits: Logits) -> int:
        self._candidates.fill(logits)
        self._candidates.apply(self._chain)
        token = self._candidates.selected
        self.accept(token)
        return token

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)


class Desk:
    """What a draw without a grammar needs of a :class:`DrawingDesk`."""

    def __init__(self, size: int) -> None:
        self.candidates = Candidates(size)


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "temperature": 0.8},
        {"top_k": 80, "penalty_repeat": 1.3, "penalty_presence": 0.8, "penalty_frequency": 0.2},
        {"top_k": 5, "penalty_repeat": 1.1, "penalty_last_n": 7, "temperature": 1.5},
        {"top_k": 1, "penalty_frequency": -0.5},
        {"top_k": 0, "top_p": 0.9, "penalty_repeat": 1.2},
        {"top_k": 3, "logit_bias": {5: 9.0, 6: -100.0, 7: 2.5}, "penalty_repeat": 1.5},
        {"temperature": 0.0, "penalty_repeat": 1.2, "penalty_last_n": 11, "penalty_presence": 0.1},
        {"temperature": 0.0, "logit_bias": {9: 4.0}},
        {"top_k": 0, "min_p": 0.1},
    ],
)
def test_the_same_is_drawn_as_by_the_whole_chain(changes: dict[str, Any]) -> None:
    size, steps = 3000, 300
    values = msgspec.structs.replace(OFF, **changes)
    random = np.random.default_rng(5)
    # Few tokens stand out, as in a real model, and differ from draw to draw.
    base = random.normal(0.0, 1.0, size).astype(np.float32)
    whole = WholeChain(values, size)
    sampler = Sampler(plan_of(values, vocabulary_size=size), vocabulary_size=size)
    prompt = [int(token) for token in random.integers(0, 40, 50)]
    for token in prompt:
        whole.accept(token)
    sampler.accept_prompt(prompt)
    desk: Any = Desk(size)
    drawn, expected = [], []
    for _ in range(steps):
        logits = base.copy()
        logits[random.integers(0, 60, 20)] += random.normal(4.0, 2.0, 20).astype(np.float32)
        before = logits.copy()
        expected.append(whole.sample(logits))
        drawn.append(sampler.sample(logits, desk))
        assert np.array_equal(logits, before)
    sampler.close()
    whole.close()
    assert drawn == expected
    assert len(set(drawn)) > 5


def test_nothing_to_draw_is_told() -> None:
    plan = plan_of(msgspec.structs.replace(OFF, top_k=3), vocabulary_size=8)
    sampler = Sampler(plan, vocabulary_size=8)
    desk: Any = Desk(8)
    with pytest.raises(SamplingFailed, match="eliminated"):
        sampler.sample(np.full(8, -np.inf, np.float32), desk)
    sampler.close()
