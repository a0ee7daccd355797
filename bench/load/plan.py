"""What a run of the load generator does. Frozen, checked, without I/O."""

from enum import Enum
from typing import Any

import msgspec

from bench.load.distribution import Distribution
from paddler.errors import ConfigError


class Api(Enum):
    """What is asked, and in which form the answer comes; the value is a flag's."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    NATIVE_CHAT = "native-chat"
    NATIVE_PROMPT = "native-prompt"
    NATIVE_EMBEDDINGS = "native-embeddings"

    @property
    def path(self) -> str:
        """Where servers have it."""
        return {
            Api.CHAT: "/v1/chat/completions",
            Api.COMPLETIONS: "/v1/completions",
            Api.EMBEDDINGS: "/v1/embeddings",
            Api.NATIVE_CHAT: "/api/v1/continue_from_conversation_history",
            Api.NATIVE_PROMPT: "/api/v1/continue_from_raw_prompt",
            Api.NATIVE_EMBEDDINGS: "/api/v1/generate_embedding_batch",
        }[self]

    @property
    def is_native(self) -> bool:
        """Whether it is Paddler's own, which streams always."""
        return self.value.startswith("native")

    @property
    def embeds(self) -> bool:
        """Whether it answers with embeddings."""
        return self in (Api.EMBEDDINGS, Api.NATIVE_EMBEDDINGS)

    @property
    def has_turns(self) -> bool:
        """Whether it takes conversations."""
        return self in (Api.CHAT, Api.NATIVE_CHAT)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. ``headers`` come with each of them."""

    host: str
    port: int
    path: str
    is_tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """For people."""
        scheme = "https" if self.is_tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{self.path}"


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What requests look like.

    ``shared_prefix`` words open each prompt, the same ones in all prompts of one of
    ``prefixes`` groups. A conversation has ``turns`` requests, each with all that was said
    before. ``extra`` is merged into each body.
    """

    api: Api
    model: str
    prompt: Distribution
    output: Distribution
    is_streamed: bool = True
    shared_prefix: int = 0
    prefixes: int = 1
    turns: int = 1
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.turns > 1 and not self.api.has_turns:
            raise ConfigError(
                f"--turns {self.turns}: --api {self.api.value} has no turns (chat, native-chat)"
            )


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run: at most ``duration_s``, at most ``requests``, whichever ends first.

    Closed loop: ``streams`` clients that ask anew as soon as they are answered. Open loop:
    requests begin at random times, ``arrivals_per_s`` on average, whether or not earlier ones
    are answered; at most ``streams`` are under way, and what waits for that is part of the
    latency. Nothing of the first ``warmup_s`` is counted. Afterwards, ``drain_s`` are left for
    what is under way. ``are_stamped``: tokens tell when they were made. ``watched_pid``: a process
    of this machine whose processor time is measured over the very time that counts.
    """

    target: Target
    mix: Mix
    streams: int
    arrivals_per_s: float | None = None
    duration_s: float = 10.0
    requests: int | None = None
    warmup_s: float = 0.0
    ramp_s: float = 0.0
    drain_s: float = 5.0
    timeout_s: float = 120.0
    are_stamped: bool = False
    watched_pid: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.warmup_s >= self.duration_s:
            raise ConfigError(
                f"--warmup {self.warmup_s:g}: expected less than --duration {self.duration_s:g}"
            )
