import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.worker.sections import (
    CHANNEL_HEADERS,
    RECIPIENT_HEADERS,
    Markers,
    Piece,
    SectionSplitter,
)
from paddler.messages.link import FrameKind

C, R, T, U = (
    FrameKind.CONTENT,
    FrameKind.REASONING,
    FrameKind.TOOL_CALL,
    FrameKind.UNDETERMINABLE,
)

QWEN = Markers(
    reasoning=("<think>",),
    tool_calls=("<tool_call>",),
    closings=("</think>", "</tool_call>"),
    turn_starts=("<|im_start|>assistant\n",),
)
CHANNELS = Markers(
    closings=("<|end|>",), headers=CHANNEL_HEADERS, turn_starts=("<|start|>assistant",)
)
RECIPIENTS = Markers(headers=RECIPIENT_HEADERS, turn_starts=("assistant\n\n",))
BARE = Markers(tool_calls=("<|python_tag|>", "[TOOL_CALLS]"), has_bare_calls=True)
WRAPPED = Markers(
    reasoning=("<|think|>",),
    content=("<|begin|>assistant", "<|begin|>assistant<|content|>"),
    closings=("<|end|>",),
)
ALL = [QWEN, CHANNELS, RECIPIENTS, BARE, WRAPPED]


class Split:
    """All that a splitter says of an answer; pieces of one section are joined."""

    def __init__(
        self, markers: Markers, prompt: str, tokens: list[str], *, expects_calls: bool = True
    ) -> None:
        splitter = SectionSplitter(markers, prompt, expects_calls=expects_calls)
        self.pieces: list[Piece] = []
        for token in tokens:
            self.pieces += splitter.feed(token)
        self.pieces += splitter.finish()
        assert splitter.held_tokens == 0
        self.counts = {section: count for section, count in splitter.counts.items() if count}
        self.call_text = splitter.take_call_text()
        self.texts = [
            (section, "".join(piece.text for piece in pieces))
            for section, pieces in itertools.groupby(self.pieces, lambda piece: piece.section)
        ]


def tokens_of(text: str) -> list[str]:
    """A token for each character."""
    return list(text)


ASKED = "<|im_start|>user\n<think></think><|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("markers", "prompt", "answer", "texts"),
    [
        (QWEN, ASKED, "<think>\nhm</think>\n\nHi", [(R, "\nhm"), (C, "\n\nHi")]),
        (QWEN, ASKED + "<think>\n", "hm</think>Hi", [(R, "hm"), (C, "Hi")]),
        (QWEN, ASKED + "<think>\n\n</think>\n\n", "Hi", [(C, "Hi")]),
        (QWEN, ASKED, "Hi", [(U, "Hi")]),
        (QWEN, "no turn, but <think>", "hm", [(R, "hm")]),
        (QWEN, ASKED, "a</think>b", [(U, "a"), (C, "b")]),
        (QWEN, ASKED, "1 <thin 2 </", [(U, "1 <thin 2 </")]),
        (QWEN, ASKED, "<think>a<tool_call>b</tool_call>c", [(R, "a"), (T, "b"), (C, "c")]),
        (Markers(), "<think>", "<think>Hi</think>", [(U, "<think>Hi</think>")]),
        (CHANNELS, "<|start|>assistant",
         "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi",
         [(R, "hm"), (C, "Hi")]),
        (CHANNELS, "<|start|>assistant",
         "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}", [(T, "{}")]),
        (CHANNELS, "<|start|>assistant", " to=f<|channel|>commentary json<|message|>{}",
         [(T, "{}")]),
        (CHANNELS, "<|start|>assistant", " to=self<|message|>hm<|end|><|start|>assistant"
         " to=user<|message|>Hi", [(R, "hm"), (C, "Hi")]),
        (CHANNELS, "<|start|>assistant", "no\nheader", [(U, "no\nheader")]),
        (CHANNELS, "<|start|>assistant", "x" * 300, [(U, "x" * 300)]),
        (CHANNELS, "<|start|>assistant", "<|channel|>fin", [(U, "<|channel|>fin")]),
        (RECIPIENTS, "assistant\n\n>>>", "all\nHi>>>f\n{}", [(C, "Hi"), (T, "{}")]),
        (RECIPIENTS, "assistant\n\n>>>", "all\n>>> print(1)", [(C, ">>> print(1)")]),
        (WRAPPED, "", "<|think|>hm<|end|><|begin|>assistant<|content|>Hi<|end|>",
         [(R, "hm"), (C, "Hi")]),
        (WRAPPED, "", "<|begin|>assistant!", [(C, "!")]),
    ],
)  # fmt: skip
def test_answer_is_split_at_its_markers(
    markers: Markers, prompt: str, answer: str, texts: list[tuple[FrameKind, str]]
) -> None:
    split = Split(markers, prompt, tokens_of(answer))
    assert split.texts == texts
    assert sum(split.counts.values()) == len(answer)


CALL = '{"name": "f", "arguments": {"a": "[TOOL_CALLS]<|python_tag|>"}}'


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        (CALL, [(T, CALL)]),
        (f"Sure:\n  {CALL} done", [(U, "Sure:\n  "), (T, CALL), (U, " done")]),
        (f"{CALL}; {CALL}", [(T, CALL), (U, "; "), (T, CALL)]),
        (f"[{CALL},{CALL}]", [(T, f"[{CALL},{CALL}]")]),
        (f"not here: {CALL}", None),
        ('{"name": "Bob", "age": 3}', [(U, '{"name": "Bob", "age": 3}')]),
        ('{"name": "f"}', [(U, '{"name": "f"}')]),
        ("[1] is {odd}", [(U, "[1] is {odd}")]),
        ("[]", [(U, "[]")]),
        ('{"name": "f", "arguments": {"a', [(T, '{"name": "f", "arguments": {"a')]),
        ('{"name": "f", "argum', [(U, '{"name": "f", "argum')]),
        ('<|python_tag|>{"b": 1}', [(T, '{"b": 1}')]),
        ("[f(a='[x]', b={'c': 1}), g()]", [(T, "[f(a='[x]', b={'c': 1}), g()]")]),
        ("Sure:\n [ f.call( ) ] done", [(U, "Sure:\n "), (T, "[ f.call( ) ]"), (U, " done")]),
        ("[f(a=1", [(T, "[f(a=1")]),
        ("[f(a", [(U, "[f(a")]),
        ("[f(a=1), or so]", [(T, "[f(a=1),"), (U, " or so]")]),
        ("[f(1)]", [(U, "[f(1)]")]),
        ("[f(a==1)]", [(U, "[f(a==1)]")]),
        ("[link](address)", [(U, "[link](address)")]),
        ('{"id": ["f"]}', [(U, '{"id": ["f"]}')]),
    ],
)
def test_bare_calls_are_told_from_other_json(
    answer: str, texts: list[tuple[FrameKind, str]] | None
) -> None:
    if texts is None:
        texts = [(U, "not here: " + '{"name": "f", "arguments": {"a": "'), (T, '"}}')]
    assert Split(BARE, "", tokens_of(answer)).texts == texts


def test_json_is_held_only_while_it_may_be_a_call() -> None:
    splitter = SectionSplitter(BARE, "", expects_calls=True)
    assert splitter.feed('{"na') == []
    assert splitter.held_tokens == 1
    assert splitter.feed('tion": 1') == [Piece(U, '{"na'), Piece(U, 'tion": 1')]
    assert splitter.feed(', "b": 2}') == [Piece(U, ', "b": 2}')]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('{"na', "t"),
        ('{"name": "x", ', '"y'),
        ('{"name": "' + "x" * 300, "x"),
        ('{"id": ', "["),
        ('{"id": "' + "x" * 300, "x"),
        ("[", "1"),
        ("[", "f]"),
        ("[f(", "1"),
        ("[f(a", ")"),
        ("[" + "f" * 300, "f"),
        ("[ [", "["),
        ('[{"name": "x"', "}"),
    ],
)
def test_text_is_shown_as_soon_as_it_can_be_no_call(text: str, last: str) -> None:
    splitter = SectionSplitter(Markers(has_bare_calls=True), "", expects_calls=True)
    shown = [piece for token in tokens_of(text) for piece in splitter.feed(token)]
    shown += splitter.feed(last)
    assert "".join(piece.text for piece in shown) == text + last
    assert {piece.section for piece in shown} == {U}


def test_call_is_shown_as_soon_as_it_is_one() -> None:
    splitter = SectionSplitter(BARE, "", expects_calls=True)
    assert splitter.feed('{"name": "f", "arguments": ') == []
    assert splitter.feed('{"a"') == [Piece(T, '{"name": "f", "arguments": '), Piece(T, '{"a"')]
    assert splitter.feed(": 1}}") == [Piece(T, ": 1}}")]
    assert splitter.feed("Hi") == [Piece(U, "Hi")]


def test_json_is_never_held_where_no_call_is_expected() -> None:
    splitter = SectionSplitter(BARE, "", expects_calls=False)
    for token in tokens_of(CALL.partition("[")[0]):
        assert splitter.feed(token) == [Piece(U, token)]


def test_marker_tokens_count_where_they_open_or_close() -> None:
    split = Split(QWEN, ASKED, ["<think>", "hm", "</", "think>", "\n", "Hi", "</think>", ""])
    assert split.texts == [(R, "hm"), (C, "\nHi")]
    assert split.counts == {R: 4, C: 4}


def test_token_without_text_counts_and_says_nothing() -> None:
    splitter = SectionSplitter(QWEN, ASKED + "<think>", expects_calls=True)
    assert splitter.feed("") == []
    assert splitter.counts[R] == 1
    assert splitter.feed("<") == []
    assert splitter.feed("") == []
    assert splitter.held_tokens == 2
    assert splitter.feed("b") == [Piece(R, "<"), Piece(R, "b")]
    assert splitter.counts[R] == 4


def test_each_token_gives_its_own_piece() -> None:
    assert Split(QWEN, ASKED, ["a", "<th", "e b", "c"]).pieces == [
        Piece(U, "a"), Piece(U, "<th"), Piece(U, "e b"), Piece(U, "c")
    ]  # fmt: skip


def test_late_text_is_told_without_a_count() -> None:
    splitter = SectionSplitter(QWEN, ASKED, expects_calls=True)
    assert splitter.feed("a</thin") == [Piece(U, "a")]
    assert splitter.finish("\ufffd") == [Piece(U, "</thin"), Piece(U, "\ufffd")]
    assert sum(splitter.counts.values()) == 1


def test_call_text_is_raw_and_taken_once() -> None:
    splitter = SectionSplitter(QWEN, ASKED, expects_calls=True)
    splitter.feed("x<tool_call>{}")
    assert splitter.take_call_text() == "<tool_call>{}"
    splitter.feed("</tool_call>y<tool_call>")
    assert splitter.take_call_text() == "</tool_call><tool_call>"
    assert splitter.take_call_text() == ""


def test_history_before_the_turn_does_not_matter() -> None:
    prompt = "<|im_start|>user\n<think><tool_call><|im_end|>\n<|im_start|>assistant\n"
    assert Split(QWEN, prompt, ["Hi"]).texts == [(U, "Hi")]


WORDS = [
    *{text for markers in ALL for text in (*markers.reasoning, *markers.content,
      *markers.tool_calls, *markers.closings, *(markers.headers or ((),))[0])},
    "<|message|>", "analysis", "final", " to=functions.f", "assistant", "all", "f",
    "\n", " ", "{", "}", "[", "]", '"', ":", ",", ";", "<", "<|", ">",
    '{"name": "f", "arguments": ', '{"a": 1}', '"arguments"', '"name"', "\\", "text",
    "[f(", "a=1", "(", ")", "=", "g()",
]  # fmt: skip
answers = st.lists(st.sampled_from(WORDS), max_size=25).map("".join)


@given(
    markers=st.sampled_from(ALL),
    answer=answers,
    cuts=st.lists(st.integers(0, 200)),
    expects_calls=st.booleans(),
)
def test_sections_are_the_same_however_tokens_cut_the_text(
    markers: Markers, answer: str, cuts: list[int], expects_calls: bool
) -> None:
    bounds = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    cut = [answer[begin:end] for begin, end in itertools.pairwise(bounds)]
    whole = Split(markers, "", [answer], expects_calls=expects_calls)
    for tokens in (cut, tokens_of(answer)):
        split = Split(markers, "", tokens, expects_calls=expects_calls)
        assert split.texts == whole.texts
        assert split.call_text == whole.call_text
        assert sum(split.counts.values()) == len(tokens)


@given(answer=answers, cuts=st.lists(st.integers(0, 200)))
def test_model_without_markers_says_everything_at_once(answer: str, cuts: list[int]) -> None:
    splitter = SectionSplitter(Markers(), "", expects_calls=True)
    for token in tokens_of(answer):
        assert splitter.feed(token) == [Piece(U, token)]
