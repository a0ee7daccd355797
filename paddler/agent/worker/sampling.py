"""How one request samples: its values, the stages they ask for, and llama.cpp's chain of them.

Order: logit bias → grammar → penalties → top-k → top-p → min-p → temperature → draw. A stage
that would change nothing is left out, since each of them may walk the whole vocabulary for
every token.
"""

import functools
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from llama_cpp import llama_cpp

from paddler.agent.worker.candidates import Candidates, SamplingFailed
from paddler.agent.worker.grammar_sampler import FirstBytes, GrammarSampler
from paddler.messages.link import Sampling
from paddler.messages.state import InferenceParameters

# llama.h, LLAMA_DEFAULT_SEED: stands for "draw one yourself", so it is no seed of ours.
SEEDS: Final = 0xFFFFFFFF

# Processor time of a grammar for one token, where all streams wait. A large one takes some
# hundredths of it for a large vocabulary; one that doubles its ways with every token, and
# so its time, does not stop at this.
MAX_GRAMMAR_S: Final = 1.0


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
    logit_bias: Mapping[int, float] = {}


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
        logit_bias=overrides.logit_bias or {},
    )


def stages(values: SamplingValues, *, vocabulary_size: int) -> list[Stage]:
    """The stages that change something, in order; the last one picks the token."""
    chain = []
    # Ids that are no tokens would be looked for among all, for every token that is drawn.
    bias = tuple(
        (token, bias)
        for token, bias in values.logit_bias.items()
        if 0 <= token < vocabulary_size and bias
    )
    if bias:
        chain.append(Stage("logit_bias", (vocabulary_size, bias)))
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


class DrawingDesk:
    """What draws under grammars need, by turns: all from one vocabulary."""

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self.candidates = Candidates(self.vocabulary_size)

    @functools.cached_property
    def first_bytes(self) -> FirstBytes:
        """The first bytes of all tokens."""
        return FirstBytes(self._vocab)

    def prepare(self) -> None:
        """Read all tokens now, which takes a fraction of a second, and not at the first draw."""
        _ = self.first_bytes


class SamplerChain:
    """A llama.cpp sampler chain, maybe under a grammar.

    ``close`` frees both, once however often it is called.
    """

    __slots__ = ("_chain", "_grammar", "_remembers")

    def __init__(self, plan: list[Stage], grammar: GrammarSampler | None = None) -> None:
        self._chain: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        self._grammar = grammar
        self._remembers = 0
        for stage in plan:
            if stage.name == "penalties":
                self._remembers = stage.arguments[1]
            make = getattr(llama_cpp, f"llama_sampler_init_{stage.name}")
            llama_cpp.llama_sampler_chain_add(self._chain, make(*_native_arguments(stage)))

    def accept_prompt(self, prompt: list[int]) -> None:
        """Let the penalties know the prompt; only as much of it as they look back on."""
        if self._remembers:
            for token in prompt[-self._remembers :]:
                llama_cpp.llama_sampler_accept(self._chain, token)

    def sample(self, context: Any, output_index: int, desk: "DrawingDesk") -> int:
        """Draw from the logits of the batch's token ``output_index``, and accept the drawn one.

        Raises :class:`SamplingFailed` when nothing may follow.
        """
        if self._grammar is None:
            token: int = llama_cpp.llama_sampler_sample(self._chain, context, output_index)
            return token
        began_at = time.thread_time()
        token = self._sample_under(self._grammar, context, output_index, desk)
        self._grammar.accept(token)
        if time.thread_time() - began_at > MAX_GRAMMAR_S:
            raise SamplingFailed(
                "the grammar is too ambiguous here: following it takes more than "
                f"{MAX_GRAMMAR_S:g} s for one token"
            )
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _sample_under(
        self, grammar: GrammarSampler, context: Any, output_index: int, desk: "DrawingDesk"
    ) -> int:
        # Asking the grammar about the whole vocabulary costs far more than about one token.
        # Drawing without it first, and again under it only if the draw is not allowed, gives
        # every allowed token the same chance.
        pointer = llama_cpp.llama_get_logits_ith(context, output_index)
        logits = np.ctypeslib.as_array(pointer, (desk.vocabulary_size,))
        candidates = desk.candidates
        candidates.fill(logits)
        candidates.apply(self._chain)
        token = candidates.selected
        if grammar.allows(token):
            return token
        candidates.fill(logits, grammar.possible(desk.first_bytes))
        candidates.apply(grammar.handle)
        candidates.apply(self._chain)
        return candidates.selected

    def close(self) -> None:
        """Free the chain, its stages and the grammar."""
        chain, self._chain = self._chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)
        if self._grammar is not None:
            self._grammar.close()


def _native_arguments(stage: Stage) -> tuple[Any, ...]:
    if stage.name != "logit_bias":
        return stage.arguments
    vocabulary_size, bias = stage.arguments
    # llama.cpp copies them.
    return vocabulary_size, len(bias), (llama_cpp.llama_logit_bias * len(bias))(*bias)
