"""The process that fetches one model: ``python -m paddler.agent.models.fetch``.

The agent starts it, gives it a job, listens to it, and kills it when the job is not wanted
any more, whatever it waits for then. What it has received stays, for the next one.
"""

import logging
import os
import signal
import sys
from functools import partial
from typing import BinaryIO, assert_never

from paddler.agent.models.causes import Cause, SourceFailed, issue_of
from paddler.agent.models.hub import Hub, fetch_from_hub
from paddler.agent.models.reports import Report
from paddler.agent.models.url import fetch_from_url
from paddler.agent.own_memory import keep_own_memory
from paddler.agent.parent import die_with_parent
from paddler.log import set_up_logging
from paddler.messages.fetch import (
    Fetched,
    FetchFailed,
    FetchJob,
    FromFetch,
    HubJob,
    UrlJob,
    decode_job,
    encode,
)

log = logging.getLogger(__name__)


def main() -> int:
    """Do the job on stdin; returns the exit code."""
    keep_own_memory()
    die_with_parent()
    # Ctrl-C reaches the whole process group; the agent decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It would log every address, and those may hold secrets.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    set_up_logging(os.environ)
    line = sys.stdin.buffer.readline()
    if not line:  # The agent has changed its mind already.
        return 1
    job = decode_job(line)
    events = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no event
    try:
        with open(events, "wb") as pipe:
            report = partial(tell, pipe)
            report(outcome(job, report))
    except BrokenPipeError:  # The agent is gone, where the system does not end us with it.
        return 1
    return 0


def outcome(job: FetchJob, report: Report) -> Fetched | FetchFailed:
    """What became of ``job``."""
    try:
        match job:
            case HubJob():
                return Fetched(fetch_from_hub(job, report, Hub()))
            case UrlJob():
                return Fetched(fetch_from_url(job, report, os.environ))
            case _:
                assert_never(job)
    except SourceFailed as failure:
        return FetchFailed(issue=issue_of(failure.cause, job), reason=str(failure))
    except BrokenPipeError:
        raise
    except Exception as error:
        log.exception("a bug, or an error of a library that nobody foresaw")
        return FetchFailed(issue=issue_of(Cause.INTERRUPTED, job), reason=repr(error))


def tell(pipe: BinaryIO, message: FromFetch) -> None:
    """Send one line to the agent."""
    pipe.write(encode(message) + b"\n")
    pipe.flush()


if __name__ == "__main__":
    sys.exit(main())
