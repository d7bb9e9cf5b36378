"""Whether two questions that look alike also ask the same: what a vector does not see is looked at here.

A sentence embedding puts "can I sue my employer" beside "can my employer sue me". So a hit also needs that
both use the same words and signs in the same order, but for what is known to change nothing: case, greetings
and thanks, articles, the plural, contractions, where an auxiliary verb or a time stands. In doubt two
questions differ: an answer that is asked for again costs money, a wrong one costs trust.

This is English; of other languages it lets through what is equal but for case and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MOST_COMPARED = 2000
"""Longer texts must be equal (characters): to take them apart would hold others up."""
_WORD = r"\w+(?:[.,:/]\w+)*(?:'\w+)*"
_TOKEN = re.compile(rf"<[A-Z_]+_\d+>|(?P<word>{_WORD})|(?P<sign>\S)")
_GIVEN = re.compile(r":\s|\n")
"""After this stands what a question is about, such as a text to translate: there every character counts."""
_AMOUNT = re.compile(r"(\d[\d.,:/]*)([^\W\d_]+)")
_MARKS = {
    "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"',
    "\uff1f": "?", "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2212": "-",
}  # fmt: skip
_TABLE = str.maketrans(_MARKS)
_SINGLE = re.compile(r"(?<!\w)'([^'\n]+)'(?!\w)")
_VERBATIM = frozenset('"`')
"""Between two of these everything counts, as it is written but for its case."""
_PUNCTUATION = frozenset(",.;:!?\u2026\u3002")

_ENGLISH = frozenset(
    "what who when where why how which the does did are were should would could my you your i'm with and this"
    " that these those from please what's who's".split()
)
"""Words that few other languages have: without one of them no ending is cut off, and nothing left out."""
_ABOUT_WORDS = frozenset(
    "translate translated translation spell spelled spelling plural singular letter letters word words"
    " grammar grammatical grammatically sentence rhyme rhymes synonym synonyms antonym anagram pronounce"
    " pronounced tense verb noun article rewrite rephrase paraphrase proofread capitalize mean means meaning"
    " define definition correct fix improve edit check classify summarize answer repeat say said".split()
)
"""Who asks about words means them as they are written."""
_ARTICLES = {"the": "the", "a": "a", "an": "a"}
_EMPTY = frozenset("exactly actually".split())
_QUANTITIES = frozenset("few little lot couple bit".split())
"""Before these an article changes the meaning."""
_AUXILIARIES = frozenset(
    "am is are was were be been being do does did has have had can could will would shall should may might"
    " must".split()
)
"""Where they stand tells a question from a statement, so they count, but not their place."""
_CONTRACTED = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "i'm": "i am",
    "let's": "let us",
}  # fmt: skip
_ENDS = (("n't", " not"), ("'re", " are"), ("'ve", " have"), ("'ll", " will"))
_IS = frozenset("what who where how when why which that it there here he she".split())
"""Words after which 's stands for `is`; after others it says whose something is."""
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        "zero - two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen nineteen twenty".split()
    )
    if word != "-"  # `one` is mostly no number
} | {"first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th"}
_NO_PLURALS = frozenset(
    "news glasses arms customs means goods species series maths physics politics economics ethics athletics"
    " statistics mathematics kids us is was has this his its yes gas bus plus less thus always does".split()
)

_HEAD = re.compile(
    r"(?:(?:hi|hello|hey|ok|okay|good (?:morning|afternoon|evening)|thanks|thank you|quick question"
    r"|i have a question)(?: there)?(?=\s*[,!.:;])"
    r"|(?:please|kindly)\b"
    r"|(?:can|could|would|will) you (?:please |kindly )?(?=(?:tell|show|give|explain|describe|list|name|find"
    r"|summarize|translate|convert|write|calculate)\b)"
    r"|(?:tell|show) me\b"
    r"|let me know\b"
    r"|(?:i|we)(?: would|'d) like to know\b|(?:i|we) want(?:ed)? to know\b|i need to know\b"
    r"|(?:do|does) (?:you|anyone|anybody) know (?=(?:what|who|whom|whose|when|where|why|how|which)\b)"
    r"|i(?: was|'m| am) wondering\b|i wonder\b"
    r")[\s,!.:;-]*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?<=[.!?])\s+(?:please|thanks|thank you|thanks a lot|thanks in advance|thank you very much"
    r"|thank you so much)[\s.!]*$",
    re.IGNORECASE,
)
_HOW_TO = re.compile(r"\bhow (?:do|can|could|would) (?:i|we|one)\b", re.IGNORECASE)
_ASKS = re.compile(
    r":\s+(?:what|who|whom|when|where|why|how|which|is|are|was|were|do|does|did|has|have|had|can|could|will|would"
    r"|should)\b[^\n]*",
    re.IGNORECASE,
)
"""A question after its theme."""
_FRONTED = re.compile(
    r"((?:in|on|at|during|since|by|as of)\b[^,.?!;:]{1,60}),\s+"
    r"((?:what|who|whom|whose|when|where|why|how|which|is|are|was|were|do|does|did|has|have|had|can|could|will"
    r"|would|should)\b[^,.!?;:]*)[.?!\s]*",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\b(?:that|who|which|where|when|because|if|while|and|or|before|after)\b", re.IGNORECASE)
"""A second clause: what stands before the first may not belong to it."""


@dataclass(frozen=True, slots=True)
class _Token:
    key: str
    """What is compared."""
    raw: str
    """As it was written."""
    begins: bool
    """Whether a capital may be the sentence's."""
    article: str = ""
    """Before it: `the`, `a`, or none."""


def agree(one: str, other: str) -> bool:
    """Say whether two questions ask the same, as far as their words tell. In doubt they do not."""
    if one == other:
        return True
    if max(len(one), len(other)) > MOST_COMPARED:
        return False
    one, other = _plain(one), _plain(other)
    (one, given), (other, given_too) = _parted(one), _parted(other)
    if given != given_too:
        return False
    english = _english(one) and _english(other)
    a, aside = _read(one, english)
    b, besides = _read(other, english)
    return len(a) == len(b) and aside == besides and all(map(_alike, a, b)) and _cased_alike(a, b)


def _alike(a: _Token, b: _Token) -> bool:
    """Say whether two tokens are one. An article may be left out, another one is another question."""
    return a.key == b.key and (a.article == b.article or not a.article or not b.article)


def _cased_alike(a: list[_Token], b: list[_Token]) -> bool:
    """Say whether capitals tell the same, as far as both writers use them: Mb is not MB, US is not us."""
    uses = [any(t.raw != t.raw.lower() and not t.begins for t in tokens) for tokens in (a, b)]
    return not all(uses) or all(
        x.raw == y.raw or x.begins or y.begins or x.raw.lower() != y.raw.lower()
        for x, y in zip(a, b, strict=True)
    )


def _plain(text: str) -> str:
    """Return a text with one kind of quotation mark and dash, without what is said out of politeness."""
    text = unicodedata.normalize("NFC", text).translate(_TABLE)  # NFKC would take x\u00b2 for x2
    text = _SINGLE.sub(r'"\1"', text).strip()
    if text.isupper():
        text = text.lower()
    while True:
        found = _HEAD.match(text)
        rest = text[found.end() :] if found else text
        if _GIVEN.search(rest) is None:
            rest = _TAIL.sub("", rest)
        if rest == text or not rest:
            return text
        text = rest


def _parted(text: str) -> tuple[str, str]:
    """Part a question from the text that it is about."""
    found = _GIVEN.search(text)
    if found is None:
        return text, ""
    asked, given = text[: found.start()], text[found.start() :]
    return (text, "") if _ASKS.match(given) and _ABOUT_WORDS.isdisjoint(_words(asked)) else (asked, given)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _english(text: str) -> bool:
    """Say whether the rules of English may be applied."""
    words = _words(text)
    return not _ENGLISH.isdisjoint(words) and _ABOUT_WORDS.isdisjoint(words)


def _read(text: str, english: bool) -> tuple[list[_Token], list[str]]:
    """Take a text apart.

    Returns:
        What counts where it stands, and the auxiliary verbs, of which only the order counts.
    """
    if not english:
        return list(_tokens(text)), []
    if (found := _FRONTED.fullmatch(text)) and _CLAUSE.search(found[2], 1) is None:
        text = f"{found[2]} {found[1][0].lower()}{found[1][1:]}"
    text = _HOW_TO.sub("how to", text)
    kept: list[_Token] = []
    aside: list[str] = []
    article = ""
    for token, verbatim in _spoken(text):
        if verbatim:
            kept.append(token)
        elif token.key in _EMPTY:
            continue
        elif token.key in _AUXILIARIES and not _a_name(token):
            aside.append(token.key)
        elif token.key in _ARTICLES and not _a_name(token):
            article = _ARTICLES[token.key]
            continue
        else:
            key = f"{article} {token.key}" if token.key in _QUANTITIES else _singular(token.key)
            if _a_name(token) and token.key in _LIKE_NAMES:
                key = token.raw
            kept.append(_Token(key, token.raw, token.begins, article))
        article = ""
    return kept, aside


_LIKE_NAMES = frozenset("us it who or in may am is are can will must aids".split())
"""Words that are another one in capitals."""


def _a_name(token: _Token) -> bool:
    """Say whether a word is written like a name or an abbreviation, which no light word is."""
    return len(token.raw) > 1 and token.raw.isupper()


def _spoken(text: str) -> Iterator[tuple[_Token, bool]]:
    """Yield tokens with contractions spelled out, and whether each stands within quotation marks."""
    verbatim = False
    for token in _tokens(text):
        if token.key in _VERBATIM:
            verbatim = not verbatim
            yield token, True
        elif verbatim:
            yield token, True
        else:
            for word in _spelled_out(token.key).split():
                raw = token.raw if word == token.key else word
                yield _Token(word, raw, token.begins), False


def _spelled_out(word: str) -> str:
    if "'" not in word:
        return _CONTRACTED.get(word, _NUMBERS.get(word, word))
    if word in _CONTRACTED:
        return _CONTRACTED[word]
    for end, meant in _ENDS:
        if word.endswith(end):
            return word.removesuffix(end) + meant
    if word.endswith("'s"):
        owner = word.removesuffix("'s")
        return f"{owner} is" if owner in _IS else owner
    return word


def _tokens(text: str) -> Iterator[_Token]:
    """Yield words, numbers and signs; marks that only end or part sentences are left out."""
    begins, counted = True, False
    for match in _TOKEN.finditer(text):
        raw = match[0]
        if match["sign"]:
            if raw in _PUNCTUATION and (match.end() == len(text) or text[match.end()] in " \t\n\"')?!.,"):
                begins = raw not in ",;"
                continue
            yield _Token(raw, raw, begins)
            continue
        if match["word"] and (amount := _AMOUNT.fullmatch(raw)) and not raw.endswith(_ORDINALS):
            yield _Token(amount[1].replace(",", ""), amount[1], False)
            raw, counted = amount[2], True
        unit = counted and len(raw) <= 3  # 5 m are not 5 M
        counted = raw[0].isdigit()
        key = raw.replace(",", "") if counted else raw
        yield _Token(key if unit else key.lower(), raw, begins)
        begins = False


_ORDINALS = ("st", "nd", "rd", "th")


def _singular(word: str) -> str:
    """Cut a plural's ending off, roughly and always alike: both forms of one word come out equal."""
    if (
        len(word) < 4
        or word in _NO_PLURALS
        or not word.endswith("s")
        or word.endswith(("ss", "us", "is", "'s"))
    ):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]
