"""Runs the tests below the end-to-end level and fails unless they cover what they must.

Bugs are silent in protocols, policies, message shapes and compiled code: there, every line and
every branch runs in a test. Elsewhere, judgement. Run by ``make coverage`` in a tree whose
``_fastpath`` was built to be traced (``tests/build_variant.py trace``).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import coverage
import pytest

TREE: Final = Path.cwd()

# Patterns of files whose every line and branch must run. Lines alone for the .pyx: Cython tells
# no branches, so its twin carries them.
GATES: Final = (
    "paddler/_fastpath.pyx",
    "paddler/agent/worker/batch.py",
    "paddler/balancer/policy.py",
    "paddler/messages/**/*.py",
    "paddler/proto/*.py",
    "tests/fastpath_twin.py",
)


def main() -> int:
    """Run the tests, print the table; 0 if they pass and every gate holds."""
    measurement = coverage.Coverage(data_file=None, source=["paddler", "tests"])
    with measurement.collect():
        code = pytest.main(["-q", "-m", "not e2e", *sys.argv[1:]])
    if code != pytest.ExitCode.OK:
        return int(code)
    files = report(measurement)
    is_held = True
    for pattern in GATES:
        for path in sorted(TREE.glob(pattern)):
            name = str(path.relative_to(TREE))
            missing = describe_missing(files.get(name))
            is_held = is_held and not missing
            print(f"{name:<36} {missing or 'covered'}")
    others = [file["summary"] for name, file in files.items() if name.startswith("paddler/")]
    lines = sum(summary["num_statements"] for summary in others)
    covered = sum(summary["covered_lines"] for summary in others)
    print(f"{'paddler, all lines':<36} {covered / lines:.1%}")
    return 0 if is_held else 1


def report(measurement: coverage.Coverage) -> dict[str, dict[str, Any]]:
    """What coverage knows of each file, by its path within the tree."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "coverage.json")
        measurement.json_report(outfile=str(path))
        files: dict[str, dict[str, Any]] = json.loads(path.read_text())["files"]
    return files


def describe_missing(file: dict[str, Any] | None) -> str:
    """The lines and branches that did not run; empty if all did."""
    if file is None:
        return "MISSING: never imported, or not built to be traced"
    missing = [str(line) for line in file["missing_lines"]]
    missing += [f"{start}->{end}" for start, end in file.get("missing_branches", ())]
    return f"MISSING {', '.join(missing)}" if missing else ""


if __name__ == "__main__":
    raise SystemExit(main())
