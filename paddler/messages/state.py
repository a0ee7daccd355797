"""What operators ask for: the desired state, and what agents are told: the applicable state."""

import ctypes
import hashlib
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from paddler.messages._base import OneOf, Strict

U32_MAX = 2**32 - 1
I32_MIN, I32_MAX = -(2**31), 2**31 - 1
F32_MAX = 3.4028235e38
F32_MIN_NORMAL = 1.1754944e-38

Positive = Annotated[int, Meta(ge=1, le=U32_MAX)]
U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
I32 = Annotated[int, Meta(ge=I32_MIN, le=I32_MAX)]
F32 = Annotated[float, Meta(ge=-F32_MAX, le=F32_MAX)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]

KvCacheDtype = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1"]
PoolingType = Literal["Unspecified", "None", "Mean", "Cls", "Last", "Rank"]


def shortest_f32(value: float) -> float:
    """The number with the fewest digits that is the same 32-bit float as ``value``.

    The wire holds these numbers as 32-bit floats and prints them shortest:
    0.8 stays 0.8, 0.123456789 comes back as 0.12345679.
    """
    exact = ctypes.c_float(value).value
    for digits in range(1, 9):
        short = float(f"{exact:.{digits}g}")
        if ctypes.c_float(short).value == exact:
            return short
    return float(f"{exact:.9g}")


class HuggingFaceModel(Strict, frozen=True):
    """A file in a repository of the Hugging Face Hub; ``filename`` may contain ``/``."""

    filename: str
    repo_id: str
    revision: str


class UrlModel(Strict, frozen=True):
    """A file behind an http(s) address."""

    url: str


class ModelSource(OneOf, frozen=True):
    """Where weights come from. ``{"None": null}`` is read as ``"None"`` where it stands."""

    none: UnsetType | None = msgspec.field(default=UNSET, name="None")
    hugging_face: HuggingFaceModel | UnsetType = msgspec.field(default=UNSET, name="HuggingFace")
    url: UrlModel | UnsetType = msgspec.field(default=UNSET, name="Url")
    local_to_agent: str | UnsetType = msgspec.field(default=UNSET, name="LocalToAgent")


ModelReference = ModelSource | Literal["None"]


def model_for_logs(model: ModelReference) -> str:
    """Which model that is, without what an address may hold of secrets: user, password, query."""
    if not isinstance(model, str) and isinstance(model.url, UrlModel):
        try:
            parts = urlsplit(model.url.url)
        except ValueError:
            return "an address that is none"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return msgspec.json.encode(model).decode()


class ChatTemplate(Strict, frozen=True):
    """A Jinja chat template."""

    content: str


class InferenceParameters(Strict, frozen=True, kw_only=True):
    """How agents load and sample. Every key is required on the wire."""

    n_batch: Positive
    context_size: U32
    embedding_batch_size: Positive
    enable_embeddings: bool
    image_resize_to_fit: Positive
    k_cache_dtype: KvCacheDtype
    v_cache_dtype: KvCacheDtype
    min_p: Probability
    n_gpu_layers: Annotated[int, Meta(ge=-1, le=I32_MAX)]
    penalty_frequency: F32
    penalty_last_n: Annotated[int, Meta(ge=-1, le=I32_MAX)]
    penalty_presence: F32
    penalty_repeat: Annotated[float, Meta(ge=F32_MIN_NORMAL, le=F32_MAX)]
    pooling_type: PoolingType
    temperature: Annotated[float, Meta(ge=0.0, le=F32_MAX)]
    top_k: I32
    top_p: Probability

    def __post_init__(self) -> None:
        for name in _F32_FIELDS:
            msgspec.structs.force_setattr(self, name, shortest_f32(getattr(self, name)))


_F32_FIELDS = (
    "min_p",
    "penalty_frequency",
    "penalty_presence",
    "penalty_repeat",
    "temperature",
    "top_p",
)

DEFAULT_INFERENCE_PARAMETERS = InferenceParameters(
    n_batch=2048,
    context_size=8192,
    embedding_batch_size=256,
    enable_embeddings=False,
    image_resize_to_fit=1024,
    k_cache_dtype="Q8_0",
    v_cache_dtype="Q8_0",
    min_p=0.05,
    n_gpu_layers=0,
    penalty_frequency=0.0,
    penalty_last_n=-1,
    penalty_presence=0.8,
    penalty_repeat=1.1,
    pooling_type="Last",
    temperature=0.8,
    top_k=80,
    top_p=0.8,
)


class DesiredState(Strict, frozen=True, kw_only=True):
    """What operators asked for (``PUT /api/v1/balancer_desired_state``)."""

    chat_template_override: ChatTemplate | None = None
    inference_parameters: InferenceParameters
    model: ModelReference
    multimodal_projection: ModelReference
    use_chat_template_override: bool

    def __post_init__(self) -> None:
        for name in ("model", "multimodal_projection"):
            reference = getattr(self, name)
            if isinstance(reference, ModelSource) and reference.none is None:
                msgspec.structs.force_setattr(self, name, "None")


class ApplicableState(Strict, frozen=True, kw_only=True):
    """What agents are told to run (``GET /api/v1/balancer_applicable_state``)."""

    chat_template_override: ChatTemplate | None
    inference_parameters: InferenceParameters
    model: ModelReference
    multimodal_projection: ModelReference


def fingerprint(state: ApplicableState) -> str:
    """A short text that is the same for equal states, in every process of this version."""
    return hashlib.sha256(msgspec.json.encode(state)).hexdigest()[:16]


DEFAULT_DESIRED_STATE = DesiredState(
    inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
    model="None",
    multimodal_projection="None",
    use_chat_template_override=False,
)
