import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import pytest

from paddler.agent.slot_table import SharedSlotTable, SlotRow, SlotState, create_slot_memory
from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.engine import DecodeOutcome, ScriptedEngine
from paddler.agent.worker.images import RgbImage
from paddler.agent.worker.markers import ModelFormat
from paddler.agent.worker.prompts import Prompt, PromptMaker
from paddler.agent.worker.sections import Markers
from paddler.agent.worker.slot_places import MOST_MOVED_TOKENS
from paddler.agent.worker.streams import COPIES_ON_CPU, COPIES_ON_GPU, EngineBroken, Streams
from paddler.errors import RemoteProtocolError
from paddler.messages import chat
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
    GbnfGrammar,
    GeneratedTokenResult,
    ImagePart,
    ImageUrl,
    JsonSchemaGrammar,
    TextPart,
    TokenUsage,
)
from paddler.messages.link import (
    ChatJob,
    ConversationJob,
    Delivery,
    FrameKind,
    RawPromptJob,
    Sampling,
    StartStream,
    StopStream,
    TextJob,
    decode_finished,
)
from tests.agent.worker.frames import Answer, Frame, split_frames

T = TypeVar("T")

LABEL = "unnamed agent"
EVICTED = "Request evicted due to KV cache pressure"

# Writes what a conversation holds, and nothing else.
TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
)

# By address. The scripted engine takes the width as cells and the height as positions.
PICTURES = {
    "data:wide": RgbImage(10, 2, b"pixels"),
    "data:huge": RgbImage(65, 2, b"pixels"),
    "data:broken": RgbImage(10, 2, b""),
}


class Harness:
    """Streams over a scripted engine, with a clock that counts and all frames kept."""

    def __init__(self, engine: ScriptedEngine, slots: int, form: ModelFormat | None = None) -> None:
        fd = create_slot_memory(slots)
        self.table = SharedSlotTable(fd, slots)
        os.close(fd)
        self.engine = engine
        self.now = 0.0
        self.frames: list[Frame] = []
        self.is_aside_slow = False
        self.aside: list[Callable[[], object]] = []  # what a slow one has not done yet
        self.prompts = PromptMaker(
            LABEL,
            ChatTemplate(TEMPLATE, bos_token="", eos_token="", nl_token=""),
            prepare_images=lambda urls: [PICTURES[url] for url in urls],
            sees_images=True,
            form=form,
        )
        self.streams = Streams(
            engine,
            self.prompts,
            self.table,
            agent_label=LABEL,
            run_aside=self.run_aside,
            clock=lambda: self.now,
        )

    def run_aside(self, work: Callable[[], T], take: Callable[[T], object]) -> None:
        if self.is_aside_slow:
            self.aside.append(lambda: take(work()))
        else:
            take(work())

    def start(
        self,
        stream_id: int,
        prompt: str,
        *,
        max_tokens: int = 100,
        seed: int | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        request = ContinueFromRawPrompt(raw_prompt=prompt, max_tokens=max_tokens)
        self.streams.start(
            StartStream(
                stream_id=stream_id,
                job=RawPromptJob(request),
                sampling=Sampling(seed=seed),
                delivery=delivery or Delivery(),
            )
        )

    def show(self, stream_id: int, *parts: str, max_tokens: int = 100) -> None:
        """Start a conversation of one message; a part ``data:…`` is an image."""
        content: list[TextPart | ImagePart] = [
            ImagePart(ImageUrl(part)) if part.startswith("data:") else TextPart(part)
            for part in parts
        ]
        request = ContinueFromConversationHistory(
            add_generation_prompt=True,
            conversation_history=[ConversationMessage("user", content)],
            enable_thinking=False,
            max_tokens=max_tokens,
        )
        self.streams.start(StartStream(stream_id=stream_id, job=ConversationJob(request)))

    def step(self) -> list[Frame]:
        self.now += 1.0
        self.streams.step()
        return self.take()

    def take(self) -> list[Frame]:
        taken = self.streams.take_frames()
        if taken is None:
            return []
        frames = split_frames(taken[0])
        assert tuple(frame.stream_id for frame in frames if frame.is_final) == taken[1]
        self.frames += frames
        return frames

    def finish(self) -> None:
        while self.streams.is_running:
            self.step()
        self.take()

    def answer(self, stream_id: int) -> Answer:
        return Answer([frame for frame in self.frames if frame.stream_id == stream_id])


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    options = dict(getattr(request, "param", {}))
    slots = options.get("slots", 4)
    form = options.pop("form", None)
    harness = Harness(ScriptedEngine(**{"slots": slots} | options), slots, form)
    yield harness
    # Whatever happened: nothing is held for streams that have ended.
    if not harness.streams.is_running:
        assert harness.engine.open_slots == set()
        assert harness.engine.open_prompts == 0
        assert {row.state for row in harness.table.rows()} == {SlotState.IDLE}
    harness.table.close()


def engine(**options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("harness", [options], indirect=True, ids=[""])


@engine(answers={"ask": b"told"})
def test_stream_says_each_token_and_how_it_ended(harness: Harness) -> None:
    harness.start(1, "ask")
    harness.finish()
    answer = harness.answer(1)
    assert (answer.texts, answer.reason) == (["t", "o", "l", "d"], "stop")
    # The end-of-turn token is counted and not said.
    assert answer.usage == TokenUsage(prompt_tokens=3, undeterminable_tokens=5)


@pytest.mark.parametrize(
    ("max_tokens", "tokens"), [(5, 5), (2, 2), (1, 1), (0, 1), (-7, 1)], ids=str
)
def test_max_tokens_stops_after_exactly_as_many(
    harness: Harness, max_tokens: int, tokens: int
) -> None:
    harness.start(1, "a long prompt", max_tokens=max_tokens)
    harness.finish()
    answer = harness.answer(1)
    assert (len(answer.texts), answer.reason) == (tokens, "length")
    assert answer.usage.completion_tokens == tokens


@engine(answers={"ask": b"abc"})
def test_end_token_at_the_limit_counts_as_a_stop(harness: Harness) -> None:
    harness.start(1, "ask", max_tokens=4)
    harness.finish()
    assert harness.answer(1).reason == "stop"


@engine(answers={"ask": "€!".encode()})
def test_token_inside_a_character_makes_no_frame_but_counts(harness: Harness) -> None:
    harness.start(1, "ask")
    harness.finish()
    assert harness.answer(1).texts == ["€", "!"]
    assert harness.answer(1).usage.undeterminable_tokens == 5


@engine(answers={"ask": "€".encode()})
def test_held_text_is_said_before_the_end(harness: Harness) -> None:
    harness.start(1, "ask", max_tokens=2)
    harness.finish()
    assert (harness.answer(1).texts, harness.answer(1).reason) == (["\ufffd"], "length")


@engine(answers={"a": b"11", "b": b"22"})
def test_streams_share_steps_and_each_speaks_in_every_one(harness: Harness) -> None:
    harness.start(1, "a")
    harness.start(2, "b")
    spoken = [[(f.stream_id, f.kind) for f in harness.step()] for _ in range(3)]
    token, done = FrameKind.UNDETERMINABLE, FrameKind.DONE
    assert spoken == [[(1, token), (2, token)]] * 2 + [[(1, done), (2, done)]]
    assert len(harness.engine.batches) == 3


@engine(n_batch=64, max_prefill_beside_decode=16, answers={"a": b"x" * 40})
def test_long_prompt_does_not_stall_a_running_stream(harness: Harness) -> None:
    harness.start(1, "a")
    harness.step()
    harness.start(2, "p" * 100)
    for _ in range(6):
        assert [frame.stream_id for frame in harness.step()] == [1]
        assert harness.engine.batches[-1] == [(0, 1), (1, 16)]
    harness.step()
    assert harness.engine.batches[-1] == [(0, 1), (1, 4)]
    harness.streams.reset()


def test_stopped_stream_ends_as_cancelled_before_the_next_batch(harness: Harness) -> None:
    harness.start(1, "hello")
    harness.step()
    harness.streams.stop(StopStream(1))
    harness.take()
    answer = harness.answer(1)
    assert (answer.text, answer.reason) == ("h", "cancelled")
    assert answer.usage == TokenUsage(prompt_tokens=5, undeterminable_tokens=1)
    assert not harness.streams.is_running


def test_stopping_an_unknown_stream_says_nothing(harness: Harness) -> None:
    harness.streams.stop(StopStream(9))
    assert harness.take() == []


@engine(slots=1)
def test_stream_without_a_free_slot_is_refused(harness: Harness) -> None:
    harness.start(1, "a")
    harness.start(2, "b")
    harness.finish()
    assert harness.answer(2).error == {
        "SamplerError": "unnamed agent: no available sequence slots, all slots are busy"
    }
    assert harness.answer(1).reason == "stop"


def test_stream_started_twice_breaks_the_protocol(harness: Harness) -> None:
    harness.start(1, "a")
    with pytest.raises(RemoteProtocolError, match="stream 1 was started twice"):
        harness.start(1, "b")
    harness.streams.reset()


def test_a_grammar_that_does_not_compile_is_refused_and_leaves_the_slot_free(
    harness: Harness,
) -> None:
    grammar = GbnfGrammar("broken", "root")
    for stream_id in range(1, 8):  # more than there are slots
        request = ContinueFromRawPrompt(raw_prompt="x", max_tokens=1, grammar=grammar)
        harness.streams.start(StartStream(stream_id=stream_id, job=RawPromptJob(request)))
        harness.take()
        assert harness.answer(stream_id).error == {
            "GrammarInitializationFailed": f"{LABEL}: failed to initialize grammar sampler: broken"
        }


def test_refusal_by_the_prompt_takes_no_slot(harness: Harness) -> None:
    request = ContinueFromRawPrompt(raw_prompt="x", max_tokens=1, grammar=JsonSchemaGrammar("{"))
    harness.streams.start(StartStream(stream_id=1, job=RawPromptJob(request)))
    harness.take()
    assert list(harness.answer(1).error) == ["GrammarSyntaxError"]
    assert not harness.streams.is_running


def test_empty_prompt_is_refused(harness: Harness) -> None:
    harness.start(1, "")
    harness.take()
    assert harness.answer(1).error == {
        "SamplerError": "unnamed agent: failed to tokenize prompt: it is empty"
    }


@engine(context_size=50)
def test_prompt_that_cannot_fit_is_refused_before_decoding(harness: Harness) -> None:
    harness.start(1, "x" * 51)
    harness.take()
    assert harness.answer(1).error == {
        "SamplerError": f"{EVICTED}: the prompt has 51 tokens or more, the context 50"
    }
    assert harness.engine.batches == []


@engine(context_size=50)
def test_prompt_as_long_as_the_context_yields_a_token(harness: Harness) -> None:
    harness.start(1, "x" * 50, max_tokens=1)
    harness.finish()
    assert harness.answer(1).reason == "length"


@engine(context_size=60, answers={"long prompt": b"x" * 100, "short": b"y" * 30})
def test_full_context_ends_the_longest_stream_and_others_go_on(harness: Harness) -> None:
    harness.start(1, "short")
    harness.start(2, "long prompt")
    harness.finish()
    assert harness.answer(2).error == {"SamplerError": EVICTED}
    assert (harness.answer(1).text, harness.answer(1).reason) == ("y" * 30, "stop")
    # The step that did not fit was tried again without the evicted stream: no token is lost.
    assert harness.engine.cells[1] == 0


@engine(context_size=60, answers={"long prompt": b"x" * 100, "short": b"y" * 30})
def test_full_context_is_a_limit_for_who_wants_that(harness: Harness) -> None:
    harness.start(1, "short")
    harness.start(2, "long prompt", delivery=Delivery(context_is_limit=True))
    harness.finish()
    answer = harness.answer(2)
    assert answer.reason == "length"
    assert answer.text == "x" * answer.usage.completion_tokens
    assert (harness.answer(1).text, harness.answer(1).reason) == ("y" * 30, "stop")
    assert harness.engine.cells[1] == 0


@engine(context_size=20, n_batch=8, answers={"x": b"x" * 9})
def test_a_prompt_that_finds_the_context_full_is_no_answer_at_its_limit(harness: Harness) -> None:
    harness.start(1, "x")
    harness.start(2, "y" * 20, delivery=Delivery(context_is_limit=True))
    harness.finish()
    assert harness.answer(1).text == "x" * 9
    assert harness.answer(2).error == {"SamplerError": EVICTED}


@engine(context_size=40, answers={"a": b"x" * 100})
def test_lone_stream_that_outgrows_the_context_is_evicted(harness: Harness) -> None:
    harness.start(1, "a")
    harness.finish()
    assert harness.answer(1).error == {"SamplerError": EVICTED}
    assert harness.engine.cells[0] == 0


@engine(context_size=60, slots=3, answers={"new": b"y" * 30})
def test_cells_of_idle_slots_go_before_any_stream(harness: Harness) -> None:
    harness.start(1, "1" * 12)
    harness.finish()
    harness.start(2, "2" * 12)
    harness.finish()
    assert harness.engine.cells == [24, 24, 0]
    harness.start(3, "new")
    harness.finish()
    assert harness.answer(3).reason == "stop"
    assert harness.engine.cells == [0, 24, 33]


# --- each slot has cells of its own -------------------------------------------------------------


def divided(**options: object) -> pytest.MarkDecorator:
    """Two slots with 60 cells each, if nothing else is said."""
    return engine(**{"kv_unified": False, "slots": 2, "context_size": 120} | options)


@divided()
def test_prompt_is_bound_by_the_part_of_a_slot(harness: Harness) -> None:
    harness.start(1, "x" * 61)
    harness.start(2, "y" * 60, max_tokens=1)
    harness.finish()
    assert harness.answer(1).error == {
        "SamplerError": f"{EVICTED}: the prompt has 61 tokens or more, the context of a slot 60"
    }
    assert harness.answer(2).reason == "length"


@divided(answers={"a": b"x" * 100, "b" * 20: b"y" * 40})
@pytest.mark.parametrize("is_limit", [True, False])
def test_who_fills_its_slot_ends_and_no_other(
    harness: Harness, is_limit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    harness.start(1, "a", delivery=Delivery(context_is_limit=is_limit))
    harness.start(2, "b" * 20)
    harness.finish()
    assert (harness.answer(2).text, harness.answer(2).reason) == ("y" * 40, "stop")
    answer = harness.answer(1)
    assert answer.text == "x" * 60
    assert answer.error == {"SamplerError": EVICTED} if not is_limit else answer.reason == "length"
    assert harness.engine.cells[0] == 0
    told = [record.getMessage() for record in caplog.records]
    # Nobody is warned of what was to be expected.
    full = "stream 1 is evicted with 60 tokens: the context of a slot of 60 is full"
    assert told == ([] if is_limit else [full])


@engine(slots=2, context_size=60, answers={"a": b"x" * 50, "b": b"y" * 40})
def test_an_answer_that_ends_for_others_is_warned_of(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    for stream_id, prompt in ((1, "a"), (2, "b")):
        harness.start(stream_id, prompt, delivery=Delivery(context_is_limit=True))
    harness.finish()
    assert [harness.answer(one).reason for one in (1, 2)] == ["stop", "length"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@divided(slots=4, context_size=240, answers={"a": b"x" * 50, "1" * 40 + "c": b"z"})
def test_no_room_for_a_batch_is_not_taken_from_who_is_not_in_it(harness: Harness) -> None:
    harness.start(1, "idle" * 10, max_tokens=1)
    harness.finish()
    harness.start(2, "a")
    harness.show(3, "0" * 10, "data:wide", "b")
    harness.show(4, "1" * 40, "data:wide", "c")
    harness.step()
    # The next step decodes the image of the third, then a batch without the fourth.
    harness.engine.outcomes = [DecodeOutcome.DECODED, DecodeOutcome.NO_KV_ROOM]
    harness.finish()
    assert harness.answer(3).error == {"SamplerError": EVICTED}
    assert [harness.answer(one).reason for one in (2, 4)] == ["stop"] * 2
    assert harness.engine.cells[0] == 40


@divided(slots=3, context_size=3000, n_batch=512)
def test_idle_slots_keep_their_cells_beside_a_stream_that_runs_alone(harness: Harness) -> None:
    for stream_id, seed in ((1, None), (2, 7)):
        harness.start(stream_id, LONG + str(stream_id), seed=seed, max_tokens=1)
        harness.finish()
    assert harness.engine.cells == [len(LONG) + 1, len(LONG) + 1, 0]
    harness.start(3, LONG + "1?")
    harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == len(LONG) + 1


@divided(slots=3, context_size=3000, n_batch=512)
def test_a_beginning_is_copied_from_a_running_slot_if_it_is_long(harness: Harness) -> None:
    harness.start(1, LONG + "a", max_tokens=50)
    while not harness.step():  # all of its prompt is decoded with the first token
        pass
    harness.start(2, LONG + "b", max_tokens=5)
    harness.step()
    harness.start(3, LONG[: COPIES_ON_CPU.least_tokens - 1] + "c", max_tokens=5)
    harness.finish()
    cached = [harness.answer(one).usage.cached_prompt_tokens for one in (1, 2, 3)]
    assert cached == [0, len(LONG), 0]
    assert harness.answer(2).text == LONG[:5]


@divided(slots=4, context_size=2000, n_batch=16)
def test_prompts_that_come_at_once_wait_for_their_beginning_and_copy_it(harness: Harness) -> None:
    for stream_id in range(1, 5):
        harness.start(stream_id, f"{LONG}{stream_id}", max_tokens=5)
    harness.finish()
    cached = [harness.answer(one).usage.cached_prompt_tokens for one in range(1, 5)]
    assert cached == [0, *[len(LONG)] * 3]
    assert [harness.answer(one).text for one in range(1, 5)] == [LONG[:5]] * 4


def busy_slots(harness: Harness) -> dict[int, int]:
    """The slot of each stream that runs."""
    rows = enumerate(harness.table.rows())
    return {row.stream_id: slot for slot, row in rows if row.state is not SlotState.IDLE}


def turn(harness: Harness, stream_id: int, prompt: str) -> None:
    """Ask, with the others going on, and have the answer."""
    harness.start(stream_id, prompt, max_tokens=1)
    while stream_id in busy_slots(harness):
        harness.step()


@divided(slots=4, context_size=4000, n_batch=512)
def test_requests_are_decoded_in_slots_that_follow_one_another(harness: Harness) -> None:
    for stream_id, prompt in ((1, "a" * 30), (2, "b" * 30), (3, "c" * 30), (4, "d" * 30)):
        turn(harness, stream_id, prompt)  # in slots of their own, by what they hold
    harness.start(5, "d" * 31, max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {5: 3}
    harness.start(6, "a" * 31, max_tokens=60)  # what the first slot holds comes along
    harness.step()
    assert busy_slots(harness) == {5: 3, 6: 2}
    turn(harness, 7, "c" * 31)  # went to where the first was, and comes back
    harness.finish()
    cached = [harness.answer(one).usage.cached_prompt_tokens for one in (5, 6, 7)]
    assert cached == [30, 30, 30]


@divided(slots=5, context_size=5000, n_batch=512)
def test_the_slot_that_holds_least_is_brought_beside_another(harness: Harness) -> None:
    for stream_id, prompt in ((1, "a" * 30), (2, "b" * 30), (3, "c" * 300), (4, "d" * 30)):
        turn(harness, stream_id, prompt)
    harness.start(5, "d" * 31, max_tokens=60)
    harness.step()
    harness.start(6, "a" * 31, max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {5: 3, 6: 4}  # it was empty, and the third is long
    harness.finish()


def fill_four_slots(harness: Harness) -> None:
    """Have something in each, and the last of them busy with stream 5."""
    for stream_id, prompt in ((1, "a" * 30), (2, "b" * 30), (3, "c" * 30), (4, "d" * 30)):
        turn(harness, stream_id, prompt)
    harness.start(5, "d" * 31, max_tokens=60)
    harness.step()


@divided(slots=4, context_size=4000, n_batch=512)
def test_a_few_tokens_in_common_stay_where_they_are(harness: Harness) -> None:
    fill_four_slots(harness)
    harness.start(6, "a" * (COPIES_ON_CPU.least_tokens - 1) + "?" * 90, max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {5: 3, 6: 2}
    harness.finish()
    turn(harness, 7, "c" * 31)
    cached = [harness.answer(one).usage.cached_prompt_tokens for one in (6, 7)]
    assert cached == [0, 30]


@pytest.mark.parametrize(
    ("failing", "slot", "cached"),
    [
        pytest.param("swap_out", 0, [30, 30], id="nothing is moved"),
        pytest.param("share", 2, [30, 0], id="what was to be moved away"),
        pytest.param("swap_in", 2, [0, 30], id="what was to be brought along"),
    ],
)
@divided(slots=4, context_size=4000, n_batch=512)
def test_a_move_that_fails_loses_no_more_than_was_moved(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    slot: int,
    cached: list[int],
) -> None:
    fill_four_slots(harness)
    with monkeypatch.context() as patched:
        patched.setattr(harness.engine, failing, lambda *slots: False)
        harness.start(6, "a" * 31, max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {5: 3, 6: slot}
    turn(harness, 7, "c" * 31)
    harness.finish()
    assert [harness.answer(one).usage.cached_prompt_tokens for one in (6, 7)] == cached
    assert [harness.answer(one).text for one in (6, 7)] == ["a" * 31, "c"]


@divided(slots=4, context_size=4000, n_batch=512, can_keep_part=False)
def test_what_cannot_be_moved_gives_way_to_nobody(harness: Harness) -> None:
    for stream_id, prompt in ((1, "a" * 30), (2, "b" * 30), (3, "c" * 30)):
        harness.start(stream_id, prompt, max_tokens=100)
    harness.finish()
    harness.start(4, "b" * 60 + "?", max_tokens=60)  # in the middle
    harness.step()
    harness.start(5, "new", max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {4: 1, 5: 3}  # beside others would be another's slot
    harness.finish()
    for stream_id, prompt in ((6, "a" * 60 + "?"), (7, "c" * 60 + "?")):
        turn(harness, stream_id, prompt)
    assert [harness.answer(one).usage.cached_prompt_tokens for one in (4, 6, 7)] == [60] * 3


@divided(slots=4, context_size=4000, n_batch=512, can_keep_part=False)
def test_what_cannot_be_moved_is_gone_on_with_where_it_is(harness: Harness) -> None:
    for stream_id, prompt in ((1, "a"), (2, "b"), (3, "c")):
        harness.start(stream_id, prompt, max_tokens=100)
    harness.finish()
    harness.start(4, "cc?", max_tokens=60)
    harness.start(5, "aa?", max_tokens=60)  # the fourth slot is empty, and beside the other
    harness.step()
    assert busy_slots(harness) == {4: 2, 5: 0}
    harness.finish()
    assert [harness.answer(one).usage.cached_prompt_tokens for one in (4, 5)] == [2, 2]


@pytest.mark.parametrize(("more", "slot"), [(0, 3), (1, 0)])
@divided(slots=4, context_size=20_000, n_batch=512)
def test_what_is_long_stays_where_it_is(harness: Harness, more: int, slot: int) -> None:
    long = "a" * (MOST_MOVED_TOKENS + more)
    for stream_id, prompt in ((1, long), (2, "b" * 90), (3, "c" * 30)):
        turn(harness, stream_id, prompt)
    harness.start(4, "c" * 31, max_tokens=60)
    harness.step()
    harness.start(5, long + "a", max_tokens=60)
    harness.step()
    assert busy_slots(harness) == {4: 2, 5: slot}
    harness.finish()
    assert harness.answer(5).usage.cached_prompt_tokens == len(long)


@divided(slots=3, context_size=3000, n_batch=512)
def test_a_follower_copies_nothing_that_is_not_worth_it(harness: Harness) -> None:
    harness.engine.n_batch = COPIES_ON_CPU.least_tokens - 1
    harness.start(1, LONG + "a", max_tokens=5)
    harness.start(2, LONG + "b", max_tokens=5)
    harness.step()  # one batch of the first prompt; the second waits for it
    harness.streams.stop(StopStream(1))
    harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == 0


@pytest.mark.parametrize("is_worth_it", [True, False])
@divided(slots=3, context_size=6000, n_batch=512)
def test_a_gpu_copies_only_long_beginnings(harness: Harness, is_worth_it: bool) -> None:
    harness.engine.runs_on_cpu = False
    harness.streams = Streams(harness.engine, harness.prompts, harness.table, agent_label=LABEL)
    harness.start(1, "a" * 1000, max_tokens=50)
    while not harness.step():
        pass
    common = 1000 // COPIES_ON_GPU.cells_for_a_token + is_worth_it
    harness.start(2, "a" * common + "b", max_tokens=1)
    harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == (common if is_worth_it else 0)


@divided(answers={"a": b"x" * 30, "b": b"y" * 5})
def test_a_slot_is_clean_after_a_cancellation(harness: Harness) -> None:
    harness.start(1, "a")
    harness.start(2, "b")
    harness.step()
    harness.streams.stop(StopStream(1))
    harness.finish()
    harness.start(3, "c" * 60, max_tokens=1)
    harness.finish()
    assert harness.answer(1).reason == "cancelled"
    assert harness.answer(2).text == "y" * 5
    assert harness.answer(3).reason == "length"


@divided(answers={"a": b"x" * 60})
def test_an_image_counts_by_its_cells(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.show(1, "data:wide", "data:wide", "a")
    harness.finish()
    # Beside 20 cells of images, which take 4 positions, and the prompt's letter.
    assert harness.answer(1).text == "x" * 40
    assert harness.answer(1).error == {"SamplerError": EVICTED}
    assert [record.args[1] for record in caplog.records] == [60]


LONG = "so long a story that others are better without it. " * 6  # 306 tokens


@engine(context_size=2000, n_batch=512, answers={LONG: b"told"})
def test_a_stream_that_runs_alone_has_the_cache_for_itself(harness: Harness) -> None:
    harness.start(1, LONG)
    harness.finish()
    assert harness.engine.cells == [310, 0, 0, 0]
    harness.start(2, "short")
    harness.finish()
    assert harness.engine.cells[0] == 0
    harness.start(3, LONG + "told and", max_tokens=400)  # brought in again
    harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 310
    assert harness.answer(3).text == LONG + "told and"


@engine(context_size=2000, n_batch=512, answers={LONG: b"told"})
def test_another_slot_can_share_what_is_swapped_out(harness: Harness) -> None:
    harness.start(1, LONG)
    harness.finish()
    harness.start(2, "short")
    harness.finish()
    harness.start(3, LONG[:200] + "cut short")  # the first conversation stays what it is
    harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 200
    harness.start(4, LONG + "told and")
    harness.finish()
    assert harness.answer(4).usage.cached_prompt_tokens == 310


@engine(context_size=2000, n_batch=512, answers={LONG: b"told"})
def test_streams_side_by_side_leave_the_cells_of_others(harness: Harness) -> None:
    harness.start(1, LONG)
    harness.finish()
    harness.start(2, "short")
    harness.start(3, "brief")
    harness.finish()
    assert harness.engine.cells[0] == 310


@engine(context_size=1000, n_batch=512, max_prefill_beside_decode=512)
def test_prompts_that_share_a_beginning_still_fit_after_one_ran_alone(harness: Harness) -> None:
    common = "s" * 300
    for first in (1, 20):
        for stream_id in range(first, first + 4):
            harness.start(stream_id, common + chr(97 + stream_id % 4) * 20, max_tokens=20)
        harness.finish()
        answers = [harness.answer(stream_id) for stream_id in range(first, first + 4)]
        assert [answer.reason for answer in answers] == ["length"] * 4
        harness.start(first + 10, common + "alone", max_tokens=20)
        harness.finish()


class GatheringEngine(ScriptedEngine):
    """Remembers what was gathered."""

    def __init__(self) -> None:
        super().__init__(slots=4, context_size=2000, n_batch=512)
        self.gathered: list[Mapping[int, int]] = []

    def gather(self, starts: Mapping[int, int]) -> list[int]:
        """Remember."""
        self.gathered.append(dict(starts))
        return super().gather(starts)


def test_answers_side_by_side_are_gathered_from_time_to_time() -> None:
    gathering = GatheringEngine()
    harness = Harness(gathering, 4)
    texts = [letter * 40 for letter in "abc"]  # echoed
    for stream_id, text in enumerate(texts, 1):
        harness.start(stream_id, text)
    harness.finish()
    assert [sorted(starts) for starts in gathering.gathered] == [[0, 1, 2]] * 2
    first, second = gathering.gathered
    assert first[2] == 40  # the last to begin: all that it has said
    assert all(14 <= second[slot] - first[slot] <= 16 for slot in first)
    assert [harness.answer(stream_id).text for stream_id in (1, 2, 3)] == texts


def test_what_another_has_of_an_answer_is_not_gathered() -> None:
    gathering = GatheringEngine()
    harness = Harness(gathering, 4)
    for stream_id, letter in enumerate("abc", 1):
        harness.start(stream_id, letter * 40)
    while harness.engine.cells[0] < 50:
        harness.step()
    harness.start(4, "a" * 48 + "z", max_tokens=1)  # 40 of the prompt, and 8 of the answer
    harness.finish()
    assert harness.answer(4).usage.cached_prompt_tokens == 48
    assert (gathering.gathered[0][0], gathering.gathered[0][2]) == (48, 40)


def test_an_answer_that_lost_its_cells_ends_alone() -> None:
    gathering = GatheringEngine()
    gathering.loses_gathered = [1]
    harness = Harness(gathering, 4)
    texts = [letter * 40 for letter in "abc"]
    for stream_id, text in enumerate(texts, 1):
        harness.start(stream_id, text)
    harness.finish()
    assert harness.answer(2).error == {"SamplerError": f"{LABEL}: its KV cells were lost"}
    assert [harness.answer(stream_id).text for stream_id in (1, 3)] == [texts[0], texts[2]]
    assert harness.engine.cells[1] == 0
    harness.start(5, texts[1])
    harness.finish()
    assert harness.answer(5).text == texts[1]


@engine(slots=2, context_size=1000, n_batch=512)
def test_idle_cells_make_way_for_what_was_swapped_out(harness: Harness) -> None:
    for stream_id, prompt in enumerate(("a" * 600, "b" * 600, "a" * 600 + "more"), 1):
        harness.start(stream_id, prompt, max_tokens=5)
        harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 600


@engine(slots=3, context_size=1000, n_batch=512)
def test_the_oldest_copy_makes_way_for_the_next(harness: Harness) -> None:
    harness.start(1, "a" * 600, max_tokens=2)
    harness.finish()
    for stream_id in range(2, 8):
        harness.start(stream_id, "bc"[stream_id % 2] * 600, max_tokens=2)
        harness.finish()
    cached = [harness.answer(one).usage.cached_prompt_tokens for one in range(2, 8)]
    assert cached == [0, 0, 599, 599, 599, 599]


@pytest.mark.parametrize(("slots", "tokens"), [(3, 64), (4, 64), (4, 50)])
def test_a_long_prompt_beside_ever_new_short_ones_gets_on(slots: int, tokens: int) -> None:
    answers = {"answer": b"x" * 3000}
    harness = Harness(
        ScriptedEngine(slots=slots, context_size=9000, n_batch=512, answers=answers), slots
    )
    harness.start(1, "answer", max_tokens=3000)
    harness.step()
    harness.start(2, "l" * 2000, max_tokens=1)
    stream_id = 10
    while not any(frame.stream_id == 2 and frame.is_final for frame in harness.frames):
        while any(row.state is SlotState.IDLE for row in harness.table.rows()):
            stream_id += 1
            prompt = f"{stream_id}"[::-1].ljust(tokens, "s")
            harness.start(stream_id, prompt, max_tokens=1, seed=1)
        harness.step()
        assert stream_id < 3000
    harness.table.close()


@engine(context_size=400, n_batch=512, slots=3, answers={LONG: b"told"})
def test_what_finds_no_room_any_more_is_decoded_anew(harness: Harness) -> None:
    harness.start(1, LONG)
    harness.finish()
    harness.start(2, "a" * 100, max_tokens=2)
    harness.step()
    harness.step()
    assert harness.engine.cells == [0, 100, 0]
    harness.start(3, LONG)
    harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 0
    assert harness.answer(3).text == "told"


def test_next_turn_prefills_only_what_is_new(harness: Harness) -> None:
    harness.start(1, "turn one", max_tokens=3)
    harness.finish()
    # Two of three sampled tokens were decoded: "turn one" and "tu" are in the cells.
    harness.start(2, "turn onetu and two")
    harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == 10
    assert harness.answer(2).usage.prompt_tokens == 18
    assert harness.answer(2).text == "turn onetu and two"


def test_repeated_prompt_decodes_its_last_token_again(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.start(stream_id, "same")
        harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == 3
    assert harness.answer(2).text == "same"


PREAMBLE = "You are a helpful assistant, and short. "  # 40 tokens
COMMON = engine(context_size=2000)


@COMMON
def test_a_running_answer_shares_its_prompt(harness: Harness) -> None:
    harness.start(1, PREAMBLE + "a")
    harness.step()
    harness.start(2, PREAMBLE + "bc")
    harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == 40
    assert harness.answer(2).text == PREAMBLE + "bc"
    assert harness.answer(1).text == PREAMBLE + "a"


@engine(context_size=2000, n_batch=16)
def test_prompts_that_come_at_once_decode_their_common_beginning_once(harness: Harness) -> None:
    for stream_id in range(1, 5):
        harness.start(stream_id, f"{PREAMBLE}{stream_id}")
    harness.finish()
    for stream_id in range(1, 5):
        assert harness.answer(stream_id).text == f"{PREAMBLE}{stream_id}"
    cached = [harness.answer(stream_id).usage.cached_prompt_tokens for stream_id in range(1, 5)]
    assert cached == [0, 40, 40, 40]
    prefill = [tokens for batch in harness.engine.batches for _, tokens in batch if tokens > 1]
    assert sum(prefill) == 41


@engine(context_size=2000, n_batch=16)
@pytest.mark.parametrize("reason", ["ended", "cancelled"])
def test_a_prompt_goes_on_alone_when_the_one_it_follows_is_gone(
    harness: Harness, reason: str
) -> None:
    harness.start(1, PREAMBLE + "a", max_tokens=1)
    harness.start(2, PREAMBLE + "b")
    harness.step()
    if reason == "cancelled":
        harness.streams.stop(StopStream(1))
    harness.finish()
    assert harness.answer(1).reason == {"ended": "length"}.get(reason, reason)
    assert harness.answer(2).text == PREAMBLE + "b"
    cached = harness.answer(2).usage.cached_prompt_tokens
    assert cached == {"ended": 40, "cancelled": 16}[reason]


@engine(context_size=2000, n_batch=16)
def test_a_prompt_that_follows_can_be_cancelled(harness: Harness) -> None:
    harness.start(1, PREAMBLE + "a")
    harness.start(2, PREAMBLE + "b")
    harness.step()
    harness.streams.stop(StopStream(2))
    harness.finish()
    assert harness.answer(2).reason == "cancelled"
    assert harness.answer(1).text == PREAMBLE + "a"


@engine(context_size=2000, n_batch=16, can_keep_part=False)
def test_prompts_of_a_model_without_parts_share_nothing(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.start(stream_id, f"{PREAMBLE}{stream_id}")
    harness.finish()
    assert [harness.answer(one).usage.cached_prompt_tokens for one in (1, 2)] == [0, 0]


@engine(context_size=60, slots=3)
def test_shared_cells_count_once(harness: Harness) -> None:
    for stream_id in (1, 2, 3):
        harness.start(stream_id, PREAMBLE + str(stream_id), max_tokens=5)
    harness.finish()
    assert [harness.answer(one).reason for one in (1, 2, 3)] == ["length"] * 3


def test_seeded_prompts_follow_nobody(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.start(stream_id, PREAMBLE + str(stream_id), seed=3)
    harness.finish()
    assert [harness.answer(one).usage.cached_prompt_tokens for one in (1, 2)] == [0, 0]


def test_seeded_prompt_is_decoded_from_its_beginning_each_time(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.start(stream_id, "same", seed=7)
        harness.finish()
        assert harness.answer(stream_id).usage.cached_prompt_tokens == 0
    harness.start(3, "same")  # What it left is of use to others.
    harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 3


def test_seeded_prompt_on_an_idle_engine_has_the_cells_for_itself(harness: Harness) -> None:
    for stream_id, seed in ((1, None), (2, 7), (3, None)):
        harness.start(stream_id, "same", seed=seed)
        harness.finish()
    assert harness.answer(3).usage.cached_prompt_tokens == 3  # of the second
    harness.start(4, "other", max_tokens=20)
    harness.step()
    harness.start(5, "some", seed=7)  # not idle: what others left stays
    harness.finish()
    harness.start(6, "same")
    harness.finish()
    assert harness.answer(6).usage.cached_prompt_tokens == 3


@engine(can_keep_part=False)
def test_model_that_cannot_drop_a_part_prefills_all(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.start(stream_id, "same")
        harness.finish()
    assert harness.answer(2).usage.cached_prompt_tokens == 0
    assert harness.answer(2).text == "same"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (DecodeOutcome.ABORTED, 2),
        (DecodeOutcome.INVALID_BATCH, -1),
        (DecodeOutcome.ALLOCATION_FAILED, -2),
        (DecodeOutcome.COMPUTE_FAILED, -3),
    ],
)
def test_failed_batch_ends_its_streams_and_the_next_are_served(
    harness: Harness, outcome: DecodeOutcome, code: int
) -> None:
    harness.engine.outcomes = [outcome]
    harness.start(1, "a")
    harness.start(2, "b")
    harness.step()
    for stream_id in (1, 2):
        assert harness.answer(stream_id).error == {
            "SamplerError": f"unnamed agent: decoding failed: {outcome.name} "
            f"(llama_decode returned {code})"
        }
    assert harness.engine.cells == [0, 0, 0, 0]
    harness.start(3, "c")
    harness.finish()
    assert harness.answer(3).text == "c"


def test_engine_that_keeps_failing_is_given_up(harness: Harness) -> None:
    harness.engine.outcomes = [DecodeOutcome.COMPUTE_FAILED] * 3
    for stream_id in (1, 2):
        harness.start(stream_id, "a")
        harness.step()
    harness.start(3, "a")
    with pytest.raises(EngineBroken, match="3 batches in a row failed"):
        harness.step()
    harness.streams.reset()


def test_unknown_fatal_code_is_a_failed_compute() -> None:
    assert DecodeOutcome(-17) is DecodeOutcome.COMPUTE_FAILED
    with pytest.raises(ValueError, match="3 is not a valid"):
        DecodeOutcome(3)


def test_reset_drops_streams_and_unsent_frames_silently(harness: Harness) -> None:
    harness.start(1, "a")
    harness.streams.step()
    harness.start(2, "")
    harness.streams.reset()
    assert harness.take() == []
    assert not harness.streams.is_running
    harness.start(3, "again")
    harness.finish()
    assert harness.answer(3).text == "again"


@engine(slots=2, n_batch=4, answers={"prompt": b"hi"})
def test_slot_table_tells_state_tokens_and_progress(harness: Harness) -> None:
    idle = SlotRow(SlotState.IDLE, 0, 0, 0.0)
    assert harness.table.rows() == [idle, idle]
    harness.now = 5.0
    harness.start(7, "prompt")
    assert harness.table.read(0) == SlotRow(SlotState.PREFILL, 7, 0, 5.0)
    harness.step()
    assert harness.table.read(0) == SlotRow(SlotState.PREFILL, 7, 0, 6.0)
    harness.step()
    assert harness.table.read(0) == SlotRow(SlotState.DECODE, 7, 1, 7.0)
    harness.finish()
    assert harness.table.rows() == [SlotRow(SlotState.IDLE, 0, 0, 9.0), idle]


def test_ten_thousand_streams_leave_nothing_behind(harness: Harness) -> None:
    for stream_id in range(10_000):
        harness.start(stream_id, "x", max_tokens=1)
        harness.step()
    assert len(harness.frames) == 20_000


# --- images -------------------------------------------------------------------------------------


def test_an_image_is_decoded_between_the_texts_around_it(harness: Harness) -> None:
    harness.show(1, "see ", "data:wide", "and tell")
    harness.finish()
    answer = harness.answer(1)
    assert (answer.text, answer.reason) == ("see and tell", "stop")
    assert answer.usage == TokenUsage(
        prompt_tokens=12, input_image_tokens=10, undeterminable_tokens=13
    )
    assert harness.engine.batches[:3] == [[(0, 4)], [(0, 10)], [(0, 8)]]


def test_images_one_after_another_are_decoded_one_by_one(harness: Harness) -> None:
    harness.show(1, "data:wide", "data:wide", "x")
    harness.finish()
    assert harness.answer(1).usage.input_image_tokens == 20
    assert harness.engine.batches[:3] == [[(0, 10)], [(0, 10)], [(0, 1)]]


@engine(answers={"text": b"x" * 20})
def test_answers_go_on_between_the_images_of_others(harness: Harness) -> None:
    harness.start(1, "text")
    harness.step()
    harness.show(2, "data:wide", "data:wide", "data:wide", "2")
    harness.show(3, "data:wide", "3")
    for _ in range(4):
        assert [frame.text for frame in harness.step() if frame.stream_id == 1] == ["x"]
    harness.finish()
    assert [harness.answer(stream_id).reason for stream_id in (1, 2, 3)] == ["stop"] * 3
    # Streams that wait for images take turns.
    images = [batch[0][0] for batch in harness.engine.batches if batch[0][1] == 10]
    assert images == [1, 2, 1, 1]


def test_only_the_text_before_an_image_is_reused(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.show(stream_id, "see ", "data:wide", "and tell")
        harness.finish()
        assert harness.engine.cells == [4, 0, 0, 0]
    assert harness.answer(2).usage.cached_prompt_tokens == 4
    assert harness.answer(2).text == "see and tell"


@engine(can_keep_part=False)
def test_model_that_cannot_drop_an_image_keeps_nothing(harness: Harness) -> None:
    for stream_id in (1, 2):
        harness.show(stream_id, "see ", "data:wide", "and tell")
        harness.finish()
        assert harness.engine.cells == [0, 0, 0, 0]
    assert harness.answer(2).usage.cached_prompt_tokens == 0


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (("data:huge", "x"), {"ImageExceedsBatchSize": {"image_tokens": 65, "n_batch": 64}}),
        (
            ("x", "data:wide"),
            {"SamplerError": f"{LABEL}: the prompt ends with an image; some text must follow it"},
        ),
        (
            ("x" * 250, "data:wide", "x"),
            {"SamplerError": f"{EVICTED}: the prompt has 261 tokens or more, the context 256"},
        ),
        (
            ("<__media__>", "data:wide", "x"),
            {"SamplerError": f"{LABEL}: failed to tokenize prompt: 2 markers for 1 images"},
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_before_decoding(
    harness: Harness, parts: tuple[str, ...], error: dict[str, object]
) -> None:
    harness.show(1, *parts)
    harness.take()
    assert harness.answer(1).error == error
    assert harness.engine.batches == []


def test_an_image_that_cannot_be_encoded_ends_its_stream_alone(harness: Harness) -> None:
    harness.start(1, "text")
    harness.show(2, "data:broken", "x")
    harness.finish()
    assert harness.answer(2).error == {"SamplerError": f"{LABEL}: encoding an image failed"}
    assert harness.answer(1).text == "text"


def test_an_image_that_cannot_be_decoded_ends_its_stream_alone(harness: Harness) -> None:
    harness.engine.outcomes = [DecodeOutcome.COMPUTE_FAILED]
    harness.show(1, "data:wide", "x")
    harness.start(2, "text")
    harness.finish()
    assert "COMPUTE_FAILED" in harness.answer(1).error["SamplerError"]
    assert harness.answer(2).text == "text"
    assert harness.engine.cells[0] == 0


@engine(slots=3, context_size=30, answers={"new": b"y"})
def test_an_image_takes_the_cells_of_idle_slots(harness: Harness) -> None:
    harness.start(1, "1" * 20, max_tokens=1)
    harness.finish()
    harness.show(2, "data:wide", "new")
    harness.finish()
    assert harness.answer(2).text == "y"
    assert harness.engine.cells == [0, 0, 0]


@engine(slots=2, context_size=30, answers={"a": b"x" * 60})
def test_a_stream_whose_image_finds_no_room_is_evicted_by_its_cells(harness: Harness) -> None:
    harness.show(1, "data:wide", "data:wide", "a")
    harness.show(2, "data:wide", "b", max_tokens=1)
    harness.finish()
    assert harness.answer(1).error == {"SamplerError": EVICTED}
    assert harness.answer(2).reason == "length"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_cancelled_or_dropped_image_leaves_nothing_behind(harness: Harness, steps: int) -> None:
    for stream_id in (1, 2):
        harness.show(stream_id, "see ", "data:wide", "and ", "data:wide", "tell")
    for _ in range(steps):
        harness.step()
    harness.streams.stop(StopStream(1))
    assert harness.engine.open_prompts == 1
    harness.streams.reset()
    assert harness.engine.open_prompts == 0
    assert not harness.streams.is_running


def test_a_refused_grammar_leaves_no_image_behind(harness: Harness) -> None:
    request = ContinueFromConversationHistory(
        add_generation_prompt=True,
        conversation_history=[
            ConversationMessage("user", [ImagePart(ImageUrl("data:wide")), TextPart("x")])
        ],
        enable_thinking=False,
        max_tokens=1,
        grammar=GbnfGrammar("broken", "root"),
    )
    harness.streams.start(StartStream(stream_id=1, job=ConversationJob(request)))
    harness.take()
    assert "grammar" in harness.answer(1).error["GrammarInitializationFailed"]
    assert harness.engine.open_prompts == 0


# --- work aside ---------------------------------------------------------------------------------


@engine(answers={"a": b"x" * 20, "b": b"ok"})
def test_a_prompt_that_takes_long_to_make_holds_up_no_answer(harness: Harness) -> None:
    harness.start(1, "a")
    harness.step()
    harness.is_aside_slow = True
    harness.start(2, "b")
    assert [frame.stream_id for frame in harness.step()] == [1]
    (prepare,) = harness.aside
    prepare()
    assert [frame.stream_id for frame in harness.step()] == [1, 2]
    harness.finish()
    assert harness.answer(2).text == "ok"


def test_a_stream_that_is_stopped_while_its_prompt_is_made_never_starts(harness: Harness) -> None:
    harness.is_aside_slow = True
    harness.start(1, "a")
    harness.streams.stop(StopStream(1))
    harness.take()
    assert (harness.answer(1).reason, harness.answer(1).usage) == ("cancelled", TokenUsage())
    (prepare,) = harness.aside
    prepare()
    assert not harness.streams.is_running
    assert harness.take() == []


def test_a_prompt_that_nobody_waits_for_any_more_is_not_made(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = harness.prompts.make

    def noted(job: TextJob) -> Prompt | GeneratedTokenResult:
        made.append(job)
        return make(job)

    monkeypatch.setattr(harness.prompts, "make", noted)
    harness.is_aside_slow = True
    for stream_id, text in enumerate(("a", "b", "c")):
        harness.start(stream_id, text)
    harness.streams.stop(StopStream(0))
    harness.streams.stop(StopStream(1))
    for prepare in harness.aside:
        prepare()
    assert made == [RawPromptJob(ContinueFromRawPrompt(raw_prompt="c", max_tokens=100))]


def test_a_stream_that_is_being_prepared_cannot_be_started_again(harness: Harness) -> None:
    harness.is_aside_slow = True
    harness.start(1, "a")
    with pytest.raises(RemoteProtocolError, match="started twice"):
        harness.start(1, "a")


def test_a_reset_forgets_what_is_being_prepared(harness: Harness) -> None:
    harness.is_aside_slow = True
    harness.start(1, "a")
    harness.streams.reset()
    harness.start(1, "b")  # the id is free again
    old, new = harness.aside
    old()
    assert not harness.streams.is_running
    new()
    assert harness.streams.is_running
    harness.finish()
    assert harness.answer(1).text == "b"


WEATHER = chat.Tool(chat.Function("get_weather", "", {"required": ["days"]}))
CALL = '{"name": "get_weather", "arguments": {"days": 2}}'


def call_weather(harness: Harness, delivery: Delivery | None = None) -> None:
    """The scripted engine echoes the prompt: it says what the user asks."""
    request = chat.Chat(
        messages=[chat.Message(role="user", content=f"<tool_call>{CALL}</tool_call>")],
        max_tokens=100,
        enable_thinking=False,
        tools=[WEATHER],
        parses_calls=True,
    )
    start = StartStream(stream_id=1, job=ChatJob(request), delivery=delivery or Delivery())
    harness.streams.start(start)


CALLING = ModelFormat(Markers(tool_calls=("<tool_call>",), closings=("</tool_call>",)))


@engine(form=CALLING)
def test_calls_are_checked_after_the_slot_is_free(harness: Harness) -> None:
    call_weather(harness)
    harness.is_aside_slow = True
    harness.finish()
    assert not harness.streams.is_running
    assert {frame.kind for frame in harness.frames} == {FrameKind.TOOL_CALL}
    (check,) = harness.aside
    check()
    *_, result, done = harness.take()
    assert "ToolCallParsed" in result.error
    assert done.kind is FrameKind.DONE


@engine(form=CALLING)
def test_a_stream_that_is_stopped_while_its_calls_are_checked_is_cancelled(
    harness: Harness,
) -> None:
    call_weather(harness)
    harness.is_aside_slow = True
    harness.finish()
    harness.streams.stop(StopStream(1))
    (done,) = harness.take()
    finished = decode_finished(done.payload)
    assert finished.reason == "cancelled"
    assert finished.usage.tool_call_tokens > 0
    (check,) = harness.aside
    check()
    assert harness.take() == []


@engine(form=CALLING)
def test_one_call_too_many_ends_the_answer(harness: Harness) -> None:
    call_weather(harness, Delivery(call_deltas=True, max_calls=0))
    harness.finish()
    done = harness.frames[-1]
    assert decode_finished(done.payload).reason == "stop"
    assert not [frame for frame in harness.frames if frame.kind is FrameKind.CALL]


@engine(answers={"ask": b"one two three"})
def test_a_stop_text_ends_the_stream(harness: Harness) -> None:
    job = RawPromptJob(ContinueFromRawPrompt(raw_prompt="ask", max_tokens=100))
    harness.streams.start(StartStream(stream_id=1, job=job, delivery=Delivery(stop=(" thr",))))
    harness.finish()
    assert (harness.answer(1).text, harness.answer(1).reason) == ("one two", "stop")
