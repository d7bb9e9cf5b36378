"""Whether two questions that look alike also ask the same: what a vector does not see is looked at here.

A sentence embedding puts "the capital of France in 1990" beside "the capital of Spain in 1991". So a hit
also needs that both name the same numbers, dates and names in the same order, quote the same, deny as often,
ask for the same kind of thing, use no word where the other has its opposite, and share their weighty words.
English only; of other languages it lets through what is equal but for case and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_QUOTED = re.compile(r'"([^"]+)"|(?<!\w)\'([^\']+)\'(?!\w)')
_WORD = re.compile(r"<[A-Z_]+_\d+>|\w+(?:[.,:/-]\w+)*(?:['’]\w+)?")
_SENTENCE = re.compile(r"(?:^|[.!?:]\s+|[\"(]\s*)$")
_DIGIT = re.compile(r"\d")

_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        "zero - two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen nineteen twenty".split()
    )
    if word != "-"  # `one` is mostly no number
} | {
    "thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000", "million": "1e6",
    "billion": "1e9", "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th",
    "once": "1x", "twice": "2x", "half": "1/2", "dozen": "12",
}  # fmt: skip
_DATES = frozenset(
    "january february march april may june july august september october november december monday tuesday"
    " wednesday thursday friday saturday sunday today yesterday tomorrow tonight last next this ago since"
    " until current currently now previous recent latest past future".split()
)
_NEGATIONS = frozenset("not no never none nobody nothing neither nor without except cannot unlike".split())
_OPPOSITES = (
    "before after", "more less fewer", "most least fewest", "highest lowest", "higher lower", "high low",
    "maximum minimum", "max min", "largest smallest", "biggest smallest", "larger smaller", "big small",
    "large small", "longest shortest", "longer shorter", "long short", "oldest newest youngest",
    "old new young",
    "first last", "increase decrease reduce", "increased decreased reduced", "increases decreases reduces",
    "rise fall", "start end stop", "begin end finish", "began ended finished", "started ended stopped",
    "open close", "opened closed", "buy sell", "bought sold", "win lose", "won lost", "enable disable",
    "allow forbid deny", "allowed forbidden denied", "include exclude", "add remove delete", "to from",
    "above below", "over under", "inside outside", "import export", "upload download", "best worst",
    "better worse", "good bad", "true false", "with without", "always never", "all none", "early late",
    "earliest latest", "fastest slowest", "faster slower", "hot cold", "warm cold", "north south",
    "east west",
    "left right", "male female", "men women", "man woman", "boys girls", "mother father", "husband wife",
    "son daughter", "brother sister", "king queen", "he she", "his her", "advantages disadvantages",
    "benefits drawbacks risks", "pros cons", "cause effect", "causes effects", "positive negative",
    "borrow lend", "arrive depart leave", "arrived departed left", "in out", "on off", "up down",
    "encode decode", "encrypt decrypt", "internal external", "legal illegal", "safe unsafe dangerous",
    "possible impossible", "employer employee", "teacher student", "parent child", "parents children",
)  # fmt: skip
_PAIRS = frozenset((a, b) for group in _OPPOSITES for a in group.split() for b in group.split() if a != b)

_LIGHT = frozenset(
    "a an the of to in on at by for from with and or as is are was were be been being am do does did"
    " done has have had can could would should will shall may might must i you we they it he she my"
    " your our their its me us them that which who whom whose what when where why how there here so"
    " then than if also just please tell give show explain describe say know like want need help let"
    " kindly i'd i'm what's who's where's how's it's that's exactly actually really about question"
    " answer hello hi hey thanks thank many much some any into out up down over under name named"
    " called specific".split()
)
"""Words that carry no weight of their own here; what they ask for is looked at as the kind of a question."""

_KINDS = (
    ("who", re.compile(r"\b(?:who|whom|whose|(?:what|which) (?:person|people|man|woman))\b")),
    ("when", re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|time|century|decade))\b")),
    ("where", re.compile(r"\b(?:where|(?:what|which) (?:place|location|country|city|state))\b")),
    ("why", re.compile(r"\b(?:why|how come|(?:what|which) (?:reason|reasons))\b")),
    ("how many", re.compile(r"\bhow (?:many|much)\b|\b(?:what|which) (?:number|amount|percentage|share)\b")),
    ("how long", re.compile(r"\bhow (?:long|far|old|tall|high|deep|big|large|often|fast|wide|heavy)\b")),
    ("how", re.compile(r"\bhow\b")),
    ("what", re.compile(r"\b(?:what|which)\b")),
)


@dataclass(frozen=True, slots=True)
class _Traits:
    quoted: frozenset[str]
    numbers: tuple[str, ...]
    dates: tuple[str, ...]
    names: tuple[str, ...]
    denied: int
    kinds: tuple[str, ...]
    order: tuple[str, ...]
    words: frozenset[str]
    weighty: tuple[str, ...]


def agree(one: str, other: str) -> bool:
    """Say whether two questions ask the same, as far as their words tell. In doubt they do not."""
    a, b = _traits(one), _traits(other)
    return (
        a.quoted == b.quoted
        and a.numbers == b.numbers
        and a.dates == b.dates
        and a.denied == b.denied
        and a.kinds == b.kinds
        and a.weighty == b.weighty
        and _same_names(a, b)
        and not any((x, y) in _PAIRS for x in a.words - b.words for y in b.words - a.words)
    )


def _same_names(a: _Traits, b: _Traits) -> bool:
    """Say whether each has the other's names, whatever their case, in the same order."""
    names = frozenset(a.names + b.names)
    return [w for w in a.order if w in names] == [w for w in b.order if w in names]


def _traits(text: str) -> _Traits:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("“", '"').replace("”", '"')
    low = " ".join(text.lower().split())
    numbers: list[str] = []
    dates: list[str] = []
    names: list[str] = []
    order: list[str] = []
    weighty: list[str] = []
    denied = 0
    words: set[str] = set()
    for match in _WORD.finditer(text):
        word = match[0]
        plain = word.lower().removesuffix("'s")
        words.add(plain)
        order.append(_stem(plain))
        if plain not in _LIGHT and plain not in _NUMBERS:
            weighty.append(order[-1])
        if plain in _NEGATIONS or plain.endswith("n't"):
            denied += 1
        if _DIGIT.search(word) or plain in _NUMBERS:
            numbers.append(_NUMBERS.get(plain, plain.replace(",", "")))
        elif plain in _DATES and not (plain in ("may", "march") and word.islower()):
            dates.append(plain)
        elif plain not in _LIGHT and _names(text, match):
            names.append(_stem(plain))
    return _Traits(
        quoted=frozenset((a or b).lower().strip() for a, b in _QUOTED.findall(text)),
        numbers=tuple(numbers),
        dates=tuple(sorted(dates)),
        names=tuple(names),
        denied=denied,
        kinds=_kinds(low),
        order=tuple(order),
        words=frozenset(words),
        weighty=tuple(sorted(weighty)),
    )


def _names(text: str, match: re.Match[str]) -> bool:
    """Say whether a word is written as a name: with a capital that no sentence's beginning explains."""
    word = match[0]
    if word[0] == "<" or any(letter.isupper() for letter in word[1:]):
        return True
    begins = _SENTENCE.search(text[: match.start()]) is not None
    return word[0].isupper() and not begins


def _kinds(low: str) -> tuple[str, ...]:
    """Return what a text asks for; each word counts for the narrowest kind that it speaks of."""
    found: list[tuple[int, str]] = []
    taken: set[int] = set()
    for kind, pattern in _KINDS:
        for match in pattern.finditer(low):
            if match.start() not in taken:
                taken.add(match.start())
                found.append((match.start(), kind))
    return tuple(sorted({kind for _, kind in found}))


_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "ed", "es", "s", "ly")


def _stem(word: str) -> str:
    """Cut an English ending off, roughly and always alike: forms of one word come out equal."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 4 else word
