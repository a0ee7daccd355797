"""How one request samples: its values, the stages they ask for, and llama.cpp's chain of them.

Order: penalties → top-k → top-p → min-p → temperature → draw. A stage that would change
nothing is left out, since each of them may walk the whole vocabulary for every token.
"""

import secrets
from typing import Any, Final, NamedTuple

import msgspec
from llama_cpp import llama_cpp

from paddler.messages.link import Sampling
from paddler.messages.state import InferenceParameters

# llama.h, LLAMA_DEFAULT_SEED: stands for "draw one yourself", so it is no seed of ours.
SEEDS: Final = 0xFFFFFFFF


class SamplingValues(msgspec.Struct, frozen=True, kw_only=True):
    """All values that one request samples with."""

    penalty_last_n: int
    penalty_repeat: float
    penalty_frequency: float
    penalty_presence: float
    top_k: int
    top_p: float
    min_p: float
    temperature: float
    seed: int


class Stage(NamedTuple):
    """One sampler of the chain: ``llama_sampler_init_<name>(*arguments)``."""

    name: str
    arguments: tuple[Any, ...]


def resolve(
    parameters: InferenceParameters, overrides: Sampling, *, context_size: int
) -> SamplingValues:
    """The cluster's parameters, with what the request says instead. No seed: a random one."""

    def pick(override: Any, default: Any) -> Any:
        return default if override is None else override

    last_n = parameters.penalty_last_n
    if last_n < 0 or last_n > context_size:
        # -1 is "the whole context" on our wire and "off" in llama.cpp. More than the context
        # finds nothing more and would be memory for as many tokens.
        last_n = context_size
    return SamplingValues(
        penalty_last_n=last_n,
        penalty_repeat=parameters.penalty_repeat,
        penalty_frequency=pick(overrides.frequency_penalty, parameters.penalty_frequency),
        penalty_presence=pick(overrides.presence_penalty, parameters.penalty_presence),
        top_k=pick(overrides.top_k, parameters.top_k),
        top_p=pick(overrides.top_p, parameters.top_p),
        min_p=pick(overrides.min_p, parameters.min_p),
        temperature=pick(overrides.temperature, parameters.temperature),
        seed=secrets.randbelow(SEEDS) if overrides.seed is None else overrides.seed % SEEDS,
    )


def stages(values: SamplingValues, *, vocabulary_size: int) -> list[Stage]:
    """The stages that change something, in order; the last one picks the token."""
    chain = []
    penalties = (values.penalty_repeat, values.penalty_frequency, values.penalty_presence)
    if values.penalty_last_n > 0 and penalties != (1.0, 0.0, 0.0):
        chain.append(Stage("penalties", (vocabulary_size, values.penalty_last_n, *penalties)))
    if values.temperature <= 0.0:
        # Top-k, top-p and min-p all keep the likeliest token, which is the one taken.
        chain.append(Stage("greedy", ()))
        return chain
    if 0 < values.top_k < vocabulary_size:
        chain.append(Stage("top_k", (values.top_k,)))
    if values.top_p < 1.0:
        chain.append(Stage("top_p", (values.top_p, 1)))
    if values.min_p > 0.0:
        chain.append(Stage("min_p", (values.min_p, 1)))
    if values.temperature != 1.0:
        chain.append(Stage("temp", (values.temperature,)))
    chain.append(Stage("dist", (values.seed,)))
    return chain


class SamplerChain:
    """A llama.cpp sampler chain. ``close`` frees it, once however often it is called."""

    __slots__ = ("_chain", "_remembers")

    def __init__(self, plan: list[Stage]) -> None:
        self._chain: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        self._remembers = plan[0].arguments[1] if plan[0].name == "penalties" else 0
        for stage in plan:
            make = getattr(llama_cpp, f"llama_sampler_init_{stage.name}")
            llama_cpp.llama_sampler_chain_add(self._chain, make(*stage.arguments))

    def accept_prompt(self, prompt: list[int]) -> None:
        """Let the penalties know the prompt; only as much of it as they look back on."""
        if self._remembers:
            for token in prompt[-self._remembers :]:
                llama_cpp.llama_sampler_accept(self._chain, token)

    def sample(self, context: Any, output_index: int) -> int:
        """Draw from the logits of the batch's token ``output_index``, and accept the drawn one."""
        token: int = llama_cpp.llama_sampler_sample(self._chain, context, output_index)
        return token

    def close(self) -> None:
        """Free the chain and its stages."""
        chain, self._chain = self._chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)
