"""Fuzzes all targets, or those that are named, one after the other, each for its share of the time.

    python -m tests.fuzz --minutes 20 [TARGET …]

Inputs that reached new code are kept in ``.cache/fuzz/grown`` for the next run; those that broke
something are in ``.cache/fuzz/found``, as lines for ``tests/fuzz/corpus``.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.corpus import TARGETS

CACHE = Path(__file__).resolve().parents[2] / ".cache/fuzz"
RUNS = re.compile(r"stat::number_of_executed_units: (\d+)")


def main() -> int:
    """Run them and print a table; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    end = time.monotonic() + 60 * arguments.minutes
    is_clean = True
    for number, target in enumerate(targets):
        if target not in TARGETS:
            parser.error(f"there is no target {target!r}: expected any of {', '.join(TARGETS)}")
        seconds = max(1, int((end - time.monotonic()) / (len(targets) - number)))
        tried, failure, found = drive(target, seconds, CACHE)
        print(
            f"{target:<18} {tried:>10,} inputs {'ok' if failure is None else 'FAILED'}", flush=True
        )
        if failure is not None:
            is_clean = False
            print(failure, *found, sep="\n", flush=True)
    return 0 if is_clean else 1


def drive(
    target: str, seconds: int, folder: Path, *, seed: int = 0
) -> tuple[int, str | None, list[str]]:
    """Inputs tried, what failed, and the input as a line for the corpus."""
    found = folder / "found" / target
    command = [
        *(sys.executable, "-m", "tests.fuzz.drive", target, "--seconds", str(seconds)),
        *("--grown", str(folder / "grown" / target), "--found", str(found), "--seed", str(seed)),
    ]
    run = subprocess.run(command, capture_output=True, check=False)
    told = run.stderr.decode(errors="replace") + run.stdout.decode(errors="replace")
    runs = RUNS.search(told)
    tried = int(runs[1]) if runs else 0
    if run.returncode == 0 and tried:
        return tried, None, []
    return tried, told[-6000:], [repr(path.read_bytes()) for path in sorted(found.glob("*"))]


if __name__ == "__main__":
    raise SystemExit(main())
