"""Hit rate and hit precision of the semantic cache's look-up, with the guard and without.

    python bench/semantic_cache.py ../shared/data [--split report] [--most 400]

Questions are real: CLAPNQ (Apache-2.0), XQuAD in English (CC BY-SA 4.0), PubMedQA (MIT). A question belongs
to the split `tune` when the sha256 of its id is even, else to `report`; the guard and the default threshold
were chosen on `tune` alone. All questions of a split are kept, then these are asked:

- the same question said differently, by rule (`SAME`): a hit on its own original, or on another question with
  the same gold answer, is right;
- a question that differs in what matters, by rule (`OTHER`): every hit is wrong;
- each real question itself, its own entry left out: a hit is right only on one with the same gold answer.

Precision is right hits by all hits. The rules are ours, so rates say how the guard trades, not how often your
callers repeat themselves.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trilith_gateway.caching import guard
from trilith_rag import MiniLmEmbedder

THRESHOLDS = (0.80, 0.85, 0.90, 0.93, 0.95)
_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Question:
    """One real question."""

    id: str
    text: str
    answer: str
    """Passage and gold answers; two questions with the same are taken to ask the same."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it is put to the cache."""

    rule: str
    text: str
    source: int
    """Which question it was made from."""
    same: bool


def questions(data: Path, split: str) -> list[Question]:
    """Read a split."""
    found = [*_clapnq(data / "rag/clapnq/public/questions.jsonl")]
    found += _xquad(data / "rag/xquad/public/questions.en.jsonl.gz")
    found += _pubmedqa(data / "rag/pubmedqa/public/pqal.jsonl.gz")
    chosen = [q for q in found if _even(q.id) == (split == "tune")]
    return list({q.text.lower(): q for q in chosen}.values())


def _even(id: str) -> bool:
    return hashlib.sha256(id.encode()).digest()[-1] % 2 == 0


def _clapnq(path: Path) -> Iterator[Question]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers = sorted(answer["answer"] for answer in row["answers"])
        yield Question(
            f"clapnq {row['id']}", row["question"], f"{row['gold_passages']} {answers} {row['id']}"
        )


def _xquad(path: Path) -> Iterator[Question]:
    for row in _rows(path):
        answers = sorted(answer["text"].lower() for answer in row["answers"])
        yield Question(f"xquad {row['id']}", row["question"], f"{row['passage_id']} {answers}")


def _pubmedqa(path: Path) -> Iterator[Question]:
    for row in _rows(path):
        yield Question(f"pubmedqa {row['id']}", row["question"], f"pubmedqa {row['id']}")


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _fronted(text: str) -> str | None:
    """Put a time that stands last first."""
    found = re.fullmatch(r"(.+?) (in \d{4}|during the [\w ]{3,30}|in the \d+th century)\?", text)
    return f"{found[2].capitalize()}, {_lower_first(found[1])}?" if found else None


_SYNONYMS = {
    "begin": "start", "began": "started", "big": "large", "film": "movie", "purchase": "buy", "kind": "type",
    "type": "kind", "created": "made", "located": "situated", "wrote": "authored", "biggest": "largest",
    "children": "kids", "help": "assist", "happen": "occur", "happened": "occurred", "movie": "film",
    "group": "team", "name": "title", "amount": "quantity", "main": "primary", "built": "constructed",
    "patients": "subjects", "impact": "effect", "effect": "impact", "term": "word", "show": "series",
}  # fmt: skip


def _synonym(text: str) -> str | None:
    for word, other in _SYNONYMS.items():
        if re.search(rf"\b{word}\b", text):
            return re.sub(rf"\b{word}\b", other, text, count=1)
    return None


def _contracted(text: str) -> str | None:
    made = re.sub(r"^(What|Who|Where|How) is\b", r"\1's", text)
    made = re.sub(r"\b(did|does|is|was|are|were|do) not\b", r"\1n't", made)
    return made if made != text else None


SAME: dict[str, Callable[[str], str | None]] = {
    "bare": lambda t: t.lower().rstrip("?").strip(),
    "polite": lambda t: f"Please tell me: {_lower_first(t)}",
    "can you": lambda t: f"Hi, can you tell me {_lower_first(t)}",
    "want to know": lambda t: f"I would like to know {_lower_first(t).rstrip('?')}.",
    "thanks": lambda t: f"{t} Thanks!",
    "fronted": _fronted,
    "contracted": _contracted,
    "synonym": _synonym,
}
"""Ways to say the same."""


def _other_number(text: str) -> str | None:
    made = re.sub(r"\d+", lambda m: str(int(m[0]) + 1), text, count=1)
    return made if made != text else None


def _other_kind(text: str) -> str | None:
    for word, other in (("who", "when"), ("when", "where"), ("where", "who"), ("how many", "which")):
        if re.search(rf"\b{word}\b", text, re.IGNORECASE):
            return re.sub(rf"\b{word}\b", other, text, count=1, flags=re.IGNORECASE)
    return None


_TURNED = {
    "before": "after", "after": "before", "more": "less", "most": "least", "highest": "lowest",
    "first": "last",
    "largest": "smallest", "increase": "decrease", "higher": "lower", "north": "south", "east": "west",
    "best": "worst", "men": "women", "with": "without", "early": "late", "start": "end", "began": "ended",
    "won": "lost", "reduce": "raise", "improve": "worsen", "old": "young", "safe": "harmful",
}  # fmt: skip


def _turned(text: str) -> str | None:
    for word, other in _TURNED.items():
        if re.search(rf"\b{word}\b", text):
            return re.sub(rf"\b{word}\b", other, text, count=1)
    return None


def _denied(text: str) -> str | None:
    made = re.sub(r"\b(did|does|do|is|are|was|were|can|has|have)\b", r"\1 not", text, count=1)
    return made if made != text else None


def _reversed(text: str) -> str | None:
    """Let what is on either side of a word that joins two change places."""
    join = r"(?:than|to|into|with|by|from|of|for|and the|affect|cause|prevent|replace|improve|predict)"
    found = re.fullmatch(rf"(.*\b)(?:the )?([\w-]{{3,}}) ({join}) (?:the )?([\w-]{{3,}})(\b.*)", text)
    if found is None or found[2].lower() == found[4].lower():
        return None
    return f"{found[1]}{found[4]} {found[3]} {found[2]}{found[5]}"


def _turned_about(text: str) -> str | None:
    """Let two words of the same make change places, wherever they stand."""
    words = re.findall(r"\b[a-z]{5,}\b", text)
    if len(words) < 2 or words[0].rstrip("s") == words[-1].rstrip("s"):
        return None
    first, last = words[0], words[-1]
    swap = {first: last, last: first}
    return re.sub(rf"\b(?:{first}|{last})\b", lambda m: swap[m[0]], text)


_ROLES = {"I": "you", "you": "I", "my": "your", "your": "my", "he": "they", "his": "their", "they": "he",
          "their": "his", "it": "they", "its": "their", "she": "they", "her": "their"}  # fmt: skip


def _other_role(text: str) -> str | None:
    made = re.sub(r"\b(?:I|you|my|your|he|his|they|their|its?|she|her)\b", lambda m: _ROLES[m[0]], text)
    return made if made != text else None


_PREPOSITIONS = {"from": "to", "to": "from", "in": "near", "by": "for", "for": "by", "on": "under",
                 "with": "for", "between": "within", "into": "from", "after": "during"}  # fmt: skip


def _other_preposition(text: str) -> str | None:
    made = re.sub(rf"\b(?:{'|'.join(_PREPOSITIONS)})\b", lambda m: _PREPOSITIONS[m[0]], text, count=1)
    return made if made != text else None


_TENSES = {"is": "was", "was": "is", "are": "were", "were": "are", "does": "did", "did": "does", "do": "did",
           "can": "should", "could": "must", "should": "can", "has": "had", "will": "did"}  # fmt: skip


def _other_tense(text: str) -> str | None:
    made = re.sub(rf"\b(?:{'|'.join(_TENSES)})\b", lambda m: _TENSES[m[0]], text, count=1)
    return made if made != text else None


OTHER: dict[str, Callable[[str], str | None]] = {
    "reversed": _reversed,
    "turned about": _turned_about,
    "other role": _other_role,
    "preposition": _other_preposition,
    "tense or mood": _other_tense,
    "other number": _other_number,
    "other kind": _other_kind,
    "opposite": _turned,
    "denied": _denied,
    "narrower": lambda t: f"{t.rstrip('?').strip()} outside Europe?",
    "narrower, small": lambda t: f"{t.rstrip('?').strip()} for women?",
}
"""Ways to ask something else. Two more need other questions: another name, and another plain word."""

_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")
_PLAIN = re.compile(r"\b[a-z]{5,}\b")


def _swapped(text: str, pattern: re.Pattern[str], words: list[str], rng: random.Random) -> str | None:
    found = pattern.findall(text)
    if not found:
        return None
    old = rng.choice(found)
    new = rng.choice(words)
    return re.sub(rf"\b{old}\b", new, text, count=1) if new != old else None


def asked(kept: list[Question], most: int) -> list[Asked]:
    """Make what is asked; the same for the same questions."""
    rng = random.Random(0)
    names = sorted({name for q in kept for name in _NAME.findall(q.text)})
    plain = sorted({word for q in kept for word in _PLAIN.findall(q.text)})
    chosen = sorted(range(len(kept)), key=lambda at: hashlib.sha256(kept[at].id.encode()).digest())[:most]
    found = []
    for at in chosen:
        text = kept[at].text
        made = [(rule, make(text), True) for rule, make in SAME.items()]
        made += [(rule, make(text), False) for rule, make in OTHER.items()]
        made += [("other name", _swapped(text, _NAME, names, rng), False)]
        made += [("other word", _swapped(text, _PLAIN, plain, rng), False)]
        found += [Asked(rule, new, at, same) for rule, new, same in made if new is not None and new != text]
    return found + [Asked("real", q.text, at, False) for at, q in enumerate(kept)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with rag/clapnq, rag/xquad, rag/pubmedqa")
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--most", type=int, default=400, help="questions that are said in other ways")
    parser.add_argument("--show", action="store_true", help="print wrong hits that the guard let through")
    chosen = parser.parse_args()
    kept = questions(chosen.data, chosen.split)
    every = asked(kept, chosen.most)
    embedder = MiniLmEmbedder(threads=None)
    held = np.array(embedder.embed([q.text for q in kept]), dtype=np.float32)
    vectors = np.array(embedder.embed([a.text for a in every]), dtype=np.float32)
    print(f"split {chosen.split}: {len(kept)} questions kept, {len(every)} asked")
    print("threshold guard  said otherwise   hit rate  wrong hits  precision")
    tables = {}
    for threshold in THRESHOLDS:
        for guarded in (False, True):
            right, wrong, by_rule = _measure(kept, held, every, vectors, threshold, guarded, chosen.show)
            same = sum(a.same for a in every)
            precision = right / (right + wrong) if right + wrong else 1.0
            word = "yes" if guarded else "no"
            rate = sum(by_rule[rule] for rule in SAME) / same
            print(f"{threshold:>9.2f} {word:>5} {same:>15} {rate:>10.1%} {wrong:>11} {precision:>10.2%}")
            tables[threshold, guarded] = by_rule
    asked_by_rule = Counter(a.rule for a in every)
    print("\nhits by rule at 0.90, of those asked: without guard, with guard")
    for rule, count in asked_by_rule.items():
        shares = [tables[0.90, guarded][rule] / count for guarded in (False, True)]
        print(f"  {rule:<16} {count:>6} {shares[0]:>8.1%} {shares[1]:>8.1%}")


def _measure(
    kept: list[Question],
    held: np.ndarray,
    every: list[Asked],
    vectors: np.ndarray,
    threshold: float,
    guarded: bool,
    show: bool,
) -> tuple[int, int, dict[str, int]]:
    """Return right hits, wrong hits, and hits by rule; a right hit of `real` counts for precision only."""
    right = wrong = 0
    by_rule: dict[str, int] = defaultdict(int)
    for asked, row in zip(every, vectors @ held.T, strict=True):
        for at in np.argsort(-row)[: _CANDIDATES + 1]:
            if row[at] < threshold:
                break
            if asked.rule == "real" and at == asked.source:
                continue
            if guarded and not guard.agree(asked.text, kept[at].text):
                continue
            alike = kept[at].answer == kept[asked.source].answer
            good = alike and (asked.same or asked.rule == "real")
            right, wrong = right + good, wrong + (not good)
            by_rule[asked.rule] += 1
            if show and guarded and not good and threshold == 0.90:
                print(f"  wrong ({asked.rule}): {asked.text!r} took the answer to {kept[at].text!r}")
            break
    return right, wrong, by_rule


if __name__ == "__main__":
    main()
