from typing import Any

import msgspec
import pytest

from paddler.agent.worker.sampling import SEEDS, SamplingValues, Stage, resolve, stages
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


@pytest.mark.parametrize(
    ("changes", "chain"),
    [
        ({}, [Stage("dist", (7,))]),
        (
            {"penalty_repeat": 1.5},
            [Stage("penalties", (99, 64, 1.5, 0.0, 0.0)), Stage("dist", (7,))],
        ),
        ({"penalty_repeat": 1.5, "penalty_last_n": 0}, [Stage("dist", (7,))]),
        ({"top_k": 5}, [Stage("top_k", (5,)), Stage("dist", (7,))]),
        ({"top_k": 99}, [Stage("dist", (7,))]),
        ({"top_p": 0.0}, [Stage("top_p", (0.0, 1)), Stage("dist", (7,))]),
        ({"min_p": 0.1}, [Stage("min_p", (0.1, 1)), Stage("dist", (7,))]),
        ({"temperature": 0.5}, [Stage("temp", (0.5,)), Stage("dist", (7,))]),
        (
            {"logit_bias": {3: 1.5, 98: -100.0}, "penalty_repeat": 1.5},
            [
                Stage("logit_bias", (99, ((3, 1.5), (98, -100.0)))),
                Stage("penalties", (99, 64, 1.5, 0.0, 0.0)),
                Stage("dist", (7,)),
            ],
        ),
        ({"logit_bias": {-1: 5.0, 99: 5.0, 3: 0.0}}, [Stage("dist", (7,))]),
        ({"temperature": 0.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1}, [Stage("greedy", ())]),
        (
            {"temperature": 0.0, "penalty_frequency": 0.5},
            [Stage("penalties", (99, 64, 1.0, 0.5, 0.0)), Stage("greedy", ())],
        ),
        (
            {"penalty_presence": 0.1, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "temperature": 2.0},
            [
                Stage("penalties", (99, 64, 1.0, 0.0, 0.1)),
                Stage("top_k", (5,)),
                Stage("top_p", (0.5, 1)),
                Stage("min_p", (0.1, 1)),
                Stage("temp", (2.0,)),
                Stage("dist", (7,)),
            ],
        ),
    ],
)
def test_chain_has_the_stages_that_change_something(
    changes: dict[str, Any], chain: list[Stage]
) -> None:
    assert stages(msgspec.structs.replace(OFF, **changes), vocabulary_size=99) == chain
