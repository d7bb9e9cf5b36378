"""Answers from documents: parse, chunk, embed, index in Qdrant, retrieve, cite."""

from trilith_rag.embedder import MiniLmEmbedder
from trilith_rag.embedding import EmbeddingUpstream
from trilith_rag.rerank import RerankUpstream
from trilith_rag.retriever import Retriever, open_index
from trilith_rag.sync import SyncReport, sync
from trilith_rag.upstream import RagUpstream

__all__ = [
    "EmbeddingUpstream",
    "MiniLmEmbedder",
    "RagUpstream",
    "RerankUpstream",
    "Retriever",
    "SyncReport",
    "open_index",
    "sync",
]
