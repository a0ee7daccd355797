"""Checks of a native request that go beyond its shape, the same on HTTP and on the WebSocket."""

from typing import Final

from paddler.errors import ClientError
from paddler.messages.inference import ContinueFromConversationHistory

TOKENS_DISABLED: Final = (
    "Token generation is disabled while the cluster is configured for embeddings"
)


def require_known_properties(request: ContinueFromConversationHistory) -> None:
    """Refuse a tool that requires a property which it does not declare."""
    for tool in request.tools:
        parameters = tool.function.parameters
        if parameters is None or not (parameters.required and parameters.properties is not None):
            continue
        for name in parameters.required:
            if name not in (parameters.properties or {}):
                raise ClientError(
                    f"Invalid request parameters: Required field '{name}' not found in properties",
                    code="tool_schema",
                )
