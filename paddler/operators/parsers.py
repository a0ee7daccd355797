"""The command line of the operators' commands; ``cli`` adds them to its own."""

import argparse
from collections.abc import Callable
from typing import Any, Final

from paddler import config
from paddler.config import Address
from paddler.dialling import add_dialling, dialling_of
from paddler.errors import ConfigError
from paddler.operators.model_names import FORMS, parse_model

MANAGEMENT: Final = "--management-addr"
INFERENCE: Final = "--inference-addr"

AddRole = Callable[[str, str, str], argparse.ArgumentParser]
Checked = Callable[[Callable[[str], Any]], Callable[[str], Any]]
Resolve = Callable[[str, str], Address]

STATUS_EPILOG: Final = """\
examples:
  paddler status
  paddler status --watch
  paddler status --json | jq '.agents[].issues'"""

MODEL_EPILOG: Final = f"""\
a model is {FORMS}

examples:
  paddler model show
  paddler model set hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf --wait
  paddler model set /models/model.gguf --set context_size=4096 --set temperature=0.2
  paddler model set none"""

AGENTS_EPILOG: Final = """\
NAME is an agent's --name, which several may share, or its id.

examples:
  paddler agents drain gpu-1       no new requests for it; those that run go on
  paddler agents resume gpu-1
  paddler agents disconnect gpu-1  close its connection; it dials again by itself"""

EVENTS_EPILOG: Final = """\
examples:
  paddler events
  paddler events --follow
  paddler events --json"""

CHAT_EPILOG: Final = """\
examples:
  paddler chat "What is the capital of France?"
  paddler chat                       a conversation, until Ctrl-D
  paddler chat --system "Be brief." < question.txt"""

COMPLETIONS_EPILOG: Final = """\
examples:
  paddler completions bash > /etc/bash_completion.d/paddler
  paddler completions zsh > "${fpath[1]}/_paddler\""""


def add_operator_roles(add_role: AddRole, checked: Checked, resolve: Resolve) -> None:
    """Add every command that talks to a running balancer."""
    _add_status(add_role, resolve)
    _add_model(add_role, checked, resolve)
    _add_agents(add_role, resolve)
    _add_events(add_role, resolve)
    _add_chat(add_role, checked, resolve)


def add_completions(add_role: AddRole, build: Callable[[], argparse.ArgumentParser]) -> None:
    """``paddler completions``. ``build`` makes the whole parser."""
    role = add_role("completions", "print a shell's completion script", COMPLETIONS_EPILOG)
    role.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="for which shell")

    def run(arguments: argparse.Namespace) -> int:
        import shtab

        print(shtab.complete(build(), shell=arguments.shell))
        return 0

    role.set_defaults(run=run)


def _add_status(add_role: AddRole, resolve: Resolve) -> None:
    role = add_role("status", "show agents, slots, downloads, issues and the buffer", STATUS_EPILOG)
    _add_management(role)
    role.add_argument("--json", action="store_true", help="as JSON, one document a line")
    role.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")

    def run(arguments: argparse.Namespace) -> int:
        from paddler.operators.status import show_status

        management = _management(arguments, resolve)
        return show_status(management, as_json=arguments.json, watch=arguments.watch)

    role.set_defaults(run=run)


def _add_model(add_role: AddRole, checked: Checked, resolve: Resolve) -> None:
    role = add_role("model", "show or change the model that the fleet runs", MODEL_EPILOG)
    actions = role.add_subparsers(dest="action", metavar="action", required=True)
    show = actions.add_parser("show", help="print the desired state")
    _add_management(show)
    show.add_argument("--json", action="store_true", help="the whole desired state as JSON")

    def run_show(arguments: argparse.Namespace) -> int:
        from paddler.operators.model import show_model

        return show_model(_management(arguments, resolve), as_json=arguments.json)

    show.set_defaults(run=run_show)
    change = actions.add_parser("set", help="ask for a model, all else as it is")
    change.add_argument("model", metavar="MODEL", type=checked(parse_model), help=FORMS)
    _add_management(change)
    change.add_argument(
        "--projection",
        metavar="MODEL",
        type=checked(parse_model),
        help="the multimodal projection, named like a model (default: as it is)",
    )
    change.add_argument(
        "--set",
        metavar="NAME=VALUE",
        dest="parameters",
        type=checked(_parse_parameter),
        action="append",
        default=[],
        help="an inference parameter, such as context_size=4096; repeatable",
    )
    change.add_argument(
        "--wait", action="store_true", help="until every agent serves, or one says why it cannot"
    )

    def run_set(arguments: argparse.Namespace) -> int:
        from paddler.operators.model import set_model

        return set_model(
            _management(arguments, resolve),
            arguments.model,
            projection=arguments.projection,
            parameters=arguments.parameters,
            waits=arguments.wait,
        )

    change.set_defaults(run=run_set)


def _add_agents(add_role: AddRole, resolve: Resolve) -> None:
    role = add_role("agents", "take agents out and in again", AGENTS_EPILOG)
    role.add_argument("action", choices=["drain", "resume", "disconnect"], help="what to do")
    role.add_argument("name", metavar="NAME", help="which agents")
    _add_management(role)

    def run(arguments: argparse.Namespace) -> int:
        from paddler.operators.control import control_agents

        return control_agents(_management(arguments, resolve), arguments.action, arguments.name)

    role.set_defaults(run=run)


def _add_events(add_role: AddRole, resolve: Resolve) -> None:
    role = add_role("events", "tell what happened to the fleet", EVENTS_EPILOG)
    _add_management(role)
    role.add_argument("--follow", "-f", action="store_true", help="and each new one, until Ctrl-C")
    role.add_argument("--json", action="store_true", help="as JSON, one event a line")

    def run(arguments: argparse.Namespace) -> int:
        from paddler.operators.control import show_events

        management = _management(arguments, resolve)
        return show_events(management, follow=arguments.follow, as_json=arguments.json)

    role.set_defaults(run=run)


def _add_chat(add_role: AddRole, checked: Checked, resolve: Resolve) -> None:
    role = add_role("chat", "ask the fleet, and print the answer as it comes", CHAT_EPILOG)
    role.add_argument(
        "question", nargs="?", help="what to ask (default: standard input, or a conversation)"
    )
    role.add_argument(
        INFERENCE,
        metavar="ADDR",
        default=config.DEFAULT_INFERENCE_ADDR,
        help="the balancer's inference service (default: %(default)s)",
    )
    add_dialling(role, "inference")
    role.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    role.add_argument(
        "--max-tokens",
        metavar="N",
        type=checked(_parse_tokens),
        default=1000,
        help="longest answer (default: %(default)s tokens)",
    )
    role.add_argument(
        "--think", action="store_true", help="let the model reason first; goes to standard error"
    )

    def run(arguments: argparse.Namespace) -> int:
        from paddler.operators.chat import chat
        from paddler.operators.client import Client

        return chat(
            Client(
                resolve(INFERENCE, arguments.inference_addr),
                flag=INFERENCE,
                dialling=dialling_of(arguments, "inference"),
            ),
            arguments.question,
            system=arguments.system,
            max_tokens=arguments.max_tokens,
            thinks=arguments.think,
        )

    role.set_defaults(run=run)


def _add_management(role: argparse.ArgumentParser) -> None:
    role.add_argument(
        MANAGEMENT,
        metavar="ADDR",
        default=config.DEFAULT_MANAGEMENT_ADDR,
        help="the balancer's management service (default: %(default)s)",
    )
    add_dialling(role, "management")


def _management(arguments: argparse.Namespace, resolve: Resolve) -> Any:
    from paddler.operators.client import Client

    return Client(
        resolve(MANAGEMENT, arguments.management_addr),
        flag=MANAGEMENT,
        dialling=dialling_of(arguments, "management"),
    )


def _parse_parameter(text: str) -> tuple[str, Any]:
    from paddler.operators.model import parse_parameter

    return parse_parameter(text)


def _parse_tokens(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise ConfigError(f"{text!r}: expected a number of tokens, at least 1")
    return int(text)
