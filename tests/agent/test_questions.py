import asyncio
from typing import Any

import pytest

from paddler.agent.questions import Questions
from paddler.messages import link as wire
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, ApplicableState, ChatTemplate


def state(override: str | None) -> ApplicableState:
    return ApplicableState(
        chat_template_override=None if override is None else ChatTemplate(override),
        inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
        model="None",
        multimodal_projection="None",
    )


def answer(questions: Questions, ask: wire.Ask) -> wire.Answer:
    return asyncio.run(questions.answer(wire.Question(7, ask)))


def test_metadata_is_null_until_a_file_was_opened_and_stays() -> None:
    questions = Questions()
    assert answer(questions, wire.AskMetadata()) == wire.Answer(7, None)
    questions.on_opened({"a": "1"}, {"bos_token": "", "eos_token": "", "nl_token": ""})
    questions.on_state(state(None))
    assert answer(questions, wire.AskMetadata()) == wire.Answer(7, {"metadata": {"a": "1"}})


@pytest.mark.parametrize(("override", "value"), [(None, None), ("x", {"content": "x"})])
def test_the_override_is_that_of_the_newest_state(override: str | None, value: Any) -> None:
    questions = Questions()
    assert answer(questions, wire.AskTemplateOverride()) == wire.Answer(7, None)
    questions.on_state(state("older"))
    questions.on_state(state(override))
    assert answer(questions, wire.AskTemplateOverride()) == wire.Answer(7, value)


def render(source: str) -> wire.RenderTemplate:
    return wire.RenderTemplate(source=source, messages=[{"role": "user", "content": "Hi"}])


def test_a_template_is_rendered_with_the_models_tokens() -> None:
    questions = Questions()
    questions.on_opened({}, {"bos_token": "<s>", "eos_token": "", "nl_token": ""})
    source = "{{ bos_token }}{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    assert answer(questions, render(source)) == wire.Answer(7, "<s>Hi>")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("a\n{% if %}", "line 2: "),
        ("{{ raise_exception('no') }}", "Model's chat template raised an exception: 'no'"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more"),
    ],
    ids=["syntax", "raised", "endless"],
)
def test_a_template_that_fails_says_why(source: str, error: str) -> None:
    told = answer(Questions(), render(source))
    assert told.value is None
    assert error in str(told.error)
