"""Which tools a model may call, and whether it must."""

import pytest

from paddler.balancer.services.openai.errors import ParameterError
from paddler.balancer.services.openai.tool_choice import (
    AllowedChoice,
    NamedChoice,
    Offer,
    ToolChoice,
    offer_of,
)
from paddler.messages.chat import Function, Tool

F, G = (Tool(Function(name, "", None, None)) for name in "fg")


@pytest.mark.parametrize(
    ("choice", "offer"),
    [
        ("none", Offer([])),
        ("auto", Offer([F, G])),
        ("required", Offer([F, G], must_call=True)),
        (NamedChoice("g"), Offer([F, G], must_call=True, only="g")),
        (AllowedChoice(("g",), must_call=False), Offer([G])),
        (AllowedChoice(("g", "f"), must_call=True), Offer([F, G], must_call=True)),
        (AllowedChoice((), must_call=False), Offer([])),
    ],
)
def test_a_choice_says_what_is_offered(choice: ToolChoice, offer: Offer) -> None:
    assert offer_of(choice, [F, G]) == offer


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("required", "there are no tools"),
        (NamedChoice("h"), "names 'h'; the functions in tools are: none"),
        (AllowedChoice((), must_call=True), "there are no tools"),
        (AllowedChoice(("f",), must_call=False), "names 'f'"),
    ],
)
def test_a_choice_that_nothing_can_follow_is_refused(choice: ToolChoice, text: str) -> None:
    with pytest.raises(ParameterError, match=text) as caught:
        offer_of(choice, [])
    assert caught.value.param == "tool_choice"
