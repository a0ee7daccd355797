"""What comparisons found: rows of ours and theirs, each over several runs."""

import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

Part = tuple[str, float]
"""A program, and a factor: so much of what that program has."""

OURS: Final = "paddler"
DIRECT: Final = "no proxy"
"""The same work with nothing between."""
SHARED: Final = "context shared"
"""Ours, in the layout that it has unless told otherwise and others do not have."""
BESIDE: Final = (DIRECT, SHARED)
"""Shown beside the others, and none of them."""
DOUBTFUL: Final = (
    "* the load generator itself was late by 10 ms or more at times (p99), or used more than 90 % "
    "of its core: the machine was too busy, and short times are not ours alone; or the hypervisor "
    "gave more than 5 % of the processors to others, which every number shows"
)


class Row(msgspec.Struct, kw_only=True):
    """One measured thing. ``values``: by program, one number for each run.

    ``budget``: what ours should not exceed or, where ``is_more_better``, not fall below;
    ``part_budget``: the same of ours divided by that of a program.
    ``is_doubtful``: the load generator was late or busy in one of the runs, or short of processors.
    """

    group: str
    name: str
    unit: str
    values: dict[str, list[float]]
    budget: float | None = None
    part_budget: Part | None = None
    is_more_better: bool = False
    is_doubtful: bool = False

    @property
    def label(self) -> str:
        """The name, marked where it is doubtful."""
        return f"{self.name} *" if self.is_doubtful else self.name

    @property
    def ratio(self) -> tuple[str, float] | None:
        """The best other program, and ours divided by it; of medians."""
        ours = self.values.get(OURS)
        others = {
            name: statistics.median(runs)
            for name, runs in self.values.items()
            if name not in (OURS, *BESIDE) and runs
        }
        if not ours or not others:
            return None
        best = (max if self.is_more_better else min)(others, key=lambda name: others[name])
        # What was added may be less than nothing, of which nothing is a part.
        return (best, statistics.median(ours) / others[best]) if others[best] > 0 else None

    @property
    def verdicts(self) -> list[tuple[str, bool]]:
        """The budgets as text, and whether ours keeps to them; without ours there are none."""
        ours = self.values.get(OURS)
        if not ours:
            return []
        median = statistics.median(ours)
        told = []
        if self.budget is not None:
            told.append((f"{self.budget:g}", self._keeps(median, self.budget)))
        if self.part_budget is not None:
            program, part = self.part_budget
            if theirs := self.values.get(program):
                limit = part * statistics.median(theirs)
                told.append((f"{part:g} of {program}", self._keeps(median, limit)))
        return told

    def _keeps(self, median: float, limit: float) -> bool:
        return median >= limit if self.is_more_better else median <= limit


class Findings:
    """Rows, in the order in which they were first told."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.notes: list[str] = []

    def add(
        self,
        group: str,
        name: str,
        unit: str,
        program: str,
        value: float | None,
        *,
        budget: float | None = None,
        part_budget: Part | None = None,
        is_more_better: bool = False,
        is_doubtful: bool = False,
    ) -> None:
        """One number of one run; ``None``: it could not be measured, which is told."""
        if value is None:
            self.skip(f"{group}, {name}: {program}")
            return
        row = next((row for row in self.rows if (row.group, row.name) == (group, name)), None)
        if row is None:
            row = Row(
                group=group,
                name=name,
                unit=unit,
                values={},
                budget=budget,
                part_budget=part_budget,
                is_more_better=is_more_better,
            )
            self.rows.append(row)
        row.values.setdefault(program, []).append(value)
        row.is_doubtful |= is_doubtful

    def remarks(self) -> list[str]:
        """What is to be said of the rows."""
        doubtful = [DOUBTFUL] if any(row.is_doubtful for row in self.rows) else []
        return [*doubtful, *self.notes, *(f"Not measured: {why}" for why in self.skipped)]

    def note(self, text: str) -> None:
        """Something is to be said of the rows."""
        if text not in self.notes:
            self.notes.append(text)

    def skip(self, why: str) -> None:
        """Something was not measured."""
        if why not in self.skipped:
            self.skipped.append(why)


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most where there are several."""
    median = _short(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({_short(min(values))}-{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
