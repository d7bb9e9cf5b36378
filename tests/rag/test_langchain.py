from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from rag_words import chunk

from trilith.seams import Embedder
from trilith.testing import MemoryIndex
from trilith_rag import Retriever
from trilith_rag.langchain import TrilithRetriever

SEA = chunk("sea", "The sea is salty.", start=7)


def test_an_index_works_in_a_chain(embedder: Embedder) -> None:
    index = MemoryIndex(dimension=embedder.dimension)
    index.upsert([SEA], embedder.embed([SEA.text]))
    retriever = TrilithRetriever(retriever=Retriever("docs", index, embedder), k=1)
    (document,) = retriever.invoke("salty sea")
    assert (document.page_content, document.metadata["path"], document.metadata["start"]) == (
        SEA.text,
        "sea.txt",
        7,
    )
    chain = retriever | RunnableLambda(texts) | StrOutputParser()
    assert chain.invoke("salty sea") == SEA.text


def texts(found: list[Document]) -> str:
    return " ".join(document.page_content for document in found)
