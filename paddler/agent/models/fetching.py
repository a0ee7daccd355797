"""The process that fetches a model, as the agent sees it: started, heard, killed."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

from paddler.agent.models.causes import Cause, ModelUnavailable, issue_of
from paddler.messages.fetch import (
    Fetched,
    FetchEvent,
    FetchFailed,
    FetchJob,
    decode_from_fetch,
    encode,
)

OnFetchEvent = Callable[[FetchEvent], None]


async def fetch(job: FetchJob, on_event: OnFetchEvent) -> str:
    """The path of the model, once it is here; :class:`ModelUnavailable` if it cannot be had.

    Cancelling ends it at once, whatever it waits for; what was received stays for the next
    try. No process is left when this returns.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "paddler.agent.models.fetch"),
            stdin=PIPE,
            stdout=PIPE,
        )
    except OSError as error:
        raise ModelUnavailable(
            f"cannot start a process for the download: {error.strerror}",
            issue_of(Cause.INTERRUPTED, job),
        ) from error
    try:
        return await _converse(process, job, on_event)
    finally:
        if process.returncode is None:
            # Not Process.kill: on asyncio's own loop that may reap the process, and its exit
            # code is lost to who waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


async def _converse(process: Process, job: FetchJob, on_event: OnFetchEvent) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode(job) + b"\n")
    while line := await process.stdout.readline():
        match decode_from_fetch(line):
            case Fetched(path):
                return path
            case FetchFailed(issue, reason):
                raise ModelUnavailable(reason, issue)
            case event:
                on_event(event)
    code = await process.wait()
    raise ModelUnavailable(
        f"the process that downloads it ended with status {code}",
        issue_of(Cause.INTERRUPTED, job),
    )
