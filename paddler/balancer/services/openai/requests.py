"""Reading requests, and what several endpoints take from them alike."""

import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from paddler.balancer.services.body import JSON_TYPE
from paddler.balancer.services.openai.errors import ParameterError
from paddler.errors import ClientError
from paddler.messages.link import Sampling
from paddler.messages.state import I32_MAX, I32_MIN
from paddler.net.http import Request

T = TypeVar("T")

DEFAULT_MAX_TOKENS: Final = 2000
MAX_CHOICES: Final = 128
MAX_STOP_TEXTS: Final = 16  # OpenAI takes 4; clients of other services send more
MAX_SHOWN: Final = 100  # characters of a value within an error

# What OpenAI's API reference allows, and llama.cpp can do.
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "best_of": (1, MAX_CHOICES),
    "frequency_penalty": (-2, 2),
    "max_completion_tokens": (1, I32_MAX),
    "max_output_tokens": (1, I32_MAX),
    "max_tokens": (1, I32_MAX),
    "min_p": (0, 1),
    "n": (1, MAX_CHOICES),
    "presence_penalty": (-2, 2),
    "seed": (-(2**63), 2**63 - 1),
    "temperature": (0, 2),
    "top_k": (I32_MIN, I32_MAX),
    "top_logprobs": (0, 20),
    "top_p": (0, 1),
}

Fields = tuple[tuple[str, ...], Callable[[object], tuple[Any, ...]]]
"""Names of fields that a kind of request has, and what reads them all at once."""
_RANGED_FIELDS: Final[dict[type, Fields]] = {}
_SAMPLING_FIELDS: Final[dict[type, Fields]] = {}
"""Both are filled as kinds of requests come."""
# As requests and our own samplers call them alike.
SAMPLING_VALUES: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)
_BIAS_RANGE: Final = (-100, 100)

# How msgspec ends a complaint about a part of the document, and names what is not there.
_PLACE: Final = re.compile(r" - at `\$\.?(?P<place>[^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")

# What a field may say, by its place; msgspec tells only what it may not.
_ALLOWED: Final[Mapping[str, str]] = {
    "encoding_format": "float or base64",
    "messages[].content[].type": "text, image_url or refusal",
    "response_format.type": "text, json_object or json_schema",
    "tool_choice": "none, auto, required or an object that names a function",
    "tool_choice.type": "function or allowed_tools",
}


def read(request: Request, decode: Callable[[bytes], T]) -> T:
    """The request's body, decoded and its numbers in range; :class:`ClientError` 400 otherwise."""
    if not JSON_TYPE.fullmatch(request.headers.get("content-type") or ""):
        raise ClientError(
            "the body must be JSON, and say so: content-type: application/json",
            code="content_type",
        )
    try:
        decoded = decode(request.body)
    except msgspec.ValidationError as error:
        raise refusal_of(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(f"the body is not valid JSON: {error}", code="json") from error
    check_ranges(decoded)
    return decoded


def check_ranges(request: object) -> None:
    """Refuse numbers that mean nothing."""
    names, read_all = _fields_of(type(request), RANGES, _RANGED_FIELDS)
    for name, value in zip(names, read_all(request), strict=True):
        if value is not None:
            check_range(name, value, *RANGES[name])


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Refuse ``value`` unless it is absent or in range."""
    if value is not None and not low <= value <= high:
        raise ParameterError(name, f"{name} is {value}; it must be between {low} and {high}")


def sampling_of(request: Any, *, top_logprobs: int | None = None) -> Sampling:
    """The sampling values that a request sets; the desired state fills in the others.

    ``request`` is of any endpoint; it may lack some of the fields.
    """
    names, read_all = _fields_of(type(request), SAMPLING_VALUES, _SAMPLING_FIELDS)
    return Sampling(
        **dict(zip(names, read_all(request), strict=True)),
        logit_bias=_bias_of(getattr(request, "logit_bias", None)),
        top_logprobs=top_logprobs,
    )


def _fields_of(kind: type, names: Iterable[str], known: dict[type, Fields]) -> Fields:
    """Those of ``names`` that a kind has, read in one call: each by itself costs as much."""
    if (fields := known.get(kind)) is None:
        own = tuple(name for name in names if hasattr(kind, name))
        # Of a single name it reads a value, not a tuple of one.
        read_all = attrgetter(*own) if len(own) > 1 else lambda request: _read_each(request, own)
        fields = known[kind] = (own, read_all)
    return fields


def _read_each(request: object, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(request, name) for name in names)


def sampling_of_choice(sampling: Sampling, index: int) -> Sampling:
    """The same for one of several choices: a seed gives each choice a text of its own."""
    if sampling.seed is None or index == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + index)


def stop_texts(stop: str | list[str] | None) -> tuple[str, ...]:
    """``stop`` as texts. Empty ones stop nothing."""
    if not stop:
        return ()
    texts = [stop] if isinstance(stop, str) else stop
    if len(texts) > MAX_STOP_TEXTS:
        raise ParameterError(
            "stop", f"stop has {len(texts)} texts; at most {MAX_STOP_TEXTS} are allowed"
        )
    return tuple(text for text in texts if text)


def _bias_of(bias: dict[str, float] | None) -> dict[int, float] | None:
    if not bias:
        return None
    by_token = {}
    for text, value in bias.items():
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise ParameterError(
                "logit_bias", f"logit_bias has the key {shown(text)}; keys are ids of tokens"
            )
        check_range(f"logit_bias[{text}]", value, *_BIAS_RANGE)
        by_token[int(text)] = value
    return by_token


def refusal_of(error: msgspec.ValidationError, within: str = "") -> ClientError:
    """What msgspec complains about, the place in front as people write it.

    ``within``: where the part of the request stands that was decoded.
    """
    complaint = str(error)
    found = _PLACE.search(complaint)
    what = complaint[: found.start()] if found else complaint
    # The values of a mapping have no place of their own.
    place = _joined(within, found["place"].replace("[...]", "") if found else "")
    if allowed := _ALLOWED.get(re.sub(r"\[[0-9]+\]", "[]", place)):
        what = f"{what}; it must be {allowed}"
    what = what.replace("`", "")
    if missing := _MISSING.match(complaint):
        return ParameterError(
            _joined(place, missing["name"]), f"{place}: {what}" if place else what
        )
    return ParameterError(place, f"{place}: {what}") if place else ClientError(what, code="json")


def shown(value: Any) -> str:
    """A value of the request as JSON for people, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _joined(place: str, rest: str) -> str:
    return f"{place}.{rest}" if place and rest and rest[0] != "[" else place + rest
