"""Governance: keeps personal data from models that need not see it, and gives it back to its owner."""

from trilith_governance.item import (
    MessageStreamRestorer,
    ResponseStreamRestorer,
    check_speech,
    mask_message,
    mask_moderation,
    mask_rerank,
    mask_response,
    restore_image,
    restore_message,
    restore_rerank,
    restore_response,
)
from trilith_governance.protection import Protection
from trilith_governance.protector import Protector, open_protector
from trilith_governance.stream import StreamRestorer
from trilith_governance.walk import (
    ChatStreamRestorer,
    check_tabular,
    mask_chat,
    mask_completion,
    mask_embedding_input,
    restore_chat,
)

__all__ = [
    "ChatStreamRestorer",
    "MessageStreamRestorer",
    "Protection",
    "Protector",
    "ResponseStreamRestorer",
    "StreamRestorer",
    "check_speech",
    "check_tabular",
    "mask_chat",
    "mask_completion",
    "mask_embedding_input",
    "mask_message",
    "mask_moderation",
    "mask_rerank",
    "mask_response",
    "open_protector",
    "restore_chat",
    "restore_image",
    "restore_message",
    "restore_rerank",
    "restore_response",
]
