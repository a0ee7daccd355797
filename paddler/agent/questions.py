"""Answers what the balancer asks about this agent."""

import asyncio
from typing import assert_never

import msgspec

from paddler.agent.worker.bounded import BoundedProcess
from paddler.agent.worker.chat_template import TemplateCompileError, TemplateRenderError
from paddler.messages import link as wire
from paddler.messages.state import ApplicableState

NO_TOKENS = {"bos_token": "", "eos_token": "", "nl_token": ""}


class Questions:
    """Holds what answers need: the newest state, and what the last model file says.

    Neither is cleared when a model is unloaded or fails to load.
    """

    def __init__(self) -> None:
        self._state: ApplicableState | None = None
        self._metadata: dict[str, str] | None = None
        self._special_tokens = NO_TOKENS
        self._rendering = asyncio.Lock()

    def on_state(self, state: ApplicableState) -> None:
        """The balancer asks for this state."""
        self._state = state

    def on_opened(self, metadata: dict[str, str], special_tokens: dict[str, str]) -> None:
        """A model file was opened."""
        self._metadata = metadata
        self._special_tokens = special_tokens

    async def answer(self, question: wire.Question) -> wire.Answer:
        """The answer to one question."""
        match question.ask:
            case wire.AskMetadata():
                value = None if self._metadata is None else {"metadata": self._metadata}
            case wire.AskTemplateOverride():
                override = self._state.chat_template_override if self._state is not None else None
                value = msgspec.to_builtins(override)
            case wire.RenderTemplate() as render:
                return await self._render(question.number, render)
            case _:
                assert_never(question.ask)
        return wire.Answer(question.number, value)

    async def _render(self, number: int, render: wire.RenderTemplate) -> wire.Answer:
        # One at a time: each of them may use a processor for its whole time.
        async with self._rendering:
            try:
                text = await asyncio.to_thread(render_apart, render, self._special_tokens)
            except (TemplateCompileError, TemplateRenderError) as error:
                return wire.Answer(number, error=str(error))
        return wire.Answer(number, text)


def render_apart(render: wire.RenderTemplate, special_tokens: dict[str, str]) -> str:
    """The prompt, rendered in a process that may die of it."""
    with BoundedProcess(render.source, special_tokens) as process:
        return process.render(
            render.messages,
            add_generation_prompt=render.add_generation_prompt,
            enable_thinking=render.enable_thinking,
            tools=render.tools,
        )
