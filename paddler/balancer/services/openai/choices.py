"""Several answers to one request, side by side, each in a slot of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from paddler.balancer.link import Completed, Concluded
from paddler.balancer.relay import Outcome
from paddler.messages.inference import Failure, TokenUsage


async def run_choices(
    choices: Sequence[Callable[[], Awaitable[Outcome]]],
) -> list[Completed] | Concluded | Failure:
    """How all choices ended; the first that fails ends the others."""
    if len(choices) == 1:
        outcome = await choices[0]()
        return [outcome] if isinstance(outcome, Completed) else outcome
    failed: list[Concluded | Failure] = []
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        completed: dict[int, Completed] = {}

        async def run(index: int, choice: Callable[[], Awaitable[Outcome]]) -> None:
            outcome = await choice()
            if isinstance(outcome, Completed):
                completed[index] = outcome
                return
            failed.append(outcome)
            for task in tasks:
                if task is not asyncio.current_task():
                    task.cancel()

        tasks += [group.create_task(run(*numbered)) for numbered in enumerate(choices)]
    if failed:
        return failed[0]
    return [completed[index] for index in range(len(choices))]


def total_usage(completed: Sequence[Completed]) -> TokenUsage:
    """What all choices cost: the prompt, which they share, counts once."""
    first = completed[0].finished.usage
    if len(completed) == 1:
        return first
    usages = [one.finished.usage for one in completed]
    return TokenUsage(
        prompt_tokens=first.prompt_tokens,
        cached_prompt_tokens=first.cached_prompt_tokens,
        input_image_tokens=first.input_image_tokens,
        content_tokens=sum(usage.content_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        tool_call_tokens=sum(usage.tool_call_tokens for usage in usages),
        undeterminable_tokens=sum(usage.undeterminable_tokens for usage in usages),
    )
