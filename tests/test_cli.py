"""The command line: what each flag means, and how a run that cannot be ends."""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from paddler import __version__
from paddler.cli import (
    agent_config,
    balancer_config,
    build_parser,
    main,
    model_source,
    take_environment,
)
from paddler.config import (
    Access,
    Address,
    AgentConfig,
    BalancerConfig,
    Buffering,
    ClientTls,
    Dialling,
    ServerTls,
    Statsd,
)
from paddler.errors import ConfigError, StartError


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Undo what a role sets up for its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def balancer(*flags: str) -> BalancerConfig:
    return balancer_config(build_parser().parse_args(["balancer", *flags]))


def agent(*flags: str) -> AgentConfig:
    return agent_config(build_parser().parse_args(["agent", *flags]))


UNPROTECTED = Dialling(key_flag="--management-token-file")


def local(port: int) -> Address:
    return Address(text=f"127.0.0.1:{port}", host="127.0.0.1", port=port)


@pytest.mark.parametrize(
    ("flags", "dialling"),
    [
        (["--management-token-file", "t"], Dialling("--management-token-file", "t")),
        (["--management-tls"], ClientTls("--management-tls")),
        (["--management-tls-ca", "ca.pem"], ClientTls("--management-tls", "ca.pem")),
        (
            ["--management-tls-client-cert", "c.pem", "--management-tls-client-key", "c.key"],
            ClientTls("--management-tls", None, "c.pem", "c.key"),
        ),
    ],
)
def test_an_agent_says_what_it_shows_and_whom_it_trusts(
    flags: list[str], dialling: Dialling | ClientTls
) -> None:
    if isinstance(dialling, ClientTls):
        dialling = Dialling("--management-token-file", None, dialling)
    assert agent(*flags).dialling == dialling


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["--inference-tls-cert", "a"], "--inference-tls-key is missing"),
        (["--compat-openai-tls-key", "a"], "--compat-openai-tls-cert is missing"),
        (["--management-tls-client-ca", "a"], "needs --management-tls-cert"),
    ],
)
def test_half_a_pair_of_certificate_and_key_is_refused(flags: list[str], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        balancer(*flags)


# --- what flags mean ----------------------------------------------------------------------------


def test_a_balancer_needs_no_flag() -> None:
    assert balancer() == BalancerConfig(
        management=local(8060),
        inference=local(8061),
        openai=None,
        panel=None,
        buffering=Buffering(max_requests=30, timeout_ms=10_000, item_timeout_ms=30_000),
        inference_origins=frozenset(),
        management_origins=frozenset(),
        panel_hosts=frozenset(),
        access=Access(),
        tls={},
        state_database="memory://",
        statsd=Statsd(address=None, prefix="paddler_", interval_ms=10_000),
        max_body_bytes=64 * 1024 * 1024,
        prefix_affinity=True,
        drain_timeout_ms=3_000,
    )


def test_an_agent_needs_no_flag() -> None:
    assert agent() == AgentConfig(
        management=local(8060),
        slots=4,
        kv_unified=True,
        name=None,
        dialling=UNPROTECTED,
        drain_timeout_ms=3_000,
    )


def test_every_flag_of_a_balancer_is_heard() -> None:
    flags = {
        "--management-addr": "127.0.0.1:1",
        "--inference-addr": "127.0.0.1:2",
        "--compat-openai-addr": "127.0.0.1:3",
        "--web-admin-panel-addr": "127.0.0.1:4",
        "--max-buffered-requests": "5",
        "--buffered-request-timeout": "6s",
        "--inference-item-timeout": "7m",
        "--max-body-bytes": "8192",
        "--prefix-affinity": "off",
        "--inference-api-key-file": "keys",
        "--management-token-file": "tokens",
        "--max-requests-per-key": "7",
        "--max-buffered-requests-per-key": "3",
        "--inference-tls-cert": "cert.pem",
        "--inference-tls-key": "key.pem",
        "--management-tls-cert": "m.pem",
        "--management-tls-key": "m.key",
        "--management-tls-client-ca": "ca.pem",
        "--state-database": "file:///tmp/state.json",
        "--statsd-addr": "127.0.0.1:9",
        "--statsd-prefix": "fleet",
        "--statsd-reporting-interval": "10",
        "--drain-timeout": "1h",
    }
    origins = ["http://a", "http://b:1"]
    repeated = [
        word
        for origin in origins
        for word in (
            *("--inference-cors-allowed-host", origin),
            *("--management-cors-allowed-host", origin),
        )
    ]
    assert balancer(*(word for pair in flags.items() for word in pair), *repeated) == (
        BalancerConfig(
            management=local(1),
            inference=local(2),
            openai=local(3),
            panel=local(4),
            buffering=Buffering(max_requests=5, timeout_ms=6_000, item_timeout_ms=420_000),
            inference_origins=frozenset(origins),
            management_origins=frozenset(origins),
            panel_hosts=frozenset(),
            access=Access("keys", "tokens", requests_per_key=7, waiting_per_key=3),
            tls={
                "--inference-addr": ServerTls("--inference-tls", "cert.pem", "key.pem"),
                "--management-addr": ServerTls("--management-tls", "m.pem", "m.key", "ca.pem"),
            },
            state_database="file:///tmp/state.json",
            statsd=Statsd(address=local(9), prefix="fleet", interval_ms=10),
            max_body_bytes=8192,
            prefix_affinity=False,
            drain_timeout_ms=3_600_000,
        )
    )


def test_every_flag_of_an_agent_is_heard() -> None:
    flags = ("--management-addr", "127.0.0.1:1", "--slots", "8", "--name", "gpu-1")
    assert agent(*flags, "--no-kv-unified", "--drain-timeout", "500ms") == AgentConfig(
        management=local(1),
        slots=8,
        kv_unified=False,
        name="gpu-1",
        dialling=UNPROTECTED,
        drain_timeout_ms=500,
    )


def test_optional_listeners_have_a_usual_address() -> None:
    config = balancer("--compat-openai-addr", "--web-admin-panel-addr")
    assert (config.openai, config.panel) == (local(8070), local(8062))


@pytest.mark.parametrize("count", ["0", "-1", "-2147483648"])
def test_a_balancer_may_let_nobody_wait(count: str) -> None:
    assert balancer("--max-buffered-requests", count).buffering.max_requests == 0


def test_a_v6_address_is_taken_in_brackets() -> None:
    assert balancer("--management-addr", "[::1]:8060").management == Address(
        text="[::1]:8060", host="::1", port=8060
    )


def test_a_name_is_resolved_and_its_text_kept() -> None:
    assert balancer("--management-addr", "localhost:8060").management == Address(
        text="localhost:8060", host="127.0.0.1", port=8060
    )


# --- how a run ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--unknown"], "--unknown"),
        (["server"], "server"),
        (["balancer", "--management"], "--management"),  # no abbreviations
        (["model", "set", "/m", "--proj", "/p"], "--proj"),
        (["agent", "--name", "a\nb"], "expected a name of printable characters"),
        (["agent", "--name", " "], "expected a name of printable characters"),
        (["agent", "--name", "a" * 201], "at most 200"),
        (["balancer", "extra"], "extra"),
        (["balancer", "--management-addr"], "--management-addr"),
        (["balancer", "--management-addr", "8060"], "--management-addr: '8060'"),
        (["balancer", "--compat-openai-addr", "a:b"], "--compat-openai-addr: 'a:b'"),
        (["balancer", "--inference-addr", "no.such.host.invalid:1"], "cannot resolve"),
        (["balancer", "--inference-addr", "a..b:1"], "cannot resolve"),
        (["balancer", "--max-buffered-requests", "many"], "--max-buffered-requests"),
        (["balancer", "--max-buffered-requests", "2147483648"], "--max-buffered-requests"),
        (["balancer", "--buffered-request-timeout", "soon"], "--buffered-request-timeout"),
        (["balancer", "--max-body-bytes", "1000"], "expected 1024 to"),
        (["balancer", "--state-database", "file://state.json"], "must be absolute"),
        (["balancer", "--statsd-reporting-interval", "0"], "at least 1 ms"),
        (["agent", "--slots", "0"], "--slots"),
        (["agent", "--slots", "many"], "--slots"),
        (["up"], "--model"),
        (["help", "server"], "server"),
    ],
)
def test_bad_usage_ends_with_2_and_one_line_that_names_it(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: int | str | None = main(arguments)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    first, *rest = err.splitlines()
    assert first.startswith("Error: ")
    assert names in first
    assert all(line.startswith("Try 'paddler") for line in rest)


def test_without_a_role_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--version"], f"paddler {__version__}"),
        (
            ["--help"],
            "exit codes:  0 done, or stopped as asked   1 could not start or go on   2 bad usage",
        ),
        (
            ["help"],
            "             128 + n: ended by signal n before it was done, as 130 by Ctrl-C",
        ),
        (["help"], "commands:"),
        (["help", "balancer"], "listeners:"),
        (["balancer", "--help"], "listeners:"),
        (["help", "agent"], "  --slots N             requests at once (default: 4)"),
        (
            ["up", "-h"],
            "  --model MODEL         a GGUF file to serve, hf:OWNER/REPO/FILE[@REVISION],",
        ),
    ],
)
def test_help_and_version_are_answers(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: int | str | None = main(arguments)
    except SystemExit as end:
        code = end.code
    assert not code
    assert line in capsys.readouterr().out.splitlines()


def flags_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every flag of every command, with the command's name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for role in action.choices.values():
                yield from flags_of(role)
        elif not isinstance(action, argparse._HelpAction | argparse._VersionAction):
            yield parser.prog, action


def test_every_flag_says_what_it_is_for_what_it_takes_and_what_it_is_otherwise() -> None:
    for command, action in flags_of(build_parser()):
        if command == "paddler":  # its own help
            continue
        name = f"{command} {action.dest}"
        assert action.help, name
        if action.nargs == 0 or not action.option_strings:
            continue
        assert action.metavar or action.choices, name
        if action.default not in (None, []) and not action.required:
            assert "default: " in action.help, name
        if action.metavar == "TIME":
            assert action.help.endswith("(default: %(default)s ms)"), name


def run_python(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a Python that logs errors only."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PADDLER_LOG": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_taken_port_ends_with_1_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = run_python(
            "-m", "paddler", "balancer", "--management-addr", f"127.0.0.1:{port}"
        )
    assert code == 1
    assert err == (
        f"Error: --management-addr: port {port} on 127.0.0.1 is already in use; "
        "choose another with --management-addr HOST:PORT\n"
    )


def test_a_broken_state_file_ends_with_1_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{")
    code, err = run_python("-m", "paddler", "balancer", "--state-database", f"file://{path}")
    assert code == 1
    assert err.startswith(f"Error: --state-database: {path} does not hold a state")
    assert len(err.splitlines()) == 1


# An entry of None in sys.modules is a module that is not installed.
MAIN_WITHOUT = """
import sys
sys.modules |= dict.fromkeys({missing!r})
from paddler.cli import main
raise SystemExit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        (["llama_cpp"], "llama_cpp"),
        (["llama_cpp", "jinja2"], "llama_cpp, jinja2"),
    ],
)
@pytest.mark.parametrize("role", [["agent"], ["up", "--model", "/a.gguf"]])
def test_an_agent_without_its_extra_ends_with_1_and_names_it(
    role: list[str], missing: list[str], names: str
) -> None:
    script = MAIN_WITHOUT.format(missing=missing, arguments=role)
    assert run_python("-c", script) == (
        1,
        f"Error: an agent needs {names}: pip install 'paddler[agent]' brings all it needs\n",
    )


def test_help_needs_no_model_library() -> None:
    script = MAIN_WITHOUT.format(
        missing=["llama_cpp", "jinja2", "rich", "uvloop"], arguments=["help", "agent"]
    )
    assert run_python("-c", script) == (0, "")


def test_up_without_its_model_file_ends_with_1(tmp_path: Path) -> None:
    model = tmp_path / "none.gguf"
    code, err = run_python("-m", "paddler", "up", "--model", str(model))
    assert (code, err) == (1, f"Error: --model: {model} does not exist\n")


def raising(error: BaseException) -> Callable[[object], int]:
    def run(arguments: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), 2),
        (StartError("no"), 1),
        (ExceptionGroup("tasks", [ExceptionGroup("tasks", [StartError("no")])]), 1),
    ],
)
def test_what_a_role_cannot_do_is_one_line(
    error: Exception,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("paddler.cli.run_balancer", raising(error))
    assert main(["balancer"]) == code
    assert capsys.readouterr().err == "Error: no\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_role_listens_is_a_stop(number: signal.Signals) -> None:
    script = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "from paddler import cli; sys.argv = ['paddler', 'balancer'];"
        f"cli.run_balancer = lambda _: os.kill(os.getpid(), {int(number)}) or 7;"
        "sys.exit(cli.main())"
    )
    assert run_python("-c", script) == (0, "")


@pytest.mark.parametrize(
    "bug", [ValueError("bug"), ExceptionGroup("tasks", [StartError("a"), StartError("b")])]
)
def test_a_bug_is_not_hidden(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddler.cli.run_balancer", raising(bug))
    with pytest.raises(type(bug)):
        main(["balancer"])


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("/m.gguf", {"LocalToAgent": "/m.gguf"}),
        ("m.gguf", {"LocalToAgent": os.path.abspath("m.gguf")}),
        ("https://x/m.gguf", {"Url": {"url": "https://x/m.gguf"}}),
        (
            "hf:o/r/m.gguf",
            {"HuggingFace": {"filename": "m.gguf", "repo_id": "o/r", "revision": "main"}},
        ),
    ],
)
def test_up_takes_a_model_from_anywhere(text: str, reference: object) -> None:
    assert msgspec.to_builtins(model_source(text)) == reference


def test_up_names_a_model_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"^--model: 'hf:model': expected"):
        model_source("hf:model")


# --- the environment ----------------------------------------------------------------------------


def from_environment(role: str, **environ: str) -> argparse.Namespace:
    parser = build_parser()
    take_environment(parser, environ, [role])
    return parser.parse_args([role])


def test_a_variable_stands_in_for_a_flag() -> None:
    arguments = from_environment(
        "balancer",
        PADDLER_INFERENCE_ADDR="127.0.0.1:7",
        PADDLER_COMPAT_OPENAI_ADDR="127.0.0.1:8",
        PADDLER_MAX_BUFFERED_REQUESTS="9",
        PADDLER_BUFFERED_REQUEST_TIMEOUT="3s",
        PADDLER_INFERENCE_CORS_ALLOWED_HOST="http://a http://b",
        PADDLER_LOG_FORMAT="json",
        PADDLER_STATSD_PREFIX="",
    )
    config = balancer_config(arguments)
    assert (config.inference, config.openai) == (local(7), local(8))
    assert (config.buffering.max_requests, config.buffering.timeout_ms) == (9, 3000)
    assert config.inference_origins == {"http://a", "http://b"}
    assert arguments.log_format == "json"
    assert config.statsd.prefix == "paddler_"


@pytest.mark.parametrize(("text", "is_on"), [("on", True), ("off", False), ("", True)])
def test_a_variable_turns_a_switch_on_or_off(text: str, is_on: bool) -> None:
    assert from_environment("agent", PADDLER_KV_UNIFIED=text).kv_unified is is_on


def test_a_flag_wins_over_its_variable() -> None:
    parser = build_parser()
    words = ["agent", "--slots", "6"]
    take_environment(parser, {"PADDLER_SLOTS": "5", "PADDLER_NAME": "a"}, words)
    arguments = parser.parse_args(words)
    assert (arguments.slots, arguments.name) == (6, "a")


def test_a_variable_may_stand_in_for_a_flag_that_is_needed() -> None:
    assert from_environment("up", PADDLER_MODEL="/m").model == "/m"


@pytest.mark.parametrize(
    ("name", "text"),
    [("PADDLER_SLOTS", "none"), ("PADDLER_LOG_FORMAT", "xml"), ("PADDLER_KV_UNIFIED", "no")],
)
def test_a_bad_variable_is_named(capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        take_environment(build_parser(), {name: text}, ["agent"])
    assert f"Error: {name}: {text!r}: expected" in capsys.readouterr().err


def test_another_commands_variable_is_no_concern() -> None:
    arguments = from_environment("balancer", PADDLER_SLOTS="none", PADDLER_INFERENCE_ADDR="[::1]:7")
    assert arguments.inference_addr == "[::1]:7"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_knows_the_commands(
    capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    assert main(["completions", shell]) == 0
    script = capsys.readouterr().out
    assert "balancer" in script
    assert "drain" in script
