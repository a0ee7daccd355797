"""Request bodies of each API, and conversations that grow by turns."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.load.plan import Api, Mix
from bench.load.wording import Wording

Message = dict[str, str]
encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, frozen=True):
    """One request: its body, and the conversation that it ends; empty without turns."""

    body: bytes
    conversation: tuple[Message, ...] = ()


class Bodies:
    """Draws requests of a mix."""

    def __init__(self, mix: Mix, dice: random.Random) -> None:
        self._mix = mix
        self._dice = dice
        self._wording = Wording(dice)
        self._prefixes = [
            self._wording.text(mix.shared_prefix) if mix.shared_prefix else ""
            for _ in range(mix.prefixes)
        ]

    def first(self) -> Asked:
        """A request that continues nothing."""
        prefix = self._dice.choice(self._prefixes)
        text = self._wording.text(self._mix.prompt.draw(self._dice))
        if self._mix.api.has_turns:
            opening: tuple[Message, ...] = ()
            if prefix:
                opening = ({"role": "system", "content": prefix},)
            return self._ask((*opening, {"role": "user", "content": text}))
        return Asked(encode(self._body(f"{prefix} {text}" if prefix else text)))

    def next_turn(self, asked: Asked, answer: str) -> Asked:
        """The same conversation, its answer and one more question in it."""
        text = self._wording.text(self._mix.prompt.draw(self._dice))
        said = {"role": "assistant", "content": answer}
        return self._ask((*asked.conversation, said, {"role": "user", "content": text}))

    def turns_of(self, asked: Asked) -> int:
        """How many questions the conversation has."""
        return sum(message["role"] == "user" for message in asked.conversation)

    def _ask(self, conversation: tuple[Message, ...]) -> Asked:
        return Asked(encode(self._body(conversation)), conversation)

    def _body(self, content: str | tuple[Message, ...]) -> dict[str, Any]:
        mix = self._mix
        tokens = mix.output.draw(self._dice)
        body: dict[str, Any]
        match mix.api:
            case Api.CHAT:
                body = {"model": mix.model, "messages": content, "max_tokens": tokens}
            case Api.COMPLETIONS:
                body = {"model": mix.model, "prompt": content, "max_tokens": tokens}
            case Api.EMBEDDINGS:
                body = {"model": mix.model, "input": content}
            case Api.NATIVE_CHAT:
                body = {
                    "add_generation_prompt": True,
                    "conversation_history": content,
                    "enable_thinking": False,
                    "max_tokens": tokens,
                }
            case Api.NATIVE_PROMPT:
                body = {"raw_prompt": content, "max_tokens": tokens}
            case Api.NATIVE_EMBEDDINGS:
                body = {
                    "input_batch": [{"id": "0", "content": content}],
                    "normalization_method": "L2",
                }
        if mix.is_streamed and not mix.api.is_native and not mix.api.embeds:
            body["stream"] = True
        return body | mix.extra


def head_of(host: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """A request's head up to the length of its body."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\ncontent-length: "


def seeds(seed: int | None) -> Iterator[random.Random]:
    """Independent dice; the same ones for the same seed."""
    source = random.Random(seed)
    while True:
        yield random.Random(source.getrandbits(64))
