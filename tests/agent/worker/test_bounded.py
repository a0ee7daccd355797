import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.worker.bounded import BoundedProcess, Compile
from paddler.agent.worker.chat_template import (
    ChatTemplate,
    TemplateCompileError,
    TemplateRenderError,
)
from paddler.messages.chat import Function, Tool
from paddler.messages.tools import ParsedToolCall, ToolCallArguments
from tests.e2e.fleet import wait_until

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "nl_token": "\n"}
HELLO = [{"role": "user", "content": "Hello"}]

# Each branch is somebody's idea of keeping a server busy.
HOSTILE = """
{%- set order = messages[0].content -%}
{%- if order == "loop" -%}
  {%- for i in range(99999) -%}{%- for j in range(99999) -%}{%- endfor -%}{%- endfor -%}
{%- elif order == "double" -%}
  {%- set ns = namespace(text="x") -%}
  {%- for i in range(60) -%}{%- set ns.text = ns.text ~ ns.text -%}{%- endfor -%}
{%- elif order == "multiply" -%}
  {{ "a" * size }}
{%- elif order == "recurse" -%}
  {%- macro again() -%}{{ again() }}{%- endmacro -%}{{ again() }}
{%- else -%}
  {{ bos_token }}{{ order }}
{%- endif -%}
"""


def render(process: BoundedProcess, order: str, **variables: Any) -> str:
    return process.render(
        [{"role": "user", "content": order}],
        add_generation_prompt=True,
        enable_thinking=False,
        variables=variables,
    )


@pytest.fixture(scope="module")
def hostile() -> Iterator[BoundedProcess]:
    with BoundedProcess(HOSTILE, SPECIAL, deadline_s=0.3) as process:
        yield process


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("loop", r"the template took more than 0\.3 s"),
        ("double", "MemoryError|took more than"),
        ("multiply", "MemoryError"),
        ("recurse", "RecursionError"),
    ],
)
def test_hostile_template_costs_its_request_an_error_and_nothing_else(
    hostile: BoundedProcess, order: str, error: str
) -> None:
    with pytest.raises(TemplateRenderError, match=error):
        render(hostile, order, size=10**11)
    assert render(hostile, "Hello") == "<s>Hello"


def test_child_renders_what_the_template_renders_here() -> None:
    source = "{{ messages | tojson }}{{ tools }}{{ thinking }}{{ é }}"
    arguments: dict[str, Any] = {
        "add_generation_prompt": True,
        "enable_thinking": True,
        "tools": None,
        "variables": {"é": "<&>"},
    }
    with BoundedProcess(source, SPECIAL) as process:
        expected = ChatTemplate(source, **SPECIAL).render(HELLO, **arguments)
        assert process.render(HELLO, **arguments) == expected


@pytest.mark.parametrize(
    ("source", "error"),
    [("{% fi %}", "unknown tag"), ("{{ '%0999999999d' % 1 }}", "took more than|MemoryError|{{")],
)
def test_template_that_does_not_compile_is_refused_at_once(source: str, error: str) -> None:
    with pytest.raises(TemplateCompileError, match=error):
        BoundedProcess(source, SPECIAL, deadline_s=0.3)


def test_child_that_was_killed_is_replaced(hostile: BoundedProcess) -> None:
    assert render(hostile, "one") == "<s>one"
    child = hostile._child
    assert child is not None
    child.kill()
    child.wait()
    assert render(hostile, "two") == "<s>two"


# The second does not fit into a pipe: it is waited for while it is written.
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_child_that_hangs_is_ended_and_replaced(size: int) -> None:
    with BoundedProcess(HOSTILE, SPECIAL, patience_s=5.0) as process:
        child = process._child
        assert child is not None
        process._patience_s = 0.05  # the start was not to be hurried
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(TemplateRenderError, match=r"the template had no end after 0\.05 s"):
            render(process, "x" * size)
        process._patience_s = 5.0
        assert render(process, "two") == "<s>two"


PARENT = """
from paddler.agent.worker.bounded import BoundedProcess, Compile
special = {"bos_token": "", "eos_token": "", "nl_token": ""}
process = BoundedProcess("{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}"
    "{% endfor %}", special, deadline_s=60.0)
print(process._child.pid, flush=True)
process.render([], add_generation_prompt=True, enable_thinking=False)
"""


def user_time(pid: int) -> int:
    """Clock ticks that a process has computed for."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child ends at its deadline")
def test_child_at_work_ends_with_its_parent_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        at_rest = user_time(child)
        wait_until(lambda: user_time(child) > at_rest + 5, "the child is at work")
        parent.kill()
        # The child has the other end of this pipe, too: it ends when both are gone.
        assert parent.communicate(timeout=20.0)[1] == b""


def test_child_whose_answer_nobody_takes_ends_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "paddler.agent.worker.bounded", "1.0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.close()
        question = msgspec.json.encode(Compile("hello", SPECIAL))
        child.stdin.write(len(question).to_bytes(4, "little") + question)
        assert child.communicate(timeout=20.0)[1] == b""


def test_request_that_is_nested_too_deeply_is_refused(hostile: BoundedProcess) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateRenderError, match="nested too deeply"):
        render(hostile, "one", deep=deep)
    assert render(hostile, "two") == "<s>two"


def test_close_may_be_repeated() -> None:
    process = BoundedProcess(None)
    process.close()
    process.close()


def tool(name: str, **properties: Any) -> Tool:
    return Tool(Function(name, "", {"type": "object", "properties": properties}))


def call(name: str, arguments: Any) -> ParsedToolCall:
    return ParsedToolCall("call_0", name, ToolCallArguments(valid_json=arguments))


def test_tool_calls_are_checked_by_the_child() -> None:
    tools = [tool("count", n={"type": "integer"})]
    with BoundedProcess(None) as process:
        assert process.invalid_schema(tools) is None
        bad = process.invalid_schema([tool("bad", n={"type": 123})])
        assert bad is not None
        assert bad.startswith('tool "bad" parameters are not a valid JSON Schema')
        assert process.failed_checks([call("count", {"n": 1})], tools) == []
        assert process.failed_checks([call("count", {"n": "1"})], tools) == [
            "arguments for tool \"count\" failed schema check: '1' is not of type 'integer'"
        ]


def test_pattern_that_backtracks_costs_its_call_an_error() -> None:
    tools = [tool("slow", s={"type": "string", "pattern": "^(a+)+$"})]
    with BoundedProcess(None, deadline_s=0.3) as process:
        failed = process.failed_checks([call("slow", {"s": "a" * 40 + "b"})], tools)
        assert len(failed) == 1
        assert 'tool "slow" failed schema check: it took more than 0.3 s' in failed[0]
        assert process.failed_checks([call("slow", {"s": "aaa"})], tools) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs seccomp")
def test_the_child_of_a_process_that_is_not_confined_is() -> None:
    with BoundedProcess("{{ 1 }}", SPECIAL) as process:
        child = process._child
        assert child is not None
        status = Path(f"/proc/{child.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
