"""One run: when requests begin, in a closed or an open loop, and when all of it ends."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bench.load.answer_formats import format_of, text_of
from bench.load.bodies import Asked, Bodies, seeds
from bench.load.call import Call
from bench.load.connections import Connections
from bench.load.measures import Measures, Moment
from bench.load.plan import Plan

TICK_S: Final = 1.0
LAG_EVERY_S: Final = 0.02
SWEEP_EVERY_S: Final = 0.5
LATE_S: Final = 1.0
"""So late the end of a run may come by its timer."""
RETRY_S: Final = 0.1
"""A closed loop's client that got an error waits this long: a refusal must not make it spin."""


class Run:
    """Carries a plan out. ``measures`` may be read at any time, also after :meth:`stop`."""

    def __init__(self, plan: Plan, on_tick: Callable[[Moment], object] = lambda _: None) -> None:
        self.measures = Measures(plan.watched_pid)
        self.in_flight = 0
        self._plan = plan
        self._on_tick = on_tick
        self._format = format_of(plan.mix.api, is_streamed=plan.mix.is_streamed)
        dice = seeds(plan.seed)
        self._bodies = Bodies(plan.mix, next(dice))
        self._arrival_dice: random.Random = next(dice)
        self._connections: Connections
        self._loop: asyncio.AbstractEventLoop
        self._begun = 0
        self._is_over = False
        self._over = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._due: deque[float] = deque()  # intended starts that wait for a free stream
        self._next_at = 0.0
        self._cut_at = math.inf

    def stop(self) -> None:
        """Begin no more requests."""
        self._is_over = True
        self._over.set()

    async def run(self) -> None:
        """Everything from the first request to the last answer."""
        plan = self._plan
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(plan.target, self._on_read)
        self._cut_at = time.monotonic() + plan.duration_s + plan.drain_s + LATE_S
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._tick()),
                group.create_task(self._watch_lag()),
                group.create_task(self._sweep()),
            ]
            if plan.warmup_s:
                self._loop.call_later(plan.warmup_s, self.measures.reset)
            if plan.arrivals_per_s is None:
                starting = group.create_task(self._start_streams())
            else:
                self._next_at = time.monotonic()
                starting = group.create_task(self._start_arrivals(plan.arrivals_per_s))
            try:
                async with asyncio.timeout(plan.duration_s):
                    await self._over.wait()
            except TimeoutError:
                pass
            finally:
                self.stop()
                starting.cancel()
                self.measures.close_window()
                await self._drain()
                for helper in helpers:
                    helper.cancel()
        await self._connections.close()

    # --- when requests begin -------------------------------------------------------------------

    async def _start_streams(self) -> None:
        """The closed loop's clients, one after the other over the ramp."""
        began_at = time.monotonic()
        for number in range(self._plan.streams):
            due_at = began_at + self._plan.ramp_s * number / self._plan.streams
            if (wait_s := due_at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            elif number % 64 == 63:
                await asyncio.sleep(0)
            self._begin(self._bodies.first(), time.monotonic())

    async def _start_arrivals(self, per_s: float) -> None:
        """The open loop: starts are drawn, and come whatever happens to earlier ones."""
        while True:
            now = time.monotonic()
            while self._next_at <= now:
                self._due.append(self._next_at)
                self._next_at += self._arrival_dice.expovariate(per_s)
            self._serve_due()
            await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))

    def _serve_due(self) -> None:
        while self._due and self.in_flight < self._plan.streams and not self._is_over:
            self._begin(self._bodies.first(), self._due.popleft())

    def _begin(self, asked: Asked, intended_at: float) -> None:
        plan, measures = self._plan, self.measures
        if self._is_over:
            return
        if plan.requests is not None and self._begun >= plan.requests:
            return
        self._begun += 1
        self.in_flight += 1
        measures.started += 1
        self._connections.send(
            Call(
                asked,
                intended_at,
                self._format,
                on_first=measures.on_first,
                on_gap=measures.gap.record,
                on_age=measures.age.record if plan.are_stamped else None,
                on_end=self._on_end,
                keeps_text=plan.mix.turns > 1,
            )
        )

    # --- when they end -------------------------------------------------------------------------

    def _on_end(self, call: Call) -> None:
        self.in_flight -= 1
        if call.error is CUT:
            self.measures.on_cut(is_answered=call.status != 0)
        else:
            self.measures.on_end(call)
        if self.in_flight == 0 and self._begun == self._plan.requests:
            self.stop()
        if self._is_over:
            if self.in_flight == 0:
                self._all_ended.set()
            return
        if (asked := self._next_turn(call)) is not None:
            self._begin(asked, time.monotonic())
        elif self._plan.arrivals_per_s is not None:
            self._serve_due()
        elif call.error is None:
            self._begin(self._bodies.first(), time.monotonic())
        else:
            self._loop.call_later(
                RETRY_S, lambda: self._begin(self._bodies.first(), time.monotonic())
            )

    def _next_turn(self, call: Call) -> Asked | None:
        """The next request of the same conversation, if it has one."""
        turns = self._plan.mix.turns
        if turns < 2 or call.error is not None or self._bodies.turns_of(call.asked) >= turns:
            return None
        return self._bodies.next_turn(call.asked, text_of(call.body, self._plan.mix.api))

    async def _drain(self) -> None:
        if self.in_flight:
            try:
                async with asyncio.timeout(self._plan.drain_s):
                    await self._all_ended.wait()
            except TimeoutError:
                self._connections.cut(CUT)
                # What is left has no connection yet.
                self.measures.on_cut(is_answered=False, count=self.in_flight)

    def _on_read(self) -> None:
        # With more than 1,000 sockets to read from, libuv reads some 50,000 times before it looks
        # at a timer: where a machine does not keep up, the end would not come for minutes.
        if time.monotonic() > self._cut_at:
            self._cut_at = math.inf
            self.stop()
            self._connections.cut(CUT)

    # --- beside it -----------------------------------------------------------------------------

    async def _tick(self) -> None:
        while not self._is_over:
            await asyncio.sleep(TICK_S)
            self._on_tick(self.measures.tick(self.in_flight))

    async def _watch_lag(self) -> None:
        while True:
            due_at = time.monotonic() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            # The loop's timers go by milliseconds.
            self.measures.lag.record(max(0.0, time.monotonic() - due_at - 0.001))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._connections.cut("timed out", overdue_at=time.monotonic() - self._plan.timeout_s)


CUT: Final = "the run ended first"
