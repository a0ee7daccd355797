"""``python -m bench.compare``: Paddler beside other programs, measured in one run."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import flags
from bench.compare.engine import compare_engines, compare_turns
from bench.compare.findings import Findings
from bench.compare.memory import measure_memory
from bench.compare.processes import BenchFailed
from bench.compare.relay import compare_relay, measure_scale
from bench.compare.requests import compare_requests
from bench.compare.results import current_commit, render_results
from bench.compare.slots import measure_slots
from bench.compare.start import measure_start
from bench.compare.table import print_findings
from paddler.cli import EXIT_FAILURE, EXIT_OK, complain
from paddler.errors import StartError
from paddler.log import set_up_logging

DESCRIPTION = """\
Measure Paddler beside other programs on the same work, in one run on one machine. Each row
tells ours, theirs and ours divided by the best of theirs. What is not installed is skipped,
and said so."""

EPILOG = """\
comparisons:
  relay      processor time and delay of a token, beside nginx and haproxy
  requests   the same of short requests
  scale      8,000 streams on 1,000 agents
  slots      claim and release of a slot
  memory     of connections and streams, beside nginx and haproxy; growth by churn
  start      of a balancer
  engine     tokens a second and time to the first token, beside llama-server and llama-cpp-python
  turns      conversations over several agents with a real model

examples:
  python -m bench.compare relay requests
  python -m bench.compare engine --llama-server ~/llama.cpp/build/bin/llama-server
  python -m bench.compare --repeat 3 --results bench/RESULTS.md"""

Comparison = Callable[..., None]


def build_parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("python -m bench.compare", DESCRIPTION, EPILOG)
    parser.add_argument("what", nargs="*", metavar="COMPARISON", help="(default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: a first look")
    parser.add_argument("--repeat", metavar="N", type=flags.count, default=1, help="(default: 1)")
    parser.add_argument("--model", metavar="FILE", type=Path, help="for engine and turns, a GGUF")
    parser.add_argument("--llama-server", metavar="PATH", help="for engine")
    parser.add_argument(
        "--llama-cpp-python", metavar="PATH", help="for engine: a Python that has its server"
    )
    parser.add_argument(
        "--results", metavar="FILE", type=flags.output, help="also write a report in Markdown"
    )
    return parser


def comparisons_of(arguments: argparse.Namespace) -> dict[str, Comparison]:
    """Everything that can be measured, by name."""
    return {
        "slots": measure_slots,
        "start": measure_start,
        "relay": compare_relay,
        "requests": compare_requests,
        "memory": measure_memory,
        "scale": measure_scale,
        "engine": partial(
            compare_engines,
            model=arguments.model,
            llama_server=arguments.llama_server,
            llama_cpp_python=arguments.llama_cpp_python,
        ),
        "turns": partial(compare_turns, model=arguments.model),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the process's exit code: 1 if a program did not do its part."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    comparisons = comparisons_of(arguments)
    if unknown := [name for name in arguments.what if name not in comparisons]:
        parser.error(f"{unknown[0]!r}: expected {', '.join(comparisons)}")
    for flag, program in (
        ("--llama-server", arguments.llama_server),
        ("--llama-cpp-python", arguments.llama_cpp_python),
    ):
        if program is not None and not os.access(program, os.X_OK):
            parser.error(f"argument {flag}: {program}: no program")
    set_up_logging(os.environ, default="warn")
    # Programs end with the blocks that started them: SIGTERM has to end these, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return compare(arguments, comparisons, argv)
    except StartError as error:
        return complain(error, EXIT_FAILURE)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def compare(
    arguments: argparse.Namespace,
    comparisons: Mapping[str, Comparison],
    argv: Sequence[str] | None,
) -> int:
    """Measure what was asked for, and tell it."""
    findings = Findings()
    commit = current_commit()  # before a page is written that would make the tree another one
    has_failed = False
    for number in range(1, arguments.repeat + 1):
        for name in arguments.what or comparisons:
            print(f"{name}, run {number} of {arguments.repeat}", file=sys.stderr, flush=True)
            try:
                comparisons[name](findings, is_quick=arguments.quick)
            except BenchFailed as error:
                has_failed = True
                findings.skip(f"{name}, run {number}: {error}")
        if arguments.results is not None:  # after each run: a later one may be ended early
            words = sys.argv[1:] if argv is None else argv
            write_results(arguments.results, findings, words, commit=commit)
    print_findings(findings)
    return EXIT_FAILURE if has_failed else EXIT_OK


def write_results(path: Path, findings: Findings, words: Sequence[str], *, commit: str) -> None:
    """The page of results; :class:`StartError` where it cannot be written."""
    # Where a program lies on this machine is nobody's concern.
    shown = (Path(word).name if word.startswith("/") else word for word in words)
    command = f"python -m bench.compare {' '.join(shown)}"
    page = render_results(findings, command=command, commit=commit)
    try:
        path.write_text(page)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
