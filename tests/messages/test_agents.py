"""What agents report, as clients of the management service read it."""

import json

import msgspec
import pytest

from paddler.messages.agents import (
    AgentIssue,
    AgentSnapshot,
    AgentsSnapshot,
    AgentStatus,
    HubLock,
    ModelPath,
    SlotError,
    TemplateError,
)

PATH = ModelPath("/a.gguf")

# Every issue that concerns a model only; clients know these names and no others.
MODEL_ISSUES = {
    "cache_cannot_acquire_lock": "CacheCannotAcquireLock",
    "cache_directory_is_not_writable": "CacheDirectoryIsNotWritable",
    "cache_storage_is_full": "CacheStorageIsFull",
    "download_interrupted": "DownloadInterrupted",
    "download_server_denied_access": "DownloadServerDeniedAccess",
    "download_server_errored": "DownloadServerErrored",
    "download_server_is_unreachable": "DownloadServerIsUnreachable",
    "download_server_rejected_request": "DownloadServerRejectedRequest",
    "download_url_is_malformed": "DownloadUrlIsMalformed",
    "hugging_face_model_does_not_exist": "HuggingFaceModelDoesNotExist",
    "hugging_face_permissions": "HuggingFacePermissions",
    "model_cache_is_corrupted": "ModelCacheIsCorrupted",
    "model_cannot_be_loaded": "ModelCannotBeLoaded",
    "model_does_not_exist_at_url": "ModelDoesNotExistAtUrl",
    "model_file_does_not_exist": "ModelFileDoesNotExist",
    "multimodal_projection_cannot_be_loaded": "MultimodalProjectionCannotBeLoaded",
    "unable_to_find_chat_template": "UnableToFindChatTemplate",
}
OTHER_ISSUES: list[tuple[AgentIssue, dict[str, object]]] = [
    (
        AgentIssue(chat_template_does_not_compile=TemplateError("bad", PATH, "{%")),
        {
            "ChatTemplateDoesNotCompile": {
                "error": "bad",
                "model_path": {"model_path": "/a.gguf"},
                "template_content": "{%",
            }
        },
    ),
    (
        AgentIssue(hugging_face_cannot_acquire_lock=HubLock("/a.lock", PATH)),
        {
            "HuggingFaceCannotAcquireLock": {
                "lock_path": "/a.lock",
                "model_path": {"model_path": "/a.gguf"},
            }
        },
    ),
    (
        AgentIssue(slot_cannot_start=SlotError("no room", 3)),
        {"SlotCannotStart": {"error": "no room", "slot_index": 3}},
    ),
]
ISSUES = OTHER_ISSUES + [
    (AgentIssue(**{field: PATH}), {variant: {"model_path": "/a.gguf"}})
    for field, variant in MODEL_ISSUES.items()
]


@pytest.mark.parametrize(("issue", "expected"), ISSUES)
def test_an_issue_is_an_object_with_the_variants_name(
    issue: AgentIssue, expected: dict[str, object]
) -> None:
    encoded = msgspec.json.encode(issue)
    assert json.loads(encoded) == expected
    assert msgspec.json.decode(encoded, type=AgentIssue) == issue


def test_these_are_all_issues() -> None:
    assert len(ISSUES) == len(AgentIssue.__struct_fields__)


@pytest.mark.parametrize(
    "wire",
    [
        b"{}",
        b'{"Unheard":{"model_path":"/a"}}',
        b'{"CacheStorageIsFull":{"model_path":"/a"},"ModelCannotBeLoaded":{"model_path":"/a"}}',
    ],
)
def test_an_issue_is_exactly_one_known_variant(wire: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wire, type=AgentIssue)


def test_a_new_agent_reports_this() -> None:
    assert json.loads(msgspec.json.encode(AgentStatus(desired_slots_total=4))) == {
        "desired_slots_total": 4,
        "download_current": 0,
        "download_filename": None,
        "download_indeterminate": True,
        "download_total": 0,
        "issues": [],
        "model_path": None,
        "slots_total": 0,
        "state_application_status": "Fresh",
        "uses_chat_template_override": False,
    }


def test_counts_are_never_negative() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.slots_total"):
        msgspec.json.decode(b'{"desired_slots_total":1,"slots_total":-1}', type=AgentStatus)


def test_a_snapshot_has_exactly_these_keys() -> None:
    snapshot = AgentSnapshot(
        desired_slots_total=4,
        download_current=0,
        download_filename=None,
        download_indeterminate=True,
        download_total=0,
        id="V1StGXR8_Z5jdHi6B-myT",
        issues=(AgentIssue(model_cannot_be_loaded=PATH),),
        model_path=None,
        name="gpu-1",
        slots_processing=1,
        slots_total=4,
        state_application_status="Applied",
        uses_chat_template_override=False,
    )
    assert json.loads(msgspec.json.encode(AgentsSnapshot((snapshot,)))) == {
        "agents": [
            {
                "desired_slots_total": 4,
                "download_current": 0,
                "download_filename": None,
                "download_indeterminate": True,
                "download_total": 0,
                "id": "V1StGXR8_Z5jdHi6B-myT",
                "issues": [{"ModelCannotBeLoaded": {"model_path": "/a.gguf"}}],
                "model_path": None,
                "name": "gpu-1",
                "slots_processing": 1,
                "slots_total": 4,
                "state_application_status": "Applied",
                "uses_chat_template_override": False,
            }
        ]
    }
