"""Findings as a table for people."""

import sys

from rich.console import Console
from rich.table import Table

from bench.compare.findings import OURS, Findings, spread


def print_findings(findings: Findings) -> None:
    """Ours, theirs, and ours divided by the best of theirs."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, pad_edge=False)
    for name in ("", "unit", "ours", "theirs", "ratio", "budget"):
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    group = ""
    for row in findings.rows:
        if row.group != group:
            group = row.group
            table.add_row(f"[bold]{group}")
        theirs = [f"{name} {spread(values)}" for name, values in row.values.items() if name != OURS]
        budget = ", ".join(f"{text} {'ok' if kept else 'NO'}" for text, kept in row.verdicts)
        table.add_row(
            f"  {row.label}",
            row.unit,
            spread(row.values[OURS]) if OURS in row.values else "",
            ", ".join(theirs),
            "" if row.ratio is None else f"{row.ratio[1]:.2f}",
            budget,
        )
    console.print(table)
    for remark in findings.remarks():
        console.print(remark, highlight=False, markup=False)
