"""What agents report about themselves, as the management service shows it."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from paddler.messages._base import OneOf

Count = Annotated[int, Meta(ge=0)]
Slots = Annotated[int, Meta(ge=0, le=32_767)]

StateApplicationStatus = Literal[
    "Applied", "AttemptedAndNotAppliable", "AttemptedAndRetrying", "Fresh", "Stuck"
]


def agent_label(name: str | None) -> str:
    """How texts for people name an agent."""
    return f'agent "{name}"' if name is not None else "unnamed agent"


class ModelPath(Struct, frozen=True, order=True):
    """The model an issue is about: a path, an address, or ``repo/revision/file``."""

    model_path: str


class HubLock(Struct, frozen=True, order=True):
    """A lock of the Hub cache that somebody else holds."""

    lock_path: str
    model_path: ModelPath


class TemplateError(Struct, frozen=True, order=True):
    """A chat template that does not compile, and why."""

    error: str
    model_path: ModelPath
    template_content: str


class SlotError(Struct, frozen=True, order=True):
    """A slot that could not be made, and why."""

    error: str
    slot_index: int


class AgentIssue(OneOf, frozen=True, rename="pascal"):
    """One thing that is wrong on an agent. No variant may be added: clients refuse unknown ones."""

    cache_cannot_acquire_lock: ModelPath | UnsetType = UNSET
    cache_directory_is_not_writable: ModelPath | UnsetType = UNSET
    cache_storage_is_full: ModelPath | UnsetType = UNSET
    chat_template_does_not_compile: TemplateError | UnsetType = UNSET
    download_interrupted: ModelPath | UnsetType = UNSET
    download_server_denied_access: ModelPath | UnsetType = UNSET
    download_server_errored: ModelPath | UnsetType = UNSET
    download_server_is_unreachable: ModelPath | UnsetType = UNSET
    download_server_rejected_request: ModelPath | UnsetType = UNSET
    download_url_is_malformed: ModelPath | UnsetType = UNSET
    hugging_face_cannot_acquire_lock: HubLock | UnsetType = UNSET
    hugging_face_model_does_not_exist: ModelPath | UnsetType = UNSET
    hugging_face_permissions: ModelPath | UnsetType = UNSET
    model_cache_is_corrupted: ModelPath | UnsetType = UNSET
    model_cannot_be_loaded: ModelPath | UnsetType = UNSET
    model_does_not_exist_at_url: ModelPath | UnsetType = UNSET
    model_file_does_not_exist: ModelPath | UnsetType = UNSET
    multimodal_projection_cannot_be_loaded: ModelPath | UnsetType = UNSET
    slot_cannot_start: SlotError | UnsetType = UNSET
    unable_to_find_chat_template: ModelPath | UnsetType = UNSET


class AgentStatus(Struct, frozen=True, kw_only=True):
    """What an agent says of itself; sent whenever one of these changes."""

    desired_slots_total: Slots
    download_current: Count = 0
    download_filename: str | None = None
    download_indeterminate: bool = True
    download_total: Count = 0
    issues: tuple[AgentIssue, ...] = ()
    model_path: str | None = None
    slots_total: Slots = 0
    state_application_status: StateApplicationStatus = "Fresh"
    uses_chat_template_override: bool = False


AgentPhase = Literal[
    "idle",
    "downloading",
    "waiting_for_lock",
    "draining",
    "loading",
    "warming",
    "serving",
    "retrying",
]


class AgentDetails(Struct, frozen=True, kw_only=True):
    """What operators want to know of an agent beyond its status, as far as it is known."""

    host: str
    started_at: float
    """Seconds since 1970, by the agent's clock."""
    engine: str | None = None
    devices: tuple[str, ...] = ()
    threads: int = 0
    cores: tuple[int, ...] = ()
    """Physical ones that the agent may use, each by its first processor."""
    memory_bytes: int = 0
    """Resident, of the agent and its worker."""
    phase: AgentPhase = "idle"
    load_fraction: float | None = None
    bytes_per_s: float | None = None
    seconds_left: float | None = None
    wanted_state: str | None = None
    """Fingerprint of the state that it was told to run last."""
    applied_state: str | None = None
    """That one, as soon as it runs."""
    loaded_model: str | None = None
    context_size: int | None = None
    slot_context_size: int | None = None
    """What one request can have of it at most."""
    notes: tuple[str, ...] = ()
    """Warnings of the last load."""
    worker_restarts: int = 0
    reconnects: int = 0


class AgentSnapshot(Struct, frozen=True, kw_only=True):
    """One agent in ``GET /api/v1/agents``. Clients refuse extra keys: never add one."""

    desired_slots_total: int
    download_current: int
    download_filename: str | None
    download_indeterminate: bool
    download_total: int
    id: str
    issues: tuple[AgentIssue, ...]
    model_path: str | None
    name: str | None
    slots_processing: int
    slots_total: int
    state_application_status: StateApplicationStatus
    uses_chat_template_override: bool


class AgentsSnapshot(Struct, frozen=True):
    """The body of ``GET /api/v1/agents``."""

    agents: tuple[AgentSnapshot, ...]
