"""``python -m bench.compare``: Paddler beside other programs, measured in one run."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bench import flags
from bench.compare.findings import Findings
from bench.compare.relay import compare_relay, measure_scale
from bench.compare.requests import compare_requests
from bench.compare.table import print_findings
from paddler.cli import EXIT_OK
from paddler.log import set_up_logging

COMPARISONS: Final[dict[str, Callable[..., None]]] = {
    "relay": compare_relay,
    "requests": compare_requests,
    "scale": measure_scale,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.Parser("python -m bench.compare", "", "")
    parser.add_argument("what", nargs="*", choices=[*COMPARISONS, []], default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=flags.count, default=1)
    arguments = parser.parse_args(argv)
    set_up_logging(os.environ, default="warn")
    findings = Findings()
    for number in range(arguments.repeat):
        for name in arguments.what or COMPARISONS:
            print(f"{name}, run {number + 1} of {arguments.repeat}", file=sys.stderr, flush=True)
            COMPARISONS[name](findings, is_quick=arguments.quick)
    print_findings(findings)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
