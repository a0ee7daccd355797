"""The worker process: ``python -m paddler.agent.worker.main``, started by the agent only.

It loads the model that its first command names, then serves streams until the agent
process closes the pipe. It opens no socket of its own.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import assert_never

from paddler.agent.parent import die_with_parent
from paddler.agent.slot_table import SharedSlotTable
from paddler.agent.worker.aside import Aside
from paddler.agent.worker.channel import Channel, ParentLeft
from paddler.agent.worker.confinement import confine
from paddler.agent.worker.embeddings import EmbeddingStreams
from paddler.agent.worker.engine_llama import start_backend
from paddler.agent.worker.loading import LoadRefused, loaded
from paddler.agent.worker.streams import EngineBroken, Streams
from paddler.errors import RemoteProtocolError
from paddler.log import set_up_logging
from paddler.messages.link import StartStream, StopStream
from paddler.messages.worker import (
    Load,
    LoadFailed,
    Ping,
    Pong,
    Reset,
    ResetDone,
    Stop,
    ToWorker,
)

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker; returns its exit code."""
    arguments = _parse(argv)
    die_with_parent()
    # Ctrl-C and many supervisors reach the whole process group; the agent drains first, and
    # decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    set_up_logging(os.environ)
    confine()
    table = SharedSlotTable(arguments.slots_fd, arguments.slots)
    with socket.socket(fileno=arguments.socket_fd) as sock:
        try:
            run(Channel(sock), table)
        except ParentLeft:
            _log.debug("the agent process has ended the worker")
        except EngineBroken as broken:
            _log.critical("%s", broken)
            return 1
    return 0


def run(channel: Channel, table: SharedSlotTable) -> None:
    """Load and serve. Returns when the model cannot be loaded, else ends by an exception."""
    load = channel.receive()
    if not isinstance(load, Load):
        raise RemoteProtocolError(f"the first command was {load!r}; it must be a Load")
    start_backend()
    try:
        with loaded(load, channel.send) as (engine, prompts, ready), Aside() as aside:
            streams: Streams | EmbeddingStreams
            if prompts is None:
                streams = EmbeddingStreams(engine, table, agent_label=load.agent_label)
            else:
                streams = Streams(
                    engine, prompts, table, agent_label=load.agent_label, run_aside=aside
                )
            channel.send(ready)
            serve(channel, streams, aside)
    except LoadRefused as refused:
        channel.send(LoadFailed(issues=refused.issues, reason=str(refused)))


def serve(channel: Channel, streams: Streams | EmbeddingStreams, aside: Aside) -> None:
    """Pump commands and frames until :class:`ParentLeft`. Sends mostly one packet per step."""
    while True:
        if not streams.is_running:
            channel.wait(or_readable=aside.wake_fd)
        while (command := channel.receive_nowait()) is not None:
            _obey(command, channel, streams)
        aside.collect()
        if streams.is_running:
            streams.step()
        while (taken := streams.take_frames()) is not None:
            channel.send_frames(*taken)


def _obey(command: ToWorker, channel: Channel, streams: Streams | EmbeddingStreams) -> None:
    match command:
        case StartStream():
            streams.start(command)
        case StopStream():
            streams.stop(command)
        case Reset():
            streams.reset()
            channel.send(ResetDone(command.epoch))
        case Ping():
            channel.send(Pong())
        case Load():
            raise RemoteProtocolError("a worker loads one model; start another for the next one")
        case Stop():
            raise ParentLeft
        case _:
            assert_never(command)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="paddler-worker", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="pipe to the agent process")
    parser.add_argument("--slots-fd", type=int, required=True, help="memory of the slot table")
    parser.add_argument("--slots", type=int, required=True, help="rows of the slot table")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
