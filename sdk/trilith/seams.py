"""One Protocol per neighbour: what Trilith asks of the things it stands beside.

Every seam has a real implementation in the package that owns it and an in-memory twin in
`trilith.testing`; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from trilith.types import Chunk, Finding, Hit, RegisteredModel

Decision: TypeAlias = tuple[object, ...]
"""What was decided on a request's way: what it is, then names, reasons and numbers, never content."""


class Shield(Protocol):
    """One request's protection of personal data: reversible, and consistent within the request."""

    def mask(self, text: str) -> str:
        """Find personal data in `text` and put placeholders in its place. Blocking and CPU-bound.

        Raises:
            PermissionDeniedError: the policy refuses a kind of data that the text holds.
        """
        ...

    def mask_known(self, text: str) -> str:
        """Replace only values that `mask` has found before, by the same placeholders; does not search."""
        ...

    def restore(self, text: str) -> str:
        """Put the originals back."""
        ...


@dataclass(frozen=True, slots=True)
class Tried:
    """One try whose answer is not the one that the caller gets: it failed, or another was faster."""

    upstream: str
    """Which replica was asked."""
    status: int
    """HTTP status; 0 when nothing answered."""
    body: bytes = b""
    """What was read of its answer, in which usage may stand."""


@dataclass(slots=True)
class Call:
    """One request on its way to an upstream. Nobody changes one; `dataclasses.replace` makes another.

    (It is not frozen: that would make it four times as slow to make, and there is one for every request.)
    """

    path: str
    """OpenAI's path (`/v1/chat/completions`) or the Open Inference Protocol's (`/v2/models/m/infer`)."""
    body: bytes
    """JSON, UTF-8."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names; never the caller's credentials."""
    timeout_s: float = 600.0
    shield: Shield | None = None
    """For upstreams that build a prompt of their own (rag): `body` is then as the caller wrote it, and
    whatever goes on to a language model passes the shield first. None: `body` is already masked, or no
    policy asks for masking.
    """
    affinity: bytes | None = None
    """Calls with the same value are best answered by the same replica: they begin alike."""
    json: Mapping[str, Any] | None = None
    """`body`, decoded, where the gateway has done that already; a tensor that came as bytes has a memoryview
    as its `data`. Upstreams in this process read it and change nothing in it; None: only `body` is there.
    """
    tried: Callable[[Tried], None] | None = None
    """Told of every further try that an upstream makes on its own, since each may cost; None: nobody asks."""
    tag: str | None = None
    """Only replicas that have this tag may answer; None: all may."""
    only: str | None = None
    """Only the replica of this name may answer; None: all may."""
    repeatable: bool = True
    """Whether it may be sent once more although the first try may have been acted upon."""
    trail: list[Decision] | None = None
    """Where an upstream that is several says whom it asked and what it tried: names and causes, never
    content."""


class Reply(Protocol):
    """An upstream's answer whose body is still arriving.

    Where the upstream is several, it also has `upstream`: the name of the one that answers.
    """

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises `APIConnectionError` when the upstream breaks off."""
        ...

    async def aclose(self) -> None:
        """Give the answer up. If it is not complete, the upstream's work is aborted at once."""
        ...


class Upstream(Protocol):
    """Something that can answer calls: a vLLM replica, a provider, or in-process code."""

    async def send(self, call: Call) -> Reply:
        """Send one call; returns when the answer's headers are known.

        Cancelling the task aborts the upstream's work.

        Raises:
            APIConnectionError: nothing answered.
            APITimeoutError: nothing answered within `call.timeout_s`.
        """
        ...

    async def ready(self) -> bool:
        """Say whether a call would be answered now."""
        ...

    async def aclose(self) -> None:
        """Release connections and memory."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """An upstream that answers from something which changes while it runs: an index, a trained model."""

    def version(self) -> str | None:
        """Name what a call would be answered from now; short and quick.

        None: that is not known, so an answer must not be kept for later.
        """
        ...


class NearestIndex(Protocol):
    """Finds the vectors that are nearest to a given one, within a scope. Blocking."""

    def add(self, key: str, scope: str, vector: Sequence[float]) -> None:
        """Add or replace the vector of `key`; may drop the oldest ones when there are many."""
        ...

    def find(self, scope: str, vector: Sequence[float], *, limit: int) -> list[tuple[str, float]]:
        """Return keys and cosine similarities, nearest first, of vectors in the very same scope."""
        ...

    def drop(self, key: str) -> None:
        """Remove a vector; an unknown key is ignored."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names model and settings; two embedders with one fingerprint give the same vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return `(len(texts), dimension)` unit-length vectors. Blocking and CPU-bound."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens the model reads for these texts, special tokens included."""
        ...


class VectorIndex(Protocol):
    """Stores chunks with their vectors and finds them again."""

    def upsert(self, chunks: Sequence[Chunk], vectors: Sequence[Sequence[float]]) -> None:
        """Add or replace chunks by id; on return they can be found."""
        ...

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Remove chunks by id; unknown ids are ignored."""
        ...

    def ids(self) -> dict[str, str]:
        """Return every stored chunk id with its document id, read from the index itself."""
        ...

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first, by hybrid (dense and BM25) search."""
        ...

    def close(self) -> None:
        """Flush to disk and release the files."""
        ...


class ModelRegistry(Protocol):
    """Versions of classical models, and which of them an alias names."""

    def register(self, name: str, folder: str, *, tags: Mapping[str, str]) -> RegisteredModel:
        """Store the artefacts in `folder` as the next version of `name`."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`."""
        ...

    def resolve(self, name: str, alias: str) -> RegisteredModel:
        """Return what `alias` names, with its files on local disk.

        Raises:
            DataError: no such model or alias.
        """
        ...


class Scanner(Protocol):
    """Finds personal data in a text."""

    def scan(self, text: str, entities: Sequence[str]) -> list[Finding]:
        """Return non-overlapping findings in order of `start`. Blocking and CPU-bound."""
        ...
