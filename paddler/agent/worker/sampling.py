"""How one request samples: its values, the stages they ask for, and llama.cpp's chain of them.

Order: logit bias → grammar → penalties → top-k → top-p → min-p → temperature → draw. A stage
that would change nothing is left out, since each of them may walk the whole vocabulary for
every token.
"""

import ctypes
import math
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from llama_cpp import llama_cpp

from paddler.agent.worker.gbnf.checking import UnsafeGrammar, check_grammar
from paddler.agent.worker.grammar import Gbnf
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


class SamplingFailed(Exception):
    """No token can follow, or the grammar does not compile; the message says which."""


class Candidates:
    """A candidate for every token of the vocabulary, filled anew for every draw."""

    __slots__ = ("_array", "_entries", "_ids", "_pointer")

    def __init__(self, vocabulary_size: int) -> None:
        entry = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._entries = np.zeros(vocabulary_size, entry)
        self._ids = np.arange(vocabulary_size, dtype=np.int32)
        self._array = llama_cpp.llama_token_data_array(
            data=self._entries.ctypes.data_as(llama_cpp.llama_token_data_p),
            size=vocabulary_size,
            selected=-1,
            sorted=False,
        )
        self._pointer: Any = ctypes.pointer(self._array)

    def fill(self, logits: Any) -> None:
        """Take the logits of one position, all tokens in the order of their ids."""
        size = len(self._entries)
        self._entries["id"] = self._ids
        self._entries["logit"] = np.ctypeslib.as_array(logits, (size,))
        self._entries["p"] = 0.0
        self._array.size = size
        self._array.selected = -1
        self._array.sorted = False

    def apply(self, sampler: Any) -> None:
        """Let a sampler mask, sort or select."""
        llama_cpp.llama_sampler_apply(sampler, self._pointer)

    @property
    def selected(self) -> int:
        """The token that the last sampler of a chain picked; :class:`SamplingFailed` for none."""
        index = self._array.selected
        if not 0 <= index < self._array.size or np.isneginf(self._entries["logit"][index]):
            raise SamplingFailed("all token candidates were eliminated during sampling")
        return int(self._entries["id"][index])


class GrammarSampler:
    """A grammar at work on one answer. ``close`` frees it, once however often it is called."""

    __slots__ = ("_sampler",)

    def __init__(self, vocab: Any, grammar: Gbnf) -> None:
        self._sampler: Any = None
        try:
            size = llama_cpp.llama_vocab_n_tokens(vocab)
            check_grammar(grammar, vocabulary_size=size)
        except UnsafeGrammar as error:
            raise SamplingFailed(str(error)) from error
        self._sampler = llama_cpp.llama_sampler_init_grammar(
            vocab, grammar.text.encode("utf-8", "replace"), grammar.root.encode("utf-8", "replace")
        )
        if not self._sampler:
            raise SamplingFailed(f"the grammar does not compile, or has no rule {grammar.root!r}")

    @property
    def handle(self) -> Any:
        """The native sampler."""
        return self._sampler

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        entry = llama_cpp.llama_token_data(id=token, logit=1.0, p=0.0)
        array = llama_cpp.llama_token_data_array(
            data=ctypes.pointer(entry), size=1, selected=-1, sorted=False
        )
        pointer: Any = ctypes.pointer(array)
        llama_cpp.llama_sampler_apply(self._sampler, pointer)
        return bool(entry.logit != -math.inf)

    def accept(self, token: int) -> None:
        """This token, which is allowed, comes next."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Free the grammar."""
        sampler, self._sampler = self._sampler, None
        if sampler:
            llama_cpp.llama_sampler_free(sampler)


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

    def sample(self, context: Any, output_index: int, candidates: Candidates) -> int:
        """Draw from the logits of the batch's token ``output_index``, and accept the drawn one.

        Raises :class:`SamplingFailed` when nothing may follow.
        """
        if self._grammar is None:
            token: int = llama_cpp.llama_sampler_sample(self._chain, context, output_index)
            return token
        began_at = time.thread_time()
        token = self._sample_under(self._grammar, context, output_index, candidates)
        self._grammar.accept(token)
        if time.thread_time() - began_at > MAX_GRAMMAR_S:
            raise SamplingFailed(
                "the grammar is too ambiguous here: following it takes more than "
                f"{MAX_GRAMMAR_S:g} s for one token"
            )
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _sample_under(
        self, grammar: GrammarSampler, context: Any, output_index: int, candidates: Candidates
    ) -> int:
        # Asking the grammar about the whole vocabulary costs far more than about one token.
        # Drawing without it first, and again under it only if the draw is not allowed, gives
        # every allowed token the same chance.
        logits = llama_cpp.llama_get_logits_ith(context, output_index)
        candidates.fill(logits)
        candidates.apply(self._chain)
        token = candidates.selected
        if grammar.allows(token):
            return token
        candidates.fill(logits)
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
