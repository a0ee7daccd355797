"""``python -m bench.scripted_agent``: many agents without a model, for benches and tests."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence

import msgspec
import uvloop

from bench import flags
from bench.descriptors import allow_many_sockets
from bench.scripted.fleet import ScriptedFleet
from bench.scripted.script import Script
from paddler.cli import EXIT_FAILURE, EXIT_OK, complain, ungrouped
from paddler.collection import collect_seldom
from paddler.config import MAX_SLOTS
from paddler.errors import PaddlerError, StartError
from paddler.log import set_up_logging
from paddler.signals import StopSignals

DESCRIPTION = """\
Many agents in one process that speak the real link protocol and answer with made-up tokens
at a set pace. They say how many have joined, and at the end what they did."""

EPILOG = """\
examples:
  python -m bench.scripted_agent --agents 10 --slots 8
  python -m bench.scripted_agent --agents 1000 --slots 8 --rate 10 --stamp --duration 60
  python -m bench.scripted_agent --agents 4 --slots 2 --stall 0.01 --reconnect-every 30

faults are chances from 0 to 1 that an answer meets with one, in its middle."""


def build_parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("python -m bench.scripted_agent", DESCRIPTION, EPILOG)
    parser.add_argument(
        "--management-addr",
        metavar="ADDR",
        type=flags.address,
        default="127.0.0.1:8060",
        help="the balancer's management address (default: %(default)s)",
    )
    parser.add_argument("--agents", metavar="N", type=flags.count, default=1, help="(default: 1)")
    parser.add_argument(
        "--slots", metavar="N", type=flags.count, default=8, help="of each agent (default: 8)"
    )
    parser.add_argument(
        "--name-prefix",
        metavar="TEXT",
        default="scripted-",
        help="opens every agent's name (default: %(default)s)",
    )
    pace = parser.add_argument_group("answers")
    pace.add_argument(
        "--rate",
        metavar="R",
        type=flags.amount,
        default=20.0,
        help="tokens a second and stream; 0: a whole answer at once (default: 20)",
    )
    pace.add_argument(
        "--prefill-ms",
        metavar="MS",
        type=flags.amount,
        default=0.0,
        help="from a request to its first token, at least (default: 0)",
    )
    pace.add_argument(
        "--tokens",
        metavar="N",
        type=flags.count,
        default=128,
        help="of an answer, unless the request wants fewer (default: 128)",
    )
    pace.add_argument(
        "--stamp",
        action="store_true",
        help="each token carries <t, its time in ns by the monotonic clock, and >",
    )
    faults = parser.add_argument_group("faults")
    faults.add_argument(
        "--stall",
        metavar="P",
        type=flags.chance,
        default=0.0,
        help="an answer falls silent until it is stopped",
    )
    faults.add_argument(
        "--drop",
        metavar="P",
        type=flags.chance,
        default=0.0,
        help="an answer's agent loses its connection, and dials again",
    )
    faults.add_argument(
        "--garbage",
        metavar="P",
        type=flags.chance,
        default=0.0,
        help="an answer's agent sends bytes that are no data message",
    )
    faults.add_argument(
        "--reconnect-every",
        metavar="S",
        type=flags.positive,
        help="each agent loses its connection every S seconds, on average (off)",
    )
    faults.add_argument(
        "--seed", metavar="N", type=int, help="of all that is drawn by chance (default: a new one)"
    )
    parser.add_argument(
        "--duration", metavar="S", type=flags.positive, help="stop after S seconds (off)"
    )
    parser.add_argument("--json", action="store_true", help="tell at the end as JSON")
    return parser


def script_of(arguments: argparse.Namespace) -> Script:
    """What the flags ask for."""
    return Script(
        slots=arguments.slots,
        tokens_per_s=arguments.rate,
        prefill_s=arguments.prefill_ms / 1000,
        tokens=arguments.tokens,
        is_stamped=arguments.stamp,
        stall=arguments.stall,
        drop=arguments.drop,
        garbage=arguments.garbage,
        reconnect_every_s=arguments.reconnect_every,
    )


async def serve(arguments: argparse.Namespace) -> None:
    """Run the fleet until its time is up or the process is told to stop.

    :class:`StartError`: no agent has ever joined.
    """
    fleet = ScriptedFleet(
        arguments.management_addr,
        arguments.agents,
        script_of(arguments),
        name_prefix=arguments.name_prefix,
        seed=arguments.seed,
    )
    async with StopSignals() as signals, fleet.running():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(arguments.duration):
                joining = asyncio.create_task(fleet.wait_joined())
                joining.add_done_callback(
                    lambda task: (
                        None
                        if task.cancelled()
                        else print(f"{arguments.agents} agents joined", flush=True)
                    )
                )
                try:
                    await signals.wait()
                finally:
                    joining.cancel()
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(fleet.tally)), flush=True)
    else:
        print(fleet.tally.line(), flush=True)
    if not fleet.tally.agents_joined:
        raise StartError(
            f"no agent joined {arguments.management_addr.text}: "
            f"{fleet.tally.last_failure or 'nobody answered in time'}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run scripted agents; the process's exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.slots > MAX_SLOTS:
        parser.error(f"argument --slots: {arguments.slots}: expected at most {MAX_SLOTS}")
    if arguments.stall + arguments.drop + arguments.garbage > 1:
        parser.error("--stall, --drop and --garbage: expected chances that add up to 1 at most")
    set_up_logging(os.environ, default="error")
    collect_seldom()
    try:
        allow_many_sockets(arguments.agents)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments))
    except (PaddlerError, ExceptionGroup) as error:
        cause = ungrouped(error)
        if not isinstance(cause, PaddlerError):
            raise
        return complain(cause, EXIT_FAILURE)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
