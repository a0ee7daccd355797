"""Command line: argv and environment to a Config, then the role's ``run``. The only reader of both.

Roles are imported when chosen, so that a balancer host needs no model library and
``--help`` is quick.
"""

import argparse
import io
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import msgspec

from paddler import __version__, config
from paddler.access_flags import access_of, add_access, listeners_tls
from paddler.collection import collect_later
from paddler.config import (
    Address,
    AgentConfig,
    BalancerConfig,
    Buffering,
    Statsd,
)
from paddler.dialling import add_dialling, dialling_of
from paddler.errors import ConfigError, StartError
from paddler.log import LOG_FORMAT_VARIABLE, LOG_FORMATS, set_up_logging
from paddler.messages.state import ModelSource
from paddler.operators.model_names import parse_model
from paddler.operators.parsers import add_completions, add_operator_roles
from paddler.signals import stop_signals

T = TypeVar("T")

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2
EXIT_SIGNAL = 128
"""Beyond it, the number of the signal that ended a command too early, as shells have it."""

SERVICES = ("balancer", "agent", "up")

TOP_DESCRIPTION = """\
Serve large language models on your own hardware. One balancer takes every request; any
number of agents run the model and dial the balancer, so only the balancer needs an
address."""

TOP_EPILOG = """\
first contact, all on this machine:
  paddler up --model ./model.gguf

a fleet:
  paddler balancer --web-admin-panel-addr --compat-openai-addr       on one host
  paddler agent --management-addr 10.0.0.5:8060 --slots 8            on each host with a model

then choose the model, once for the whole fleet, and ask it:
  paddler model set hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf --wait
  paddler chat "What is the capital of France?"

environment:
  PADDLER_LOG, RUST_LOG   log filter, e.g. info or warn,paddler.balancer=debug (logs go to stderr)
  PADDLER_…               any flag's value: PADDLER_MANAGEMENT_ADDR for --management-addr, …;
                          repeatable flags take several values with blanks between

exit codes:  0 done, or stopped as asked   1 could not start or go on   2 bad usage
             128 + n: ended by signal n before it was done, as 130 by Ctrl-C"""

BALANCER_EPILOG = """\
addresses are host:port or [v6]:port; a name is resolved once, at start. Times are
milliseconds (10000), or carry a unit: 500ms, 10s, 5m, 1h.

examples:
  paddler balancer
  paddler balancer --inference-addr 0.0.0.0:8061 --state-database file:///var/lib/paddler/state.json
  paddler balancer --compat-openai-addr --web-admin-panel-addr 0.0.0.0:8062

The management address is for agents and operators only: whoever reaches it can swap models.

SIGTERM or SIGINT stops accepting and gives running answers --drain-timeout to finish; a second
signal ends at once."""

AGENT_EPILOG = """\
examples:
  paddler agent --slots 8
  paddler agent --management-addr balancer.internal:8060 --slots 8 --name gpu-1

A slot is one request at a time. All slots share one context (the desired state's
context_size): a long conversation may use what others leave. With --no-kv-unified each
slot has context_size / slots for itself, and an agent whose slots are mostly busy is quicker
on a CPU. Start with 4 or 8 slots and watch the panel. The agent needs the model library:
pip install 'paddler[agent]'.

environment, for models that are downloaded:
  HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE   the Hugging Face Hub
  PADDLER_CACHE_DIR   files from addresses (else $XDG_CACHE_HOME/paddler, ~/.cache/paddler)
  HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY"""

UP_EPILOG = """\
example:
  paddler up --model ~/models/SmolLM2-135M-Instruct.Q4_1.gguf
  paddler up --model hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf

Runs a balancer with all four listeners and one agent in this terminal, loads the model,
asks it one question and serves until Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``paddler`` and return its exit code."""
    owns_process = argv is None
    if argv is None:
        argv = sys.argv[1:]
        open_standard_streams()
        # Told to stop before a role listens to signals itself: no failure.
        exit_on_signals(lambda _: EXIT_OK)
    if sys.stdout is not None and isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that knows no emoji shows something else; that ends no answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = build_parser()
    take_environment(parser, os.environ, argv)
    arguments = parser.parse_args(argv)
    if arguments.role is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if owns_process and not is_endless(arguments):
        exit_on_signals(lambda number: EXIT_SIGNAL + number)
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough of it
        give_up_output()
        return EXIT_OK
    except OSError as error:
        if arguments.role in SERVICES:
            raise
        give_up_output()  # commands tell of every other error themselves
        return complain(StartError(f"cannot write the output: {error.strerror}"), EXIT_FAILURE)
    except Exception as error:
        cause = ungrouped(error)
        if isinstance(cause, ConfigError):
            return complain(cause, EXIT_USAGE)
        if isinstance(cause, StartError):
            return complain(cause, EXIT_FAILURE)
        raise
    return code


def is_endless(arguments: argparse.Namespace) -> bool:
    """Whether a signal is the usual end of this command."""
    flags = (getattr(arguments, name, False) for name in ("watch", "follow"))
    return arguments.role in SERVICES or any(flags)


def exit_on_signals(code_of: Callable[[int], int]) -> None:
    """End this process in its main thread, ``finally`` blocks and all, on a stop signal."""
    for number in stop_signals():
        signal.signal(number, lambda number, _: sys.exit(code_of(number)))


def open_standard_streams() -> None:
    """Have descriptors 0 to 2 lead somewhere, here and in children.

    Launched without them (``<&-``) they would be given to sockets, which native code takes for
    its standard error, and which libuv refuses to close.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number


def give_up_output() -> None:
    """Let what is still to be printed go nowhere, so that Python's end says nothing of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ungrouped(error: BaseException) -> BaseException:
    """The error inside groups of one: a task group wraps whatever its block raises."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def complain(error: Exception, code: int) -> int:
    """Say what is wrong in one line and return ``code``."""
    print(f"Error: {error}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """argparse whose every error is one line that says where help is; flags are not abbreviated."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"Error: {message}\nTry '{self.prog} --help'.\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="paddler",
        description=TOP_DESCRIPTION,
        epilog=TOP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"paddler {__version__}")
    roles = parser.add_subparsers(dest="role", metavar="command", title="commands")
    add_balancer(roles)
    add_agent(roles)
    add_up(roles)
    add = partial(add_role, roles)
    add_operator_roles(add, checked, resolve_address)
    add_completions(add, build_parser)
    helper = roles.add_parser(
        "help", help="show this help, or a command's", add_help=False, prog="paddler"
    )
    helper.add_argument("topic", nargs="?", choices=[*roles.choices])
    helper.set_defaults(
        run=lambda arguments: show_help(parser, roles.choices, topic=arguments.topic)
    )
    return parser


Roles = argparse._SubParsersAction  # the type has no public name


def add_role(roles: "Roles[Parser]", name: str, summary: str, epilog: str) -> Parser:
    """One subcommand's parser."""
    return roles.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_balancer(roles: "Roles[Parser]") -> None:
    """``paddler balancer``."""
    role = add_role(
        roles, "balancer", "take requests and spread them over the agents", BALANCER_EPILOG
    )
    listeners = role.add_argument_group("listeners")
    listeners.add_argument(
        "--management-addr",
        metavar="ADDR",
        default=config.DEFAULT_MANAGEMENT_ADDR,
        help="agents and operators connect here (default: %(default)s)",
    )
    listeners.add_argument(
        "--inference-addr",
        metavar="ADDR",
        default=config.DEFAULT_INFERENCE_ADDR,
        help="applications connect here (default: %(default)s)",
    )
    listeners.add_argument(
        "--compat-openai-addr",
        metavar="ADDR",
        nargs="?",
        const=config.DEFAULT_OPENAI_ADDR,
        help="OpenAI-compatible API (off; without a value: %(const)s)",
    )
    listeners.add_argument(
        "--web-admin-panel-addr",
        metavar="ADDR",
        nargs="?",
        const=config.DEFAULT_PANEL_ADDR,
        help="web admin panel (off; without a value: %(const)s)",
    )
    listeners.add_argument(
        "--web-admin-panel-allowed-host",
        metavar="NAME",
        action="append",
        type=checked(config.parse_host_name),
        default=[],
        help="name by which browsers may open the panel, such as panel.example.com, beside IP "
        "addresses, local names and this machine's own; * for any; repeatable",
    )
    requests = role.add_argument_group("requests")
    requests.add_argument(
        "--max-buffered-requests",
        metavar="N",
        type=checked(parse_i32),
        default=30,
        help="requests that may wait while no slot is free; 0: none (default: %(default)s)",
    )
    requests.add_argument(
        "--buffered-request-timeout",
        metavar="TIME",
        type=checked(config.parse_duration_ms),
        default=10_000,
        help="longest wait for a slot (default: %(default)s ms)",
    )
    requests.add_argument(
        "--inference-item-timeout",
        metavar="TIME",
        type=checked(config.parse_duration_ms),
        default=30_000,
        help="longest wait for one token, the first included (default: %(default)s ms)",
    )
    requests.add_argument(
        "--max-body-bytes",
        metavar="N",
        type=checked(parse_body_bytes),
        default=64 * 1024 * 1024,
        help="largest inference request; images travel inside (default: %(default)s)",
    )
    requests.add_argument(
        "--prefix-affinity",
        choices=("on", "off"),
        default="on",
        help="whether a prompt goes, among equally busy agents, to one that has computed its "
        "beginning (default: %(default)s)",
    )
    requests.add_argument(
        "--inference-cors-allowed-host",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="browser origin that may call the inference and OpenAI services, such as "
        "https://chat.example.com; repeatable",
    )
    management = role.add_argument_group("management")
    management.add_argument(
        "--management-cors-allowed-host",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="browser origin that may call the management service; repeatable",
    )
    management.add_argument(
        "--state-database",
        metavar="URL",
        type=checked(config.parse_state_database),
        default="memory://",
        help="where the desired state is kept: memory:// or file:///path (default: %(default)s)",
    )
    management.add_argument(
        "--statsd-addr", metavar="ADDR", help="send gauges to this StatsD server by UDP (off)"
    )
    management.add_argument(
        "--statsd-prefix",
        metavar="TEXT",
        default="paddler_",
        help="opens every gauge's name (default: %(default)s)",
    )
    management.add_argument(
        "--statsd-reporting-interval",
        metavar="TIME",
        type=checked(parse_interval_ms),
        default=10_000,
        help="time between two reports (default: %(default)s ms)",
    )
    add_access(role, checked(parse_i32))
    add_drain_timeout(role)
    add_log_format(role)
    role.set_defaults(run=run_balancer)


def add_agent(roles: "Roles[Parser]") -> None:
    """``paddler agent``."""
    role = add_role(roles, "agent", "run the model for a balancer; opens no port", AGENT_EPILOG)
    role.add_argument(
        "--management-addr",
        metavar="ADDR",
        default=config.DEFAULT_MANAGEMENT_ADDR,
        help="the balancer's management address (default: %(default)s)",
    )
    add_slots(role)
    add_kv_unified(role)
    role.add_argument(
        "--name",
        metavar="TEXT",
        type=checked(config.parse_name),
        help="label shown to operators and in answers",
    )
    add_dialling(role, "management")
    add_drain_timeout(role)
    add_log_format(role)
    role.set_defaults(run=run_agent)


def add_up(roles: "Roles[Parser]") -> None:
    """``paddler up``."""
    role = add_role(roles, "up", "try Paddler: a balancer and an agent in this terminal", UP_EPILOG)
    role.add_argument(
        "--model",
        metavar="MODEL",
        required=True,
        help="a GGUF file to serve, hf:OWNER/REPO/FILE[@REVISION], or an http(s) address",
    )
    add_slots(role)
    for flag, default, what in (
        ("--management-addr", config.DEFAULT_MANAGEMENT_ADDR, "management service"),
        ("--inference-addr", config.DEFAULT_INFERENCE_ADDR, "inference service"),
        ("--compat-openai-addr", config.DEFAULT_OPENAI_ADDR, "OpenAI-compatible API"),
        ("--web-admin-panel-addr", config.DEFAULT_PANEL_ADDR, "web admin panel"),
    ):
        role.add_argument(
            flag, metavar="ADDR", default=default, help=f"{what} (default: %(default)s)"
        )
    role.add_argument(
        "--question",
        metavar="TEXT",
        default="Say hello in one sentence.",
        help="what to ask the model first (default: %(default)s)",
    )
    role.set_defaults(run=run_up)


def add_slots(role: Parser) -> None:
    """``--slots``, the same for each role that has it."""
    role.add_argument(
        "--slots",
        metavar="N",
        type=checked(config.parse_slots),
        default=4,
        help="requests at once (default: %(default)s)",
    )


def add_kv_unified(role: Parser) -> None:
    """``--kv-unified`` and ``--no-kv-unified``, by the names that llama.cpp has for them."""
    flag = role.add_argument("--kv-unified", action=argparse.BooleanOptionalAction, default=True)
    # Only now: before Python 3.13, argparse adds its own words for the default.
    flag.help = "whether all slots share one context, or each has its part of it (default: shared)"


def add_drain_timeout(role: Parser) -> None:
    """``--drain-timeout``, the same for each role that has it."""
    role.add_argument(
        "--drain-timeout",
        metavar="TIME",
        type=checked(config.parse_duration_ms),
        default=3_000,
        help="time for running answers to finish after a stop signal (default: %(default)s ms)",
    )


def add_log_format(role: Parser) -> None:
    """``--log-format``, the same for each role that has it."""
    role.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default="text",
        help="how logs are written to stderr (default: %(default)s)",
    )


def take_environment(
    parser: argparse.ArgumentParser, environ: Mapping[str, str], words: Sequence[str]
) -> None:
    """Let ``PADDLER_…`` variables stand in for flags, those of the subcommand in ``words``, too.

    An empty variable counts as absent. What a variable holds is checked like the flag, if it
    is a flag of this command: another's may have its own idea of the name.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, role in action.choices.items():
                if name in words:
                    take_environment(role, environ, words)
            continue
        flag = next((text for text in action.option_strings if text.startswith("--")), None)
        if flag is None or action.dest == argparse.SUPPRESS:
            continue
        name = f"PADDLER_{flag[2:].replace('-', '_').upper()}"
        if not (text := environ.get(name)):
            continue
        if isinstance(action, argparse._StoreTrueAction | argparse._HelpAction):
            continue  # what a run prints and does once is no setting of a machine
        if isinstance(action, argparse._VersionAction):
            continue
        try:
            action.default = _read_variable(action, text)
        except argparse.ArgumentTypeError as error:
            parser.error(f"{name}: {error}")
        action.required = False


def _read_variable(action: argparse.Action, text: str) -> object:
    """The value of a flag for the text of its variable; ``on`` or ``off`` for a switch."""
    if isinstance(action, argparse.BooleanOptionalAction):
        if text not in ("on", "off"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected on or off")
        return text == "on"
    parse = action.type if callable(action.type) else str
    if isinstance(action, argparse._AppendAction):
        return [parse(part) for part in text.split()]
    if action.choices is not None and text not in action.choices:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {' or '.join(action.choices)}")
    return parse(text)


def show_help(
    parser: argparse.ArgumentParser, choices: dict[str, Parser], *, topic: str | None
) -> int:
    """``paddler help [role]``."""
    (choices[topic] if topic else parser).print_help()
    return EXIT_OK


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``parse`` with its :class:`ConfigError` told by argparse, which names the flag."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def parse_i32(text: str) -> int:
    """A whole number that fits 32 bits; negative ones mean 0."""
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f"{text!r}: expected a whole number") from None
    if not -(2**31) <= value < 2**31:
        raise ConfigError(f"{text!r}: expected a number below 2147483648")
    return max(value, 0)


def parse_body_bytes(text: str) -> int:
    """A body limit: a small request fits, and the largest one fits in a message to an agent."""
    value = parse_i32(text)
    if not config.MIN_BODY_BYTES <= value <= config.MAX_BODY_BYTES:
        raise ConfigError(
            f"{text!r}: expected {config.MIN_BODY_BYTES} to {config.MAX_BODY_BYTES} bytes"
        )
    return value


def parse_interval_ms(text: str) -> int:
    """A time between reports, at least 1 ms."""
    value = config.parse_duration_ms(text)
    if value < 1:
        raise ConfigError(f"{text!r}: expected at least 1 ms")
    return value


def resolve_address(flag: str, text: str) -> Address:
    """``text`` as an address, its name resolved: the first IPv4 result, else the first IPv6 one."""
    try:
        host, port = config.split_address(text)
        results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{flag}: cannot resolve {text!r}: {reason}") from None
    best = min(results, key=lambda result: result[0] != socket.AF_INET)
    return Address(text=text, host=str(best[4][0]), port=port)


def resolve_optional(flag: str, text: str | None) -> Address | None:
    """:func:`resolve_address` of an address that may be absent."""
    return None if text is None else resolve_address(flag, text)


def balancer_config(arguments: argparse.Namespace) -> BalancerConfig:
    """What ``paddler balancer`` was told."""
    return BalancerConfig(
        management=resolve_address("--management-addr", arguments.management_addr),
        inference=resolve_address("--inference-addr", arguments.inference_addr),
        openai=resolve_optional("--compat-openai-addr", arguments.compat_openai_addr),
        panel=resolve_optional("--web-admin-panel-addr", arguments.web_admin_panel_addr),
        buffering=Buffering(
            max_requests=arguments.max_buffered_requests,
            timeout_ms=arguments.buffered_request_timeout,
            item_timeout_ms=arguments.inference_item_timeout,
        ),
        inference_origins=frozenset(arguments.inference_cors_allowed_host),
        management_origins=frozenset(arguments.management_cors_allowed_host),
        panel_hosts=frozenset(arguments.web_admin_panel_allowed_host),
        access=access_of(arguments),
        tls=listeners_tls(arguments),
        state_database=arguments.state_database,
        statsd=Statsd(
            address=resolve_optional("--statsd-addr", arguments.statsd_addr),
            prefix=arguments.statsd_prefix,
            interval_ms=arguments.statsd_reporting_interval,
        ),
        max_body_bytes=arguments.max_body_bytes,
        prefix_affinity=arguments.prefix_affinity == "on",
        drain_timeout_ms=arguments.drain_timeout,
    )


def agent_config(arguments: argparse.Namespace) -> AgentConfig:
    """What ``paddler agent`` was told."""
    return AgentConfig(
        management=resolve_address("--management-addr", arguments.management_addr),
        slots=arguments.slots,
        kv_unified=arguments.kv_unified,
        name=arguments.name,
        dialling=dialling_of(arguments, "management"),
        drain_timeout_ms=arguments.drain_timeout,
    )


def model_source(text: str) -> ModelSource:
    """A model as ``paddler up`` is told of it: a file of this machine, unless it says otherwise."""
    if text.startswith("hf:") or "://" in text:
        try:
            return msgspec.convert(parse_model(text), ModelSource)
        except ConfigError as error:
            raise ConfigError(f"--model: {error}") from None
    return ModelSource(local_to_agent=os.path.abspath(os.path.expanduser(text)))


def require_agent_extra() -> None:
    """:class:`StartError` that names the extra, if what an agent needs is not installed."""
    from importlib.util import find_spec

    to_run = ("llama_cpp", "numpy", "jinja2", "jsonschema", "PIL", "resvg_py", "rich")
    to_download = ("filelock", "httpx2", "huggingface_hub")
    missing = [name for name in to_run + to_download if find_spec(name) is None]
    if missing:
        raise StartError(
            f"an agent needs {', '.join(missing)}: pip install 'paddler[agent]' brings all it needs"
        )


def run_balancer(arguments: argparse.Namespace) -> int:
    """``paddler balancer`` until it is stopped."""
    collect_later()
    from paddler.balancer.app import run

    set_up_logging(os.environ, log_format=arguments.log_format)
    return run(balancer_config(arguments))


def run_agent(arguments: argparse.Namespace) -> int:
    """``paddler agent`` until it is stopped."""
    require_agent_extra()
    from paddler.agent.app import run

    set_up_logging(os.environ, log_format=arguments.log_format)
    # Its worker writes to the same place.
    os.environ[LOG_FORMAT_VARIABLE] = arguments.log_format
    return run(agent_config(arguments))


def run_up(arguments: argparse.Namespace) -> int:
    """``paddler up`` until it is stopped."""
    require_agent_extra()
    from paddler.up import run

    set_up_logging(os.environ, default="warn")
    balancer_flags = [
        *("--management-addr", arguments.management_addr),
        *("--inference-addr", arguments.inference_addr),
        *("--compat-openai-addr", arguments.compat_openai_addr),
        *("--web-admin-panel-addr", arguments.web_admin_panel_addr),
    ]
    agent_flags = [
        *("--management-addr", arguments.management_addr),
        *("--slots", str(arguments.slots)),
        *("--name", "local"),
    ]
    parser = build_parser()
    return run(
        balancer_config(parser.parse_args(["balancer", *balancer_flags])),
        agent_config(parser.parse_args(["agent", *agent_flags])),
        model=model_source(arguments.model),
        question=arguments.question,
    )
