"""What a run found, as one document and as a table for people."""

import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.load.histogram import Histogram
from bench.load.measures import Measures, Moment
from bench.load.plan import Plan
from paddler import __version__

PERCENTS: Final = (50, 90, 99, 99.9)
CURVE: Final = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)
BUSY: Final = 0.9
"""Beyond this share of a core the generator itself may be what is slow."""
LATE_S: Final = 0.01
STOLEN: Final = 0.05
"""Beyond this share of a machine, what others were given of it is seen in every number."""


class Times(msgspec.Struct, kw_only=True, frozen=True):
    """One kind of duration, in milliseconds. ``curve``: (percent, ms) for a chart."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    curve: tuple[tuple[float, float], ...] = ()


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """One run. Rates are of the time before ``duration_s`` was over.

    ``cut``: requests that were under way when the run ended, ``unanswered``: those of them that
    had no head of an answer yet. ``watched_cpu_s``: processor time of the watched process.
    ``stolen``: the share of the machine's processors that its hypervisor gave to others.
    ``notes``: why the numbers may be the generator's or the machine's own.
    """

    url: str
    settings: dict[str, Any]
    began: str
    machine: str
    versions: str
    duration_s: float
    started: int
    finished: int
    failed: int
    cut: int
    unanswered: int
    errors: dict[str, int]
    tokens: int
    tokens_per_s: float
    requests_per_s: float
    first_token: Times
    between_tokens: Times
    whole: Times
    queued: Times
    token_age: Times | None
    watched_cpu_s: float | None
    generator_cpu: float
    generator_lag: Times
    stolen: float
    notes: tuple[str, ...]
    moments: tuple[Moment, ...]

    @property
    def cpu_us_per_token(self) -> float | None:
        """Of the watched process; ``None`` where it could not be watched or no token came."""
        return _share_us(self.watched_cpu_s, self.tokens_per_s * self.duration_s)

    @property
    def cpu_us_per_request(self) -> float | None:
        """Of the watched process; ``None`` where it could not be watched or no request ended."""
        return _share_us(self.watched_cpu_s, self.requests_per_s * self.duration_s)


def report_of(plan: Plan, measures: Measures) -> Report:
    """The report of a run that is over."""
    window_s = max(measures.window_s, 1e-9)
    cpu = measures.cpu_s / window_s
    lag = times_of(measures.lag)
    stolen = measures.stolen_s / window_s / (os.cpu_count() or 1)
    return Report(
        url=plan.target.url,
        settings=settings_of(plan),
        began=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine(),
        versions=f"paddler {__version__}, Python {platform.python_version()}",
        duration_s=window_s,
        started=measures.started,
        finished=measures.finished,
        failed=measures.failed,
        cut=measures.cut,
        unanswered=measures.unanswered,
        errors=dict(measures.errors.most_common()),
        tokens=measures.tokens,
        tokens_per_s=measures.window_tokens / window_s,
        requests_per_s=measures.window_finished / window_s,
        first_token=times_of(measures.first),
        between_tokens=times_of(measures.gap),
        whole=times_of(measures.whole),
        queued=times_of(measures.queued),
        token_age=times_of(measures.age) if plan.are_stamped else None,
        watched_cpu_s=measures.watched_cpu_s,
        generator_cpu=cpu,
        generator_lag=lag,
        stolen=stolen,
        notes=(
            *notes_on(cpu, lag, stolen),
            *notes_on_watched(plan.watched_pid, measures.watched_cpu_s),
        ),
        moments=tuple(measures.moments),
    )


def _share_us(cpu_s: float | None, count: float) -> float | None:
    return None if cpu_s is None or not count else cpu_s / count * 1e6


def _or_none(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def times_of(histogram: Histogram) -> Times:
    """A histogram in numbers."""
    p50, p90, p99, p999 = histogram.percentiles_s(PERCENTS)
    return Times(
        count=histogram.count,
        mean_ms=histogram.mean_s * 1e3,
        p50_ms=p50 * 1e3,
        p90_ms=p90 * 1e3,
        p99_ms=p99 * 1e3,
        p999_ms=p999 * 1e3,
        max_ms=histogram.peak_s * 1e3,
        curve=tuple(
            (float(percent), value_s * 1e3)
            for percent, value_s in zip(CURVE, histogram.percentiles_s(CURVE), strict=True)
        ),
    )


def notes_on(cpu: float, lag: Times, stolen: float) -> list[str]:
    """Why these numbers may be the generator's or the machine's own."""
    notes = []
    if cpu > BUSY:
        notes.append(
            f"the generator used {cpu:.0%} of its core: run several at once, or on more machines"
        )
    if lag.p99_ms > LATE_S * 1e3:
        notes.append(
            f"the generator was late by {lag.p99_ms:.0f} ms or more at times (p99): its machine "
            "is too busy to tell shorter times"
        )
    if stolen > STOLEN:
        notes.append(
            f"the hypervisor gave {stolen:.0%} of this machine's processors to others: "
            "measure again"
        )
    return notes


def notes_on_watched(pid: int | None, cpu_s: float | None) -> list[str]:
    """What to say of a process that was to be watched and could not be, to the end."""
    if pid is None or cpu_s is not None:
        return []
    return [f"process {pid} could not be watched: there is none, or it ended, or this is no Linux"]


def settings_of(plan: Plan) -> dict[str, Any]:
    """What was asked for, apart from headers: they may hold secrets."""
    mix = plan.mix
    return {
        "api": mix.api.value,
        "streams": plan.streams,
        "arrivals_per_s": plan.arrivals_per_s,
        "duration_s": plan.duration_s,
        "requests": plan.requests,
        "warmup_s": plan.warmup_s,
        "prompt": mix.prompt.text,
        "output": mix.output.text,
        "is_streamed": mix.is_streamed,
        "shared_prefix": mix.shared_prefix,
        "prefixes": mix.prefixes,
        "turns": mix.turns,
        "extra": mix.extra,
        "seed": plan.seed,
    }


def machine() -> str:
    """This machine, in words."""
    return f"{os.cpu_count()} processors, {platform.machine()}, {platform.system()} " + (
        platform.release()
    )


def print_report(report: Report, console: Console | None = None) -> None:
    """The report as tables."""
    console = console or Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
    console.print(f"{report.url}, {report.duration_s:.1f} s", highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="left" if name == "ms" else "right")
    rows = [
        ("first token", report.first_token),
        ("between tokens", report.between_tokens),
        ("whole answer", report.whole),
    ]
    if report.token_age is not None:
        rows.append(("token's age", report.token_age))
    for name, times in rows:
        numbers = (
            times.mean_ms,
            times.p50_ms,
            times.p90_ms,
            times.p99_ms,
            times.p999_ms,
            times.max_ms,
        )
        table.add_row(name, str(times.count), *(f"{number:.2f}" for number in numbers))
    console.print(table)
    console.print(
        f"{report.tokens_per_s:.1f} tokens/s, {report.requests_per_s:.1f} requests/s; "
        f"{report.finished} answered, {report.failed} failed, {report.cut} cut at the end",
        highlight=False,
    )
    for kind, count in report.errors.items():
        console.print(f"  {count} of {kind}", highlight=False, markup=False)
    if report.watched_cpu_s is not None:
        console.print(
            f"watched process: {report.watched_cpu_s:.2f} s of processor time, "
            f"{_or_none(report.cpu_us_per_token)} µs a token, "
            f"{_or_none(report.cpu_us_per_request)} µs a request",
            highlight=False,
        )
    console.print(
        f"generator: {report.generator_cpu:.0%} of a core, late by "
        f"{report.generator_lag.p99_ms:.1f} ms (p99)",
        highlight=False,
    )
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
