"""What a run tells while it goes on: a live line on a terminal, one a second otherwise."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.load.measures import Moment


def line_of(moment: Moment) -> str:
    """One stretch of time, in a line."""
    return (
        f"{moment.at_s:6.1f} s  {moment.in_flight:6} under way  "
        f"{moment.tokens / moment.length_s:10.1f} tokens/s  "
        f"{moment.finished / moment.length_s:8.1f} requests/s  "
        f"first token {moment.first_p50_s * 1e3:8.1f} ms (p50) "
        f"{moment.first_p99_s * 1e3:8.1f} (p99)  {moment.failed} failed"
    )


@contextlib.contextmanager
def telling(*, is_quiet: bool) -> Iterator[Callable[[Moment], object]]:
    """Shows each moment on stderr within the block."""
    if is_quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            yield lambda moment: live.update(Text(line_of(moment)), refresh=True)
    else:
        yield lambda moment: print(line_of(moment), file=sys.stderr, flush=True)
