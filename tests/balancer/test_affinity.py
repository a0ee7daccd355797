from typing import Any

import pytest

from paddler.balancer.affinity import BLOCK_CHARACTERS, MAX_BLOCKS, PrefixIndex, blocks_of
from paddler.messages import chat
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
    EmbeddingInput,
    GenerateEmbeddingBatch,
    ImagePart,
    ImageUrl,
    TextPart,
)
from paddler.messages.link import ChatJob, ConversationJob, EmbeddingJob, Job, RawPromptJob

LONG = "A system prompt that says a lot. " * 40  # 1,320 characters


def raw(text: str) -> Job:
    return RawPromptJob(ContinueFromRawPrompt(raw_prompt=text, max_tokens=1))


def conversation(*texts: str) -> Job:
    messages = [ConversationMessage("user", text) for text in texts]
    return ConversationJob(
        ContinueFromConversationHistory(
            add_generation_prompt=True,
            conversation_history=messages,
            enable_thinking=False,
            max_tokens=1,
        )
    )


def chatting(*contents: Any, **options: Any) -> Job:
    messages = [chat.Message(role="user", content=content) for content in contents]
    return ChatJob(chat.Chat(messages=messages, max_tokens=1, enable_thinking=False, **options))


def common(left: Job, right: Job) -> int:
    """How many blocks of both are the same, from the first on."""
    pairs = list(zip(blocks_of(left), blocks_of(right), strict=False))
    same = [one == other for one, other in pairs]
    return same.index(False) if False in same else len(same)


@pytest.mark.parametrize("make", [raw, conversation, chatting])
def test_prompts_that_begin_alike_have_their_first_blocks_in_common(make: Any) -> None:
    assert common(make(LONG + "one"), make(LONG + "two")) == len(LONG) // BLOCK_CHARACTERS
    assert common(make("x" + LONG), make(LONG)) == 0


def test_the_next_turn_begins_with_the_turns_before() -> None:
    assert common(conversation(LONG, LONG), conversation(LONG, LONG, LONG)) == 10


def test_roles_and_tools_and_images_are_part_of_what_is_compared() -> None:
    image = [ImagePart(ImageUrl(f"data:image/png;base64,{'A' * 9000}{end}")) for end in "xy"]
    tool = chat.Tool(chat.Function("f", LONG))
    assert common(chatting([TextPart(LONG)]), chatting(LONG)) > 4
    assert common(chatting([image[0], TextPart(LONG)]), chatting([image[1], TextPart(LONG)])) <= 1
    assert common(chatting([image[0], TextPart(LONG)]), chatting([image[0], TextPart(LONG)])) > 4
    assert common(chatting(LONG, tools=[tool]), chatting(LONG)) == 0


def test_short_prompts_and_embeddings_have_no_blocks() -> None:
    documents = [EmbeddingInput(id="1", content=LONG)]
    job = EmbeddingJob(GenerateEmbeddingBatch(input_batch=documents, normalization_method="None"))
    assert blocks_of(raw("short")) == blocks_of(job) == []


def test_blocks_are_bounded() -> None:
    assert len(blocks_of(raw("x" * 10_000_000))) == MAX_BLOCKS
    assert len(blocks_of(conversation(*["x" * 100] * 10_000))) == MAX_BLOCKS
    long = TextPart("x" * BLOCK_CHARACTERS * MAX_BLOCKS)
    never_looked_at = None
    assert len(blocks_of(chatting([long, never_looked_at]))) == MAX_BLOCKS


def test_the_longest_known_beginning_tells_the_agent() -> None:
    index = PrefixIndex()
    first, second = blocks_of(raw(LONG)), blocks_of(raw(LONG * 2))
    assert index.find(first) is None
    index.note(second, "a")
    index.note(first, "b")
    assert index.find(second) == "a"
    assert index.find(first) == "b"
    assert index.find(blocks_of(raw("x" + LONG))) is None
    assert index.find([]) is None


def test_what_was_sent_last_is_known_longest() -> None:
    index = PrefixIndex(limit=3)
    index.note([1, 2], "a")
    index.note([3], "b")
    index.note([1], "a")
    index.note([4], "c")
    assert len(index) == 3
    assert [index.find([block]) for block in (1, 2, 3, 4)] == ["a", None, "b", "c"]
