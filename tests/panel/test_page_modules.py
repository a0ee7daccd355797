"""What the pages reckon, read and write, without a page: each module against its own tests."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from paddler.balancer.services.openai.requests import MAX_STOP_TEXTS, RANGES
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, InferenceParameters
from tests.panel.page_modules import TESTS, laid_out, run_node


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid_out(tmp_path_factory.mktemp("modules"))


def exported(folder: Path, module: str, name: str) -> Any:
    """What a module exports, by way of JSON."""
    script = f"import {{{name}}} from './static/{module}'; console.log(JSON.stringify({name}))"
    return json.loads(run_node(folder, "--input-type=module", "--eval", script))


@pytest.mark.parametrize("test", sorted(path.name for path in TESTS.glob("*.test.mjs")))
def test_a_module_keeps_what_its_tests_say(folder: Path, test: str) -> None:
    run_node(folder, "--test", test)


def test_parameters_are_those_of_the_wire_with_their_defaults_and_ranges(folder: Path) -> None:
    fields = {field.name: field.type for field in fields_of(InferenceParameters)}
    standard = msgspec.to_builtins(DEFAULT_INFERENCE_PARAMETERS)
    shown = {one["key"]: one for one in exported(folder, "parameters.js", "PARAMETERS")}
    assert shown.keys() == fields.keys()
    for key, kind in fields.items():
        parameter = shown[key]
        assert parameter["standard"] == standard[key], key
        match kind:
            case inspect.BoolType():
                assert parameter["kind"] == "switch", key
            case inspect.LiteralType(values=values):
                assert sorted(parameter["choices"]) == sorted(values), key
            case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
                is_whole = isinstance(kind, inspect.IntType)
                assert parameter["kind"] == ("integer" if is_whole else "decimal"), key
                assert (parameter["min"], parameter["max"]) == (low, high), key
            case _:
                raise AssertionError(f"{key} is of a kind that the page does not know: {kind}")


def fields_of(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


def test_settings_of_a_prompt_have_the_ranges_that_the_service_allows(folder: Path) -> None:
    settings = exported(folder, "chat_request.js", "NUMBER_SETTINGS")
    assert len(settings) > 5
    for setting in settings:
        low, high = RANGES[setting["key"]]
        if setting["key"] == "seed":  # as far as a browser's numbers are whole
            assert low < setting["min"] < 0 < setting["max"] < high
        else:
            assert (setting["min"], setting["max"]) == (low, high), setting["key"]
    assert exported(folder, "chat_request.js", "MAX_STOP_TEXTS") == MAX_STOP_TEXTS


def test_images_that_can_be_picked_are_those_that_agents_decode(folder: Path) -> None:
    images = pytest.importorskip("paddler.agent.worker.images")
    types = exported(folder, "image_picker.js", "IMAGE_TYPES")
    formats = {one.removeprefix("image/").removesuffix("+xml").upper() for one in types}
    assert formats == {*images._FORMATS, "SVG"}
