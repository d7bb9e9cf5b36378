"""Governance: keeps personal data from models that need not see it, and gives it back to its owner."""

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
    "Protection",
    "Protector",
    "StreamRestorer",
    "check_tabular",
    "mask_chat",
    "mask_completion",
    "mask_embedding_input",
    "open_protector",
    "restore_chat",
]
