"""The process that fetches a model, as the agent sees it: started, heard, killed."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Final, assert_never

from paddler.agent.models.causes import Cause, ModelUnavailable, issue_of
from paddler.descriptors import PROCESS_NEEDS, check_room
from paddler.messages.fetch import (
    Fetched,
    FetchEvent,
    FetchFailed,
    FetchJob,
    HubJob,
    UrlJob,
    decode_from_fetch,
    encode,
)

MAX_LINE_BYTES: Final = 16 << 20
"""Of a message: it may hold an address, and that is as long as somebody made it."""

OnFetchEvent = Callable[[FetchEvent], None]


async def fetch(job: FetchJob, on_event: OnFetchEvent) -> str:
    """The path of the model, once it is here; :class:`ModelUnavailable` if it cannot be had.

    Cancelling ends it at once, whatever it waits for; what was received stays for the next
    try. No process is left when this returns.
    """
    try:
        check_room(PROCESS_NEEDS)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "paddler.agent.models.fetch"),
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_LINE_BYTES,
        )
    except OSError as error:
        raise ModelUnavailable(
            f"{shown(job)}: cannot start a process for the download: {error.strerror}",
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
                raise ModelUnavailable(f"{shown(job)}: {reason}", issue)
            case event:
                on_event(event)
    code = await process.wait()
    raise ModelUnavailable(
        f"{shown(job)}: the process that downloads it ended with status {code}",
        issue_of(Cause.INTERRUPTED, job),
    )


def shown(job: FetchJob) -> str:
    """What logs call it: an address without what may be secret in it."""
    match job:
        case HubJob():
            return job.name
        case UrlJob(url):
            host_and_path = url.partition("://")[2].partition("?")[0].partition("#")[0]
            host, slash, path = host_and_path.partition("/")
            return f"{host.rpartition('@')[2]}{slash}{path}"
        case _:
            assert_never(job)
