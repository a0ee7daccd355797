"""``python -m bench.load``: put load on a server, and tell how it did."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench import flags
from bench.descriptors import allow_many_sockets
from bench.load.distribution import FORMS, parse_distribution
from bench.load.html import render_html
from bench.load.live import telling
from bench.load.plan import Api, Mix, Plan, Target
from bench.load.report import Report, print_report, report_of
from bench.load.run import Run
from paddler.cli import EXIT_FAILURE, EXIT_OK, complain
from paddler.collection import collect_seldom
from paddler.errors import ConfigError, StartError
from paddler.log import set_up_logging
from paddler.signals import StopSignals

DESCRIPTION = """\
Put load on any OpenAI-compatible or Paddler server and tell how it did: time to the first
token, time between tokens, tokens and requests a second, errors by kind."""

EPILOG = f"""\
DIST is {FORMS}.

examples:
  python -m bench.load http://127.0.0.1:8070 --streams 16 --duration 30
  python -m bench.load http://127.0.0.1:8070 --arrivals 5 --prompt-words lognormal:300:1 \\
      --max-tokens uniform:20:400 --duration 120 --html report.html
  python -m bench.load http://127.0.0.1:8061 --api native-chat --streams 8 --turns 4

With --arrivals requests begin whether or not earlier ones are answered, as people do, and
every time counts from when a request should have begun. Without it, each of --streams
clients waits for its answer before it asks again: a slow server then gets fewer requests."""


def build_parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("python -m bench.load", DESCRIPTION, EPILOG)
    parser.add_argument("url", metavar="URL", help="http://host:port; a path replaces the API's")
    asked = parser.add_argument_group("requests")
    asked.add_argument(
        "--api", choices=[api.value for api in Api], default="chat", help="(default: chat)"
    )
    asked.add_argument("--model", metavar="NAME", default="default", help="(default: %(default)s)")
    asked.add_argument(
        "--prompt-words",
        metavar="DIST",
        type=parse_distribution,
        default="32",
        help="(default: 32)",
    )
    asked.add_argument(
        "--max-tokens",
        metavar="DIST",
        type=parse_distribution,
        default="64",
        help="(default: 64)",
    )
    asked.add_argument(
        "--shared-prefix", metavar="WORDS", type=flags.count, default=0, help="open each prompt"
    )
    asked.add_argument(
        "--prefixes", metavar="N", type=flags.count, default=1, help="of them (default: 1)"
    )
    asked.add_argument(
        "--turns", metavar="N", type=flags.count, default=1, help="of a conversation (default: 1)"
    )
    asked.add_argument("--no-stream", action="store_true", help="answers as one document")
    asked.add_argument(
        "--body", metavar="JSON", type=json_object, default={}, help="keys to merge into each body"
    )
    asked.add_argument(
        "--header", metavar="'NAME: VALUE'", type=header, action="append", default=[]
    )
    pace = parser.add_argument_group("pace")
    pace.add_argument(
        "--streams",
        metavar="N",
        type=flags.count,
        help="at once (default: 8; with --arrivals at most 10000)",
    )
    pace.add_argument(
        "--arrivals", metavar="R", type=flags.positive, help="requests a second, at random times"
    )
    pace.add_argument(
        "--duration", metavar="S", type=flags.positive, default=10.0, help="(default: 10)"
    )
    pace.add_argument("--requests", metavar="N", type=flags.count, help="stop after N (off)")
    pace.add_argument(
        "--warmup", metavar="S", type=flags.amount, default=0.0, help="not counted (default: 0)"
    )
    pace.add_argument(
        "--ramp", metavar="S", type=flags.amount, default=0.0, help="to start streams (default: 0)"
    )
    pace.add_argument(
        "--drain", metavar="S", type=flags.amount, default=5.0, help="at the end (default: 5)"
    )
    pace.add_argument(
        "--timeout", metavar="S", type=flags.positive, default=120.0, help="(default: 120)"
    )
    pace.add_argument("--seed", metavar="N", type=int, help="of all that is drawn (default: new)")
    told = parser.add_argument_group("report")
    told.add_argument("--stamps", action="store_true", help="tokens tell their time: measure age")
    told.add_argument(
        "--watch-pid",
        metavar="PID",
        type=flags.count,
        help="measure its processor time for each token and request (Linux, this machine)",
    )
    told.add_argument(
        "--json", metavar="FILE", type=flags.output, help="as JSON; - is standard output"
    )
    told.add_argument("--html", metavar="FILE", type=flags.output, help="as a page with charts")
    told.add_argument("--quiet", action="store_true", help="nothing until the end")
    return parser


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a JSON object")
    return value


def header(text: str) -> tuple[str, str]:
    """A header's name and value."""
    name, colon, value = text.partition(":")
    is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    if not colon or not is_token or not value.strip().isprintable():
        raise argparse.ArgumentTypeError(f"{text!r}: expected 'NAME: VALUE'")
    return name, value.strip()


def target_of(url: str, api: Api, headers: Sequence[tuple[str, str]]) -> Target:
    """Where ``url`` points; :class:`ConfigError` if nowhere."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r}: expected http://host:port, as in http://127.0.0.1:8070")
    if parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r}: expected nothing but a host, a port and maybe a path")
    is_tls = parts.scheme == "https"
    return Target(
        host=parts.hostname,
        port=port or (443 if is_tls else 80),
        path=parts.path if parts.path not in ("", "/") else api.path,
        is_tls=is_tls,
        headers=tuple(headers),
    )


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What the flags ask for; :class:`ConfigError` where they do not go together."""
    api = Api(arguments.api)
    streams = arguments.streams or (8 if arguments.arrivals is None else 10_000)
    return Plan(
        target=target_of(arguments.url, api, arguments.header),
        mix=Mix(
            api=api,
            model=arguments.model,
            prompt=arguments.prompt_words,
            output=arguments.max_tokens,
            is_streamed=not arguments.no_stream,
            shared_prefix=arguments.shared_prefix,
            prefixes=arguments.prefixes,
            turns=arguments.turns,
            extra=arguments.body,
        ),
        streams=streams,
        arrivals_per_s=arguments.arrivals,
        duration_s=arguments.duration,
        requests=arguments.requests,
        warmup_s=arguments.warmup,
        ramp_s=arguments.ramp,
        drain_s=arguments.drain,
        timeout_s=arguments.timeout,
        are_stamped=arguments.stamps,
        watched_pid=arguments.watch_pid,
        seed=arguments.seed,
    )


async def measure(plan: Plan, *, is_quiet: bool) -> Report:
    """Run ``plan``; a stop signal ends it early, and what was measured is told."""
    with telling(is_quiet=is_quiet) as tell:
        run = Run(plan, tell)
        async with StopSignals() as signals:

            async def stop_early() -> None:
                await signals.wait()
                run.stop()

            stopping = asyncio.create_task(stop_early())
            await signals.unless_again(run.run())
            stopping.cancel()
    return report_of(plan, run.measures)


def write_report(report: Report, *, json_path: Path | None, html_path: Path | None) -> None:
    """To the files that were asked for, and as a table unless JSON goes to standard output."""
    document = msgspec.json.format(msgspec.json.encode(report), indent=1)
    if json_path is not None and str(json_path) == "-":
        sys.stdout.write(document.decode() + "\n")
    else:
        print_report(report)
    try:
        if json_path is not None and str(json_path) != "-":
            json_path.write_bytes(document + b"\n")
        if html_path is not None:
            html_path.write_text(render_html(report))
    except OSError as error:
        raise StartError(f"cannot write {error.filename}: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Put load on a server; the process's exit code: 1 if nothing was answered."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    set_up_logging(os.environ, default="warn")
    collect_seldom()
    try:
        plan = plan_of(arguments)
        if plan.arrivals_per_s is None:
            allow_many_sockets(plan.streams)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(measure(plan, is_quiet=arguments.quiet))
        write_report(report, json_path=arguments.json, html_path=arguments.html)
    except ConfigError as error:
        parser.error(str(error))
    except StartError as error:
        return complain(error, EXIT_FAILURE)
    is_answered = report.finished or report.cut > report.unanswered
    return EXIT_OK if is_answered or not report.failed else EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
