"""Which agent already holds the beginning of a prompt, as far as the balancer can tell.

An agent that has just computed a prompt can go on from it: the next turn of that
conversation, or another with the same system prompt, is best sent there. Agents are not
asked. What was sent where is remembered by hashes of the prompts' blocks, each over all
that comes before it, so that the last known block tells the longest known beginning.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

import msgspec

from paddler.messages.inference import ImagePart, TextPart
from paddler.messages.link import ChatJob, ConversationJob, EmbeddingJob, Job, RawPromptJob

BLOCK_CHARACTERS: Final = 256
MAX_BLOCKS: Final = 256
"""Of one prompt: what comes behind its first 64 KiB decides nothing."""
MAX_KNOWN_BLOCKS: Final = 65_536
"""Of all prompts; about 10 MB."""


class PrefixIndex:
    """Remembers which agent was given which beginning last; the least recent are forgotten."""

    def __init__(self, limit: int = MAX_KNOWN_BLOCKS) -> None:
        self._limit = limit
        self._agents: OrderedDict[int, str] = OrderedDict()  # ids, by the hash of a beginning

    def __len__(self) -> int:
        return len(self._agents)

    def note(self, blocks: Sequence[int], agent_id: str) -> None:
        """A prompt of these blocks was sent to this agent."""
        for block in blocks:
            self._agents[block] = agent_id
            self._agents.move_to_end(block)
        while len(self._agents) > self._limit:
            self._agents.popitem(last=False)

    def find(self, blocks: Sequence[int]) -> str | None:
        """The agent that was given the longest beginning of this prompt; it may have left."""
        for block in reversed(blocks):
            if (agent_id := self._agents.get(block)) is not None:
                return agent_id
        return None


def blocks_of(job: Job) -> list[int]:
    """Hashes of a prompt's whole blocks, in order; none for embeddings, which are not reused."""
    text = ""
    before = 0
    blocks: list[int] = []
    for piece in _pieces(job):
        text += piece
        at = 0
        while len(text) - at >= BLOCK_CHARACTERS and len(blocks) < MAX_BLOCKS:
            before = hash((before, text[at : at + BLOCK_CHARACTERS]))
            blocks.append(before)
            at += BLOCK_CHARACTERS
        if len(blocks) == MAX_BLOCKS:
            break
        text = text[at:]
    return blocks


def _pieces(job: Job) -> Iterator[str]:
    """What a prompt is made of, roughly in the order that chat templates give it."""
    match job:
        case RawPromptJob(request):
            yield request.raw_prompt
        case ConversationJob(conversation):
            if conversation.tools:
                yield msgspec.json.encode(conversation.tools).decode()
            for message in conversation.conversation_history:
                yield from _message(message.role, message.content)
        case ChatJob(chat):
            if chat.tools:
                yield msgspec.json.encode(chat.tools).decode()
            for turn in chat.messages:
                yield from _message(turn.role, turn.content)
        case EmbeddingJob():
            return
        case _:
            assert_never(job)


def _message(role: str, content: str | list[TextPart | ImagePart] | None) -> Iterator[str]:
    opening = f"\0{role}\0"
    if isinstance(content, str):
        yield opening + content
        return
    yield opening  # there may be many parts behind it, which are not joined for nothing
    for part in content or ():
        if isinstance(part, TextPart):
            yield part.text
        else:  # it may have millions of characters, of which the first are a common header
            url = part.image_url.url
            yield f"\0{len(url)}\0{url[-BLOCK_CHARACTERS:]}"
