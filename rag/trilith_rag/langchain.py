"""An index as a retriever of langchain, for chains that people already have."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from trilith_rag.retriever import Retriever


class TrilithRetriever(BaseRetriever):
    """Finds passages with `Retriever`; each document's metadata say which span of which file it is."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever
    """The open index."""
    k: int = 4
    """How many passages to return."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [
            Document(
                page_content=hit.chunk.text,
                id=hit.chunk.id,
                metadata={
                    "path": hit.chunk.path,
                    "title": hit.chunk.title,
                    "start": hit.chunk.start,
                    "end": hit.chunk.end,
                    "page": hit.chunk.page,
                    "score": hit.score,
                },
            )
            for hit in self.retriever.retrieve(query, self.k)
        ]
