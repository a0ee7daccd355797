"""Random streams over few slots and few cells: what slots hold is what their requests believe."""

import random
from collections.abc import Iterator, Mapping, Sequence

import pytest

from paddler.agent.worker.batch import Chunk
from paddler.agent.worker.engine import DecodeOutcome, ScriptedEngine
from paddler.messages.link import FrameKind, StopStream
from tests.agent.worker.test_streams import Harness

STREAMS = 40


class TrackingEngine(ScriptedEngine):
    """Knows which tokens its cells hold, and checks them against each chunk."""

    def __init__(
        self, *, slots: int, kv_unified: bool, context_size: int, n_batch: int, beside: int
    ) -> None:
        super().__init__(
            slots=slots,
            kv_unified=kv_unified,
            context_size=context_size,
            n_batch=n_batch,
            max_prefill_beside_decode=beside,
        )
        self.holds: list[list[int]] = [[] for _ in range(slots)]
        self.copies: dict[int, list[int]] = {}

    def keep(self, slot: int, length: int) -> bool:
        """Shorten."""
        del self.holds[slot][length:]
        return super().keep(slot, length)

    def share(self, source: int, slot: int, length: int) -> bool:
        """Have the same, or a copy."""
        self.holds[slot] = self.holds[source][:length]
        return super().share(source, slot, length)

    def swap_out(self, slot: int) -> bool:
        """Move."""
        self.copies[slot], self.holds[slot] = self.holds[slot], []
        return super().swap_out(slot)

    def swap_in(self, source: int, slot: int) -> bool:
        """Copy back."""
        is_in = super().swap_in(source, slot)
        self.holds[slot] = list(self.copies[source]) if is_in else []
        return is_in

    def drop_swapped(self, slot: int) -> None:
        """Forget the copy."""
        self.copies.pop(slot, None)
        super().drop_swapped(slot)

    def gather(self, starts: Mapping[int, int]) -> list[int]:
        """Check that nobody else has what is moved."""
        for slot, start in starts.items():
            moved = set(self._cells[slot][start:])
            others = [cells for other, cells in enumerate(self._cells) if other != slot]
            assert len(moved) > 1
            assert moved.isdisjoint(set().union(*others))
        return super().gather(starts)

    def decode(self, chunks: Sequence[Chunk]) -> DecodeOutcome:
        """Check, and add what is decoded."""
        for chunk in chunks:
            sequence = chunk.sequence
            assert self.holds[sequence.slot] == sequence.tokens[: sequence.decoded]
        outcome = super().decode(chunks)
        if outcome is DecodeOutcome.DECODED:
            for sequence, tokens in chunks:
                self.holds[sequence.slot] += sequence.tokens[sequence.decoded :][:tokens]
        else:
            assert outcome is DecodeOutcome.NO_KV_ROOM
            assert self.kv_unified  # who has filled its own part has been ended before
        return outcome


class FailingEngine(TrackingEngine):
    """One of whose copies many fail; what was to be there is lost then."""

    def __init__(self, chance: random.Random, **options: int) -> None:
        super().__init__(kv_unified=False, beside=64, **options)
        self.chance = chance
        self.runs_on_cpu = chance.choice([True, False])

    def _is_lucky(self) -> bool:
        return self.chance.random() > 0.3

    def share(self, source: int, slot: int, length: int) -> bool:
        """Have a copy, or nothing."""
        return super().share(source, slot, length) and (self._is_lucky() or not self.keep(slot, 0))

    def swap_out(self, slot: int) -> bool:
        """Move, or leave it there."""
        return self._is_lucky() and super().swap_out(slot)

    def swap_in(self, source: int, slot: int) -> bool:
        """Copy back, or have nothing."""
        return super().swap_in(source, slot) and (self._is_lucky() or not self.keep(slot, 0))


def prompts(chance: random.Random) -> Iterator[str]:
    """Prompts that begin alike, or go on where an earlier one ended."""
    beginnings = ["".join(chance.choices("ab", k=chance.choice([20, 100, 300]))) for _ in range(3)]
    said: list[str] = []
    while True:
        begin = chance.choice(beginnings + said[-5:])
        said.append(begin[: chance.choice([len(begin), 90])] + "".join(chance.choices("xyz", k=9)))
        yield said[-1][:600]


@pytest.mark.parametrize("kv_unified", [True, False], ids=["unified", "divided"])
@pytest.mark.parametrize("seed", range(30))
def test_every_stream_gets_its_own_text_and_one_end(seed: int, kv_unified: bool) -> None:
    chance = random.Random(seed)
    slots = chance.choice([1, 2, 3, 4, 8])
    engine = TrackingEngine(
        slots=slots,
        kv_unified=kv_unified,
        context_size=chance.choice([300, 700, 1500]),
        n_batch=chance.choice([slots + 1, 80, 512]),
        beside=chance.choice([8, 64]),
    )
    run_streams(engine, slots, chance)


@pytest.mark.parametrize("seed", range(30))
def test_every_stream_gets_its_own_text_however_copies_fail(seed: int) -> None:
    chance = random.Random(seed)
    slots = chance.choice([3, 4, 8])
    engine = FailingEngine(
        random.Random(seed),
        slots=slots,
        context_size=chance.choice([900, 1500, 3000]),
        n_batch=chance.choice([slots + 1, 80, 512]),
    )
    run_streams(engine, slots, chance)


def run_streams(engine: TrackingEngine, slots: int, chance: random.Random) -> None:
    """Start, step and stop streams, and check what is held, and what they say."""
    harness = Harness(engine, slots)
    texts: dict[int, str] = {}
    source = prompts(chance)
    eagerness = chance.choice([0.1, 0.6])
    while len(texts) < STREAMS or harness.streams.is_running:
        if len(texts) < STREAMS and (chance.random() < eagerness or not harness.streams.is_running):
            stream_id = len(texts) + 1
            texts[stream_id] = next(source)
            harness.start(
                stream_id,
                texts[stream_id],
                max_tokens=chance.choice([1, 20, 400]),
                seed=chance.choice([None, None, None, 7]),
            )
        if chance.random() < 0.02:
            harness.streams.stop(StopStream(chance.randint(1, len(texts))))
        if harness.streams.is_running:
            harness.step()
        assert sum(map(len, engine.copies.values())) <= engine.context_size
        assert engine.kv_unified or not engine.copies  # those of a move are dropped behind it
        busy = {slot for slot, row in enumerate(harness.table.rows()) if row.stream_id}
        assert engine.open_slots == busy
    harness.take()
    harness.table.close()
    for stream_id, text in texts.items():
        answer = harness.answer(stream_id)  # checks that it has one end
        assert text.startswith(answer.text)
        if answer.end.kind is FrameKind.DONE:
            assert answer.reason != "stop" or answer.text == text
            assert answer.usage.cached_prompt_tokens < len(text)
    assert engine.open_slots == set()
