"""A report as one page that needs nothing else: tables, and charts as inline SVG."""

import html
from collections.abc import Sequence
from typing import Final

from bench.load.report import Report, Times

Point = tuple[float, float]

WIDTH: Final = 640
HEIGHT: Final = 200
LEFT: Final = 56
BOTTOM: Final = 24
COLORS: Final = ("#1f6feb", "#d1570c", "#1a7f37")

PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }}
body {{ max-width: 720px; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: right; font-variant-numeric: tabular-nums }}
th:first-child, td:first-child {{ text-align: left }}
svg {{ width: 100%; height: auto }}
svg text {{ font-size: 11px; fill: currentColor }}
.axis {{ stroke: currentColor; stroke-opacity: .3 }}
.note {{ border-left: 3px solid #d1570c; padding-left: .8rem }}
</style>
<h1>{title}</h1>
<p>{url}<br>{began}, {duration:.1f} s; {machine}; {versions}</p>
{notes}
<p><b>{tokens:.1f}</b> tokens/s, <b>{requests:.2f}</b> requests/s; {finished} answered,
{failed} failed, {cut} cut at the end</p>
{times}
{errors}
{charts}
<h2>Settings</h2>
{settings}
</html>
"""


def render_html(report: Report) -> str:
    """The page."""
    named = [
        ("first token", report.first_token),
        ("between tokens", report.between_tokens),
        ("whole answer", report.whole),
    ]
    if report.token_age is not None:
        named.append(("token's age", report.token_age))
    return PAGE.format(
        title="Load report",
        url=html.escape(report.url),
        began=report.began,
        duration=report.duration_s,
        machine=html.escape(report.machine),
        versions=html.escape(report.versions),
        notes="".join(f'<p class="note">{html.escape(note)}</p>' for note in report.notes),
        tokens=report.tokens_per_s,
        requests=report.requests_per_s,
        finished=report.finished,
        failed=report.failed,
        cut=report.cut,
        times=_times_table(named),
        errors=_table(("errors", "count"), list(report.errors.items())) if report.errors else "",
        charts=_charts(report, named),
        settings=_table(("setting", "value"), list(report.settings.items())),
    )


def _charts(report: Report, named: Sequence[tuple[str, Times]]) -> str:
    moments = report.moments
    over_time: list[tuple[str, list[tuple[str, list[Point]]]]] = [
        ("Tokens/s", [("tokens/s", [(m.at_s, m.tokens / m.length_s) for m in moments])]),
        ("Requests/s", [("requests/s", [(m.at_s, m.finished / m.length_s) for m in moments])]),
        ("Requests under way", [("under way", [(m.at_s, float(m.in_flight)) for m in moments])]),
        (
            "First token, ms",
            [
                ("p50", [(m.at_s, m.first_p50_s * 1e3) for m in moments]),
                ("p99", [(m.at_s, m.first_p99_s * 1e3) for m in moments]),
            ],
        ),
    ]
    parts = [
        f"<h2>{title}</h2>" + line_chart(lines, x_unit=" s")
        for title, lines in over_time
        if len(moments) > 1
    ]
    # By rank: each step to the right is the same share of a much smaller rest.
    parts += [
        f"<h2>{name.capitalize()}, ms by percentile</h2>"
        + line_chart(
            [(name, [(float(at), ms) for at, (_, ms) in enumerate(times.curve)])],
            x_labels=[f"{percent:g}" for percent, _ in times.curve],
        )
        for name, times in named
        if times.count
    ]
    return "".join(parts)


def line_chart(
    lines: Sequence[tuple[str, Sequence[Point]]],
    *,
    x_unit: str = "",
    x_labels: Sequence[str] = (),
) -> str:
    """Lines over one axis, both from 0. ``x_labels`` stand at 0, 1, 2, …"""
    points = [point for _, line in lines for point in line]
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    most_y = max((y for _, y in points), default=1.0) or 1.0

    def place(point: Point) -> str:
        x = LEFT + point[0] / most_x * (WIDTH - LEFT - 8)
        y = HEIGHT - BOTTOM - point[1] / most_y * (HEIGHT - BOTTOM - 16)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for share in (0.0, 0.5, 1.0):
        x, y = place((0.0, share * most_y)).split(",")
        parts.append(f'<line class="axis" x1="{x}" x2="{WIDTH - 8}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{float(y) + 4}" text-anchor="end">{share * most_y:.4g}</text>'
        )
    labels: list[tuple[float, str]] = [*enumerate(x_labels)] or [
        (most_x * share, f"{most_x * share:.0f}{x_unit}") for share in (0.0, 0.5, 1.0)
    ]
    for at, label in labels:
        x = place((float(at), 0.0)).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="middle">{label}</text>')
    for number, (name, line) in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path = " ".join(map(place, line))
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        if len(lines) > 1:
            x_text = LEFT + 8 + 60 * number
            parts.append(f'<text x="{x_text}" y="12" style="fill:{color}">{name}</text>')
    return "".join([*parts, "</svg>"])


def _times_table(named: Sequence[tuple[str, Times]]) -> str:
    rows = [
        (
            name,
            times.count,
            *(
                f"{number:.2f}"
                for number in (
                    times.mean_ms,
                    times.p50_ms,
                    times.p90_ms,
                    times.p99_ms,
                    times.p999_ms,
                    times.max_ms,
                )
            ),
        )
        for name, times in named
    ]
    return _table(("ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def row(cells: Sequence[object], tag: str) -> str:
        filled = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{filled}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
