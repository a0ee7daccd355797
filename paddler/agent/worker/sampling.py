"""How one request samples: its values, the plan they make, and how a token is drawn by it.

Order: logit bias → grammar → penalties → top-k → top-p → min-p → temperature → draw. Bias and
penalties change few logits, in place and for the length of one draw; then the top k are
picked in one pass, and llama.cpp's samplers see no others. What is drawn is the same as if
each stage had walked the whole vocabulary. A stage that would change nothing is left out.
"""

import functools
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from paddler._fastpath import SeenTokens
from paddler.agent.worker.candidates import Candidates, SamplingFailed
from paddler.agent.worker.grammar_sampler import FirstBytes, GrammarSampler
from paddler.messages.link import Sampling
from paddler.messages.state import InferenceParameters

Logits = npt.NDArray[np.float32]

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


class Penalties(NamedTuple):
    """What tokens lose that are among the last ``window``; see llama.h, penalties."""

    window: int
    repeat: float
    frequency: float
    presence: float


class Plan(NamedTuple):
    """How the tokens of one request are drawn.

    ``bias``: what is added to the logits of tokens. ``most``: so many of the likeliest are
    all that may be drawn; 0: any may. ``chain``: the stages for those; the last one picks.
    """

    bias: tuple[tuple[int, float], ...]
    penalties: Penalties | None
    most: int
    chain: list[Stage]


def plan_of(values: SamplingValues, *, vocabulary_size: int) -> Plan:
    """What changes something, of all that the values say."""
    # Ids that are no tokens are without effect.
    bias = tuple(
        (token, bias)
        for token, bias in values.logit_bias.items()
        if 0 <= token < vocabulary_size and bias
    )
    penalties = None
    costs = (values.penalty_repeat, values.penalty_frequency, values.penalty_presence)
    if values.penalty_last_n > 0 and costs != (1.0, 0.0, 0.0):
        penalties = Penalties(values.penalty_last_n, *costs)
    if values.temperature <= 0.0:
        # Top-k, top-p and min-p all keep the likeliest token, which is the one taken.
        return Plan(bias, penalties, 1, [Stage("greedy", ())])
    most = values.top_k if 0 < values.top_k < vocabulary_size else 0
    chain = []
    if most:  # also where a grammar has left more than the likeliest
        chain.append(Stage("top_k", (most,)))
    if values.top_p < 1.0:
        chain.append(Stage("top_p", (values.top_p, 1)))
    if values.min_p > 0.0:
        chain.append(Stage("min_p", (values.min_p, 1)))
    if values.temperature != 1.0:
        chain.append(Stage("temp", (values.temperature,)))
    chain.append(Stage("dist", (values.seed,)))
    return Plan(bias, penalties, most, chain)


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


class Sampler:
    """Draws the tokens of one answer by a plan, maybe under a grammar.

    ``close`` frees llama.cpp's part of it, once however often it is called.
    """

    __slots__ = ("_chain", "_grammar", "_plan", "_seen")

    def __init__(
        self, plan: Plan, *, vocabulary_size: int, grammar: GrammarSampler | None = None
    ) -> None:
        self._plan = plan
        self._grammar = grammar
        self._seen: SeenTokens | None = None
        if plan.penalties is not None:
            self._seen = SeenTokens(vocabulary_size, plan.penalties.window)
        self._chain: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        for stage in plan.chain:
            make = getattr(llama_cpp, f"llama_sampler_init_{stage.name}")
            llama_cpp.llama_sampler_chain_add(self._chain, make(*stage.arguments))

    def accept_prompt(self, prompt: Sequence[int]) -> None:
        """Let the penalties know the prompt; only as much of it as they look back on."""
        if self._seen is not None and self._plan.penalties is not None:
            for token in prompt[-self._plan.penalties.window :]:
                self._seen.accept(token)

    def sample(self, logits: Logits, desk: "DrawingDesk") -> int:
        """Draw a token and accept it. ``logits`` are the same before and after.

        Raises :class:`SamplingFailed` when nothing may follow.
        """
        if self._grammar is None:
            token = self._draw_adjusted(logits, desk)
        else:
            token = self._draw_by_grammar(self._grammar, logits, desk)
        if self._seen is not None:
            self._seen.accept(token)
        return token

    def _draw_by_grammar(self, grammar: GrammarSampler, logits: Logits, desk: "DrawingDesk") -> int:
        began_at = time.thread_time()
        token = self._draw_adjusted(logits, desk)
        grammar.accept(token)
        if time.thread_time() - began_at > MAX_GRAMMAR_S:
            raise SamplingFailed(
                "the grammar is too ambiguous here: following it takes more than "
                f"{MAX_GRAMMAR_S:g} s for one token"
            )
        return token

    def close(self) -> None:
        """Free the chain, its stages and the grammar."""
        chain, self._chain = self._chain, None
        if chain is not None:
            llama_cpp.llama_sampler_free(chain)
        if self._grammar is not None:
            self._grammar.close()

    def _draw_adjusted(self, logits: Logits, desk: "DrawingDesk") -> int:
        """Draw while bias and penalties count."""
        before = [(token, logits[token]) for token, _ in self._plan.bias]
        for token, bias in self._plan.bias:
            logits[token] += bias
        penalties = self._plan.penalties
        if self._seen is not None and penalties is not None:
            self._seen.penalize(logits.data, *penalties[1:])
        try:
            return self._draw(logits, desk)
        finally:
            if self._seen is not None:
                self._seen.restore(logits.data)
            for token, logit in before:
                logits[token] = logit

    def _draw(self, logits: Logits, desk: "DrawingDesk") -> int:
        candidates = desk.candidates
        if self._plan.most:
            candidates.fill_likeliest(logits, self._plan.most)
        else:
            candidates.fill(logits)
        candidates.apply(self._chain)
        token = candidates.selected
        # Asking the grammar about the whole vocabulary costs far more than about one token.
        # Drawing without it first, and again under it only if the draw is not allowed, gives
        # every allowed token the same chance.
        if self._grammar is None or self._grammar.allows(token):
            return token
        candidates.fill(logits, self._grammar.possible(desk.first_bytes))
        candidates.apply(self._grammar.handle)
        candidates.apply(self._chain)
        return candidates.selected
