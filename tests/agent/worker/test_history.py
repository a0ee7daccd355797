import re
from typing import Any

import pytest

from paddler.agent.worker.history import HistoryForm
from paddler.agent.worker.images import IMAGE_MARKER

Messages = list[dict[str, Any]]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def call(call_id: str, name: str = "f", arguments: Any = '{"a": 1}') -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def calling(*calls: dict[str, Any], content: Any = None, **more: Any) -> dict[str, Any]:
    return said("assistant", content, tool_calls=list(calls), **more)


def result(call_id: str, content: str = "1") -> dict[str, Any]:
    return said("tool", content, tool_call_id=call_id)


def test_history_is_shaped_as_the_template_wants_it() -> None:
    given = [calling(call("call_0")), result("call_0")]
    called, answered = HistoryForm().messages(given)
    assert called["content"] == ""
    assert called["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert answered == result("call_0") | {"name": "f"}
    assert given == [calling(call("call_0")), result("call_0")]  # The caller's are left alone.

    form = HistoryForm(arguments_are_text=True, empty_content=None, ids_are_short=True)
    called, answered = form.messages(given)
    assert called["content"] is None
    assert called["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert re.fullmatch("[a-z0-9]{9}", called["tool_calls"][0]["id"])
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"]


@pytest.mark.parametrize(
    ("form", "given", "shaped"),
    [
        (HistoryForm(), call("x", arguments="{broken"), call("x", arguments="{broken")),
        (HistoryForm(), call("x", arguments={"a": 1}), call("x", arguments={"a": 1})),
        (HistoryForm(arguments_are_text=True), call("x", arguments={"a": 1}),
         call("x", arguments='{"a":1}')),
        (HistoryForm(ids_are_short=True), call("a1b2c3d4e"), call("a1b2c3d4e", arguments={"a": 1})),
        (HistoryForm(ids_are_named=True), call("x"), call("functions.f:0", arguments={"a": 1})),
        (HistoryForm(ids_are_named=True), call("functions.f:7"),
         call("functions.f:7", arguments={"a": 1})),
        (HistoryForm(), {"function": {"name": "f"}}, {"function": {"name": "f", "arguments": {}}}),
    ],
)  # fmt: skip
def test_call_has_the_arguments_and_the_id_that_are_wanted(
    form: HistoryForm, given: dict[str, Any], shaped: dict[str, Any]
) -> None:
    [message] = form.messages([calling(given)])
    assert message["tool_calls"] == [shaped]


def test_ids_tell_the_count_of_the_conversation() -> None:
    form = HistoryForm(ids_are_named=True)
    shaped = form.messages([calling(call("a"), call("b", "g")), result("b"), result("a")])
    assert [made["id"] for made in shaped[0]["tool_calls"]] == ["functions.f:0", "functions.g:1"]
    assert [message["tool_call_id"] for message in shaped[1:]] == ["functions.g:1", "functions.f:0"]


def test_result_of_an_unknown_call_keeps_what_it_has() -> None:
    stray = result("lost") | {"name": "h"}
    assert HistoryForm(ids_are_named=True).messages([stray]) == [stray]


@pytest.mark.parametrize(
    ("form", "given", "shaped"),
    [
        (HistoryForm(), said("user", None), said("user", "")),
        (HistoryForm(), said("user", "a", name=None), said("user", "a")),
        (HistoryForm(), said("user", parts("a")), said("user", parts("a"))),
        (HistoryForm(), {"role": "user"}, {"role": "user"}),
        (HistoryForm(text_roles=frozenset({"user"})), said("user", parts("a", "b")),
         said("user", "a\nb")),
        (HistoryForm(text_roles=frozenset({"user"})), said("user", []), said("user", "")),
        (HistoryForm(text_roles=frozenset({"user"})), said("critic", parts("a", "b")),
         said("critic", "a\nb")),
        (HistoryForm(text_roles=frozenset({"user"})), said("system", parts("a")),
         said("system", parts("a"))),
        (HistoryForm(text_roles=frozenset({"user"})),
         said("user", parts("See", IMAGE_MARKER, "and", "that")),
         said("user", f"See{IMAGE_MARKER}and\nthat")),
        (HistoryForm(parts_roles=frozenset({"user"})), said("user", "a"),
         said("user", parts("a"))),
        (HistoryForm(), said("developer", "a"), said("system", "a")),
        (HistoryForm(knows_developer=True), said("developer", "a"), said("developer", "a")),
    ],
)  # fmt: skip
def test_message_is_shaped_as_its_role_wants_it(
    form: HistoryForm, given: dict[str, Any], shaped: dict[str, Any]
) -> None:
    assert form.messages([given]) == [shaped]


NO_SYSTEM = HistoryForm(merged_roles=frozenset({"system", "tool"}))


@pytest.mark.parametrize(
    ("given", "shaped"),
    [
        ([said("system", "S"), said("user", "a")], [said("user", "S\n\na")]),
        ([said("developer", "S"), said("system", "T"), said("user", "a")],
         [said("user", "S\n\nT\n\na")]),
        ([said("system", "S")], [said("user", "S")]),
        ([said("system", "S"), said("assistant", "b"), said("user", "a")],
         [said("user", "S"), said("assistant", "b"), said("user", "a")]),
        ([said("user", "a"), said("system", "S")], [said("user", "a"), said("user", "S")]),
        ([said("system", ""), said("user", "a")], [said("user", "a")]),
        ([said("system", parts("S")), said("user", "a")],
         [said("user", parts("S", "\n\n", "a"))]),
        ([said("system", "S"), said("user", parts("a", "b"))],
         [said("user", parts("S", "\n\n", "a", "b"))]),
        ([said("user", "a"), said("assistant", "b"), result("x"), result("y"), said("user", "c")],
         [said("user", "a"), said("assistant", "b"), said("user", "1\n\n1\n\nc")]),
    ],
)  # fmt: skip
def test_user_says_what_a_refused_role_would(given: Messages, shaped: Messages) -> None:
    assert NO_SYSTEM.messages(given) == shaped


def test_refused_role_speaks_in_the_users_form() -> None:
    form = NO_SYSTEM._replace(text_roles=frozenset({"user"}))
    assert form.messages([said("system", parts("S", "T")), said("user", parts("a"))]) == [
        said("user", "S\nT\n\na")
    ]


def test_thought_has_every_name_that_templates_know() -> None:
    for name in ("reasoning_content", "thinking", "reasoning"):
        [shaped] = HistoryForm().messages([said("assistant", "a", **{name: "hm"})])
        assert shaped == said(
            "assistant", "a", reasoning_content="hm", thinking="hm", reasoning="hm"
        )
    [shaped] = HistoryForm().messages([said("assistant", "a", reasoning_content="")])
    assert "thinking" not in shaped


@pytest.mark.parametrize(
    ("content", "shaped"),
    [("a", parts("a")), (parts("a", "b"), parts("a", "b")), (None, [])],
)
def test_thought_can_be_a_part(content: Any, shaped: Any) -> None:
    form = HistoryForm(thoughts_are_parts=True)
    [message] = form.messages([said("assistant", content, reasoning_content="hm")])
    assert message["content"] == [{"type": "thinking", "thinking": "hm"}, *shaped]


def test_thought_can_take_the_place_of_content() -> None:
    form = HistoryForm(thoughts_replace_content=True)
    plain, called = form.messages(
        [
            said("assistant", "a", reasoning_content="hm"),
            calling(call("x"), content="a", reasoning_content="hm"),
        ]
    )
    assert plain["content"] == "a"
    assert called["content"] == ""


def test_calls_can_be_content() -> None:
    form = HistoryForm(calls_as_text=("<c>", "</c>"))
    [shaped] = form.messages([calling(call("x"), call("y", "g", "{}"), content="See:")])
    assert shaped == said(
        "assistant",
        'See:\n<c>{"name":"f","arguments":{"a":1}}</c>\n<c>{"name":"g","arguments":{}}</c>',
    )
    form = form._replace(parts_roles=frozenset({"assistant"}))
    [shaped] = form.messages([calling(call("y", "g", "{}"))])
    assert shaped == said("assistant", parts('<c>{"name":"g","arguments":{}}</c>'))


def test_calls_can_be_made_one_by_one() -> None:
    given = [
        said("user", "a"),
        calling(call("x"), call("y"), content="See:", reasoning_content="hm"),
        result("y", "2"),
        result("lost", "3"),
        result("x", "1"),
        calling(call("z")),
    ]
    shaped = HistoryForm(single_calls=True).messages(given)
    assert [
        (
            message["role"],
            message["content"],
            [made["id"] for made in message.get("tool_calls", ())],
        )
        for message in shaped
    ] == [
        ("user", "a", []),
        ("assistant", "See:", ["x"]),
        ("tool", "1", []),
        ("assistant", "", ["y"]),
        ("tool", "2", []),
        ("tool", "3", []),
        ("assistant", "", ["z"]),
    ]
    assert [message.get("thinking") for message in shaped if message["role"] == "assistant"] == [
        "hm", None, None
    ]  # fmt: skip


TOOL = {"type": "function", "function": {"name": "f", "description": "d"}}


@pytest.mark.parametrize(
    ("given", "shaped"),
    [
        ([said("system", "S"), said("user", "a")], said("system", "S")),
        ([said("user", "a")], said("system", "")),
        ([], said("system", "")),
    ],
)
def test_tools_can_be_in_the_system_message(given: Messages, shaped: dict[str, Any]) -> None:
    form = HistoryForm(tools_in_system=True)
    first, *_ = form.messages(given, [TOOL])
    assert first == shaped | {"tools": '[{"name":"f","description":"d"}]'}
    assert form.messages(given) == given


def test_no_tools_are_what_the_template_can_take() -> None:
    assert HistoryForm().tools([]) is None
    assert HistoryForm(no_tools=()).tools([]) == []
    assert HistoryForm().tools([TOOL]) == [TOOL]
