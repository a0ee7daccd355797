"""Findings as a page in Markdown that says how they came about."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.compare.findings import OURS, Findings, spread
from bench.compare.processes import find_program
from bench.load.report import machine
from paddler import __version__

HEAD = """\
# Results

Written by `{command}`; not edited by hand. Numbers of one machine and one run: compare the
columns, not the pages. Each cell is the median, and in brackets the least and the most where
there were several runs. *Ratio* is ours divided by the best of theirs; *budget* what ours should
keep to.

- {when}, commit {commit}
- {machine}; {processor}; load average {load} at the end
- {versions}

"""


def render_results(findings: Findings, *, command: str, commit: str) -> str:
    """The page."""
    parts = [
        HEAD.format(
            command=command.strip(),
            when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=commit,
            machine=machine(),
            processor=_processor(),
            load=", ".join(f"{load:.1f}" for load in os.getloadavg()),
            versions=", ".join(_versions()),
        )
    ]
    group = ""
    for row in findings.rows:
        if row.group != group:
            group = row.group
            parts.append(
                f"\n## {group}\n\n| | unit | ours | theirs | ratio | budget |\n"
                "|---|---|---:|---:|---:|---:|\n"
            )
        theirs = ", ".join(
            f"{name} {spread(values)}" for name, values in row.values.items() if name != OURS
        )
        ours = spread(row.values[OURS]) if OURS in row.values else ""
        ratio = "" if row.ratio is None else f"{row.ratio[1]:.2f}"
        budget = ", ".join(
            text if is_kept else f"{text} (missed)" for text, is_kept in row.verdicts
        )
        parts.append(f"| {row.label} | {row.unit} | {ours} | {theirs} | {ratio} | {budget} |\n")
    if remarks := findings.remarks():
        parts.append("\n## Remarks\n\n")
        parts += [f"- {remark.removeprefix('* ')}\n" for remark in remarks]
    return "".join(parts)


def current_commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    try:
        words = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def _versions() -> list[str]:
    found = [f"paddler {__version__}", f"Python {platform.python_version()}"]
    for package in ("uvloop", "llama-cpp-python"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    for name, flag in (("nginx", "-v"), ("haproxy", "-v")):
        if (program := find_program(name)) is not None:
            told = subprocess.run((program, flag), capture_output=True, text=True, check=False)
            line = (told.stdout + told.stderr).strip().splitlines()[0]
            found.append(line.removeprefix("nginx version: ").partition(" - ")[0])
    return found
